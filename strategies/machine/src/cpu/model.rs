//! The CPUs that guests can be shown: a CPUID that is equal under every strategy.
//!
//! A model announces only what all strategies give. SYSENTER, APIC, MTRR and machine check are in
//! none: SYSENTER cannot be virtualized in ring 3 on AMD hosts, and an announced APIC without an
//! I/O APIC stops Linux. Unprivileged instructions that a model does not announce are not taken
//! away (no hypervisor can); control-register bits are.

use super::Cr4;
use bitflags::bitflags;

bitflags! {
    /// CPUID leaf 1, EDX (Intel SDM volume 2, CPUID).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u32 {
        /// x87 on chip.
        const FPU = 1 << 0;
        /// Debugging extensions.
        const DE = 1 << 2;
        /// 4 MiB pages.
        const PSE = 1 << 3;
        /// Time-stamp counter.
        const TSC = 1 << 4;
        /// RDMSR and WRMSR.
        const MSR = 1 << 5;
        /// Physical address extension.
        const PAE = 1 << 6;
        /// CMPXCHG8B.
        const CX8 = 1 << 8;
        /// Global pages.
        const PGE = 1 << 13;
        /// CMOVcc.
        const CMOV = 1 << 15;
        /// Page attribute table.
        const PAT = 1 << 16;
        /// MMX.
        const MMX = 1 << 23;
        /// FXSAVE and FXRSTOR.
        const FXSR = 1 << 24;
        /// SSE.
        const SSE = 1 << 25;
        /// SSE2.
        const SSE2 = 1 << 26;
    }
}

/// Which CPU the guest sees.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
pub enum CpuModel {
    /// Intel 486 DX4 with CPUID.
    #[serde(rename = "486")]
    I486,
    /// Intel Pentium.
    #[serde(rename = "pentium")]
    Pentium,
    /// Intel Pentium with MMX.
    #[serde(rename = "pentium-mmx")]
    PentiumMmx,
    /// Intel Pentium Pro.
    #[serde(rename = "pentium-pro")]
    PentiumPro,
    /// Intel Pentium II.
    #[serde(rename = "pentium2")]
    Pentium2,
    /// Intel Pentium III.
    #[serde(rename = "pentium3")]
    Pentium3,
    /// Intel Pentium 4 (with SSE2).
    #[default]
    #[serde(rename = "pentium4")]
    Pentium4,
}

/// What one CPUID leaf returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidLeaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl CpuModel {
    /// All models, oldest first.
    pub const ALL: [CpuModel; 7] = [
        Self::I486,
        Self::Pentium,
        Self::PentiumMmx,
        Self::PentiumPro,
        Self::Pentium2,
        Self::Pentium3,
        Self::Pentium4,
    ];

    /// The name used in TOML and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::I486 => "486",
            Self::Pentium => "pentium",
            Self::PentiumMmx => "pentium-mmx",
            Self::PentiumPro => "pentium-pro",
            Self::Pentium2 => "pentium2",
            Self::Pentium3 => "pentium3",
            Self::Pentium4 => "pentium4",
        }
    }

    /// Family, model and stepping as CPUID leaf 1 and EDX after reset give them.
    #[must_use]
    pub fn signature(self) -> u32 {
        match self {
            Self::I486 => 0x480,
            Self::Pentium => 0x52c,
            Self::PentiumMmx => 0x543,
            Self::PentiumPro => 0x619,
            Self::Pentium2 => 0x652,
            Self::Pentium3 => 0x6b1,
            Self::Pentium4 => 0xf24,
        }
    }

    /// The features announced.
    #[must_use]
    pub fn features(self) -> Features {
        let i486 = Features::FPU;
        let pentium =
            i486 | Features::DE | Features::PSE | Features::TSC | Features::MSR | Features::CX8;
        let pro = pentium | Features::PAE | Features::PGE | Features::CMOV;
        let pentium2 = pro | Features::MMX | Features::FXSR | Features::PAT;
        match self {
            Self::I486 => i486,
            Self::Pentium => pentium,
            Self::PentiumMmx => pentium | Features::MMX,
            Self::PentiumPro => pro,
            Self::Pentium2 => pentium2,
            Self::Pentium3 => pentium2 | Features::SSE,
            Self::Pentium4 => pentium2 | Features::SSE | Features::SSE2,
        }
    }

    /// The bits of CR4 that may be set; setting another raises #GP.
    #[must_use]
    pub fn cr4_mask(self) -> Cr4 {
        let features = self.features();
        let mut mask = Cr4::empty();
        for (feature, bits) in [
            (Features::DE, Cr4::DE),
            (Features::PSE, Cr4::PSE),
            (Features::TSC, Cr4::TSD),
            (Features::PAE, Cr4::PAE),
            (Features::PGE, Cr4::PGE),
            (Features::FXSR, Cr4::OSFXSR),
            (Features::SSE, Cr4::OSXMMEXCPT),
        ] {
            mask.set(bits, features.contains(feature));
        }
        mask
    }

    /// What CPUID returns for leaf `eax`. Leaves above the highest return what the highest does
    /// (Intel SDM volume 2, CPUID); extended leaves do not exist.
    #[must_use]
    pub fn cpuid(self, eax: u32) -> CpuidLeaf {
        match eax {
            0 => CpuidLeaf {
                eax: 1,
                ebx: u32::from_le_bytes(*b"Genu"),
                edx: u32::from_le_bytes(*b"ineI"),
                ecx: u32::from_le_bytes(*b"ntel"),
            },
            _ => CpuidLeaf {
                eax: self.signature(),
                edx: self.features().bits(),
                ..CpuidLeaf::default()
            },
        }
    }
}

impl std::fmt::Display for CpuModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for CpuModel {
    type Err = String;

    fn from_str(name: &str) -> Result<CpuModel, String> {
        let known = Self::ALL.iter().find(|model| model.name() == name).copied();
        known.ok_or_else(|| {
            format!(
                "unknown CPU model {name:?}: expected one of {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}
