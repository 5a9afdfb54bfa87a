//! The names of the strategies.

/// A way of virtualizing the CPU.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyId {
    /// Every instruction in software: the reference.
    Interpretation,
    /// Natively in ring 3; what traps is emulated.
    TrapAndEmulate,
    /// Natively in ring 3; critical sequences are rewritten.
    CodePatching,
    /// Translated into a cache.
    BinaryTranslation,
    /// The CPU's own virtualization, through KVM.
    HardwareAssist,
}

impl StrategyId {
    /// All of them, in the order in which they are shown.
    pub const ALL: [StrategyId; 5] = [
        Self::Interpretation,
        Self::TrapAndEmulate,
        Self::CodePatching,
        Self::BinaryTranslation,
        Self::HardwareAssist,
    ];

    /// The name in TOML, on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interpretation => "interpretation",
            Self::TrapAndEmulate => "trap-and-emulate",
            Self::CodePatching => "code-patching",
            Self::BinaryTranslation => "binary-translation",
            Self::HardwareAssist => "hardware-assist",
        }
    }
}

impl std::fmt::Display for StrategyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
