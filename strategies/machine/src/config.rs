//! What a machine is made of.

use crate::clock::ClockSource;
use crate::cpu::CpuModel;
use std::path::PathBuf;

/// A disk image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// A raw image; its size is a multiple of 512 bytes.
    pub path: PathBuf,
    /// Whether guest writes are refused.
    pub read_only: bool,
}

/// What a machine is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Bytes of RAM, a multiple of 4 KiB.
    pub memory_bytes: u64,
    /// Which CPU the guest sees.
    pub cpu: CpuModel,
    /// Where guest time comes from.
    pub clock: ClockSource,
    /// The ATA disk, if there is one.
    pub disk: Option<DiskConfig>,
    /// A ROM that ends at 4 GiB, where the CPU starts after reset; empty for none.
    pub rom: Vec<u8>,
}

impl Default for MachineConfig {
    fn default() -> MachineConfig {
        MachineConfig {
            memory_bytes: 128 << 20,
            cpu: CpuModel::default(),
            clock: ClockSource::default(),
            disk: None,
            rom: Vec::new(),
        }
    }
}
