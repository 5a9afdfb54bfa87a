//! The guests that are measured: assembled for the number of iterations that the harness asks for.
//!
//! Each workload is a multiboot image (a.out kludge, so that any multiboot loader takes it) that
//! sets up its own descriptor tables, runs, and reports through the debug console in the way that
//! [`protocol`] describes: marks around the measured part, probe results, and a checksum that must
//! equal [`Image::checksum`].

pub mod compute;
pub mod linux;
mod nano;
pub mod programs;
pub mod protocol;
pub mod runtime;
mod sensitive;
mod simulator;
mod sums;
mod system;

/// What a workload is about; the groups of the report.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// One privileged or costly operation in a loop, after Adams & Agesen 2006.
    Nano,
    /// One sensitive instruction each, with a probe of what the guest sees.
    Sensitive,
    /// What translators and interpreters pay, after Wagstaff and others 2017 (SimBench).
    Simulator,
    /// User-level computation.
    Compute,
    /// What operating systems do.
    System,
    /// A whole operating system that other people built: installed, not assembled.
    Linux,
}

impl Group {
    /// All groups, in the order in which they are shown.
    pub const ALL: [Group; 6] =
        [Self::Nano, Self::Sensitive, Self::Simulator, Self::Compute, Self::System, Self::Linux];

    /// The name in TOML, on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::Sensitive => "sensitive",
            Self::Simulator => "simulator",
            Self::Compute => "compute",
            Self::System => "system",
            Self::Linux => "linux",
        }
    }
}

/// A guest image for a given number of iterations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// The multiboot image.
    pub bytes: Vec<u8>,
    /// The checksum that the guest must report.
    pub checksum: u32,
    /// Sectors of 512 bytes that an attached disk must hold, or 0 where no disk is needed. See
    /// [`disk_image`].
    pub disk_sectors: u32,
}

/// A guest image could not be assembled.
#[derive(Debug, thiserror::Error)]
#[error("workload {workload}: {reason}")]
pub struct Error {
    /// Which workload.
    pub workload: &'static str,
    /// What the assembler said.
    pub reason: String,
}

/// Assembles an image for so many iterations.
type Assemble = fn(u32) -> Result<Image, Error>;

/// A workload: a guest that can be assembled for any number of iterations.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name in TOML, on the command line and in tables.
    pub name: &'static str,
    /// Its group.
    pub group: Group,
    /// One line: what it does and what one iteration is.
    pub summary: &'static str,
    /// Bytes of guest memory that it needs.
    pub memory_bytes: u64,
    /// Iterations to begin the calibration with: well under 20 ms under every strategy.
    pub first_iterations: u32,
    /// Assembles the image.
    assemble: Assemble,
}

impl Workload {
    /// The image that does `iterations` iterations (at least one).
    ///
    /// # Errors
    /// When the assembler finds an error in the workload.
    pub fn assemble(&self, iterations: u32) -> Result<Image, Error> {
        (self.assemble)(iterations.max(1))
    }

    /// The inner function alone, for address `base` (below 2 GiB), where the workload has one that needs no guest
    /// around it: the compute workloads do.
    ///
    /// # Errors
    /// When the assembler finds an error in the workload.
    pub fn native(&self, base: u32) -> Result<Option<compute::NativeKernel>, Error> {
        compute::native(self.name, base)
    }
}

/// All workloads that there are, by group: those that are assembled, and [`linux::all`].
#[must_use]
pub fn known() -> Vec<Workload> {
    [all(), linux::all()].concat()
}

/// All workloads that are assembled, by group.
#[must_use]
pub fn all() -> Vec<Workload> {
    [nano::all(), sensitive::all(), simulator::all(), compute::all(), system::all()].concat()
}

/// The contents of the disk that disk workloads read: each sector holds its number in every
/// doubleword, mixed so that sectors differ in every byte.
#[must_use]
pub fn disk_image(sectors: u32) -> Vec<u8> {
    let sector = |number: u32| {
        (0..128u32).flat_map(move |word| (number.wrapping_mul(0x9e37_79b9) ^ word).to_le_bytes())
    };
    (0..sectors).flat_map(sector).collect()
}
