//! The guest: CPU state, memory, bus, devices and boot images.
//!
//! This crate is what all strategies share and it knows none of them. [`Machine`] owns the whole
//! architectural state of one IA-32 PC; a strategy runs it for a while and leaves it complete, so
//! that any other strategy can carry on. How instructions behave is the `emulator` crate's concern.

pub mod address;
pub mod boot;
mod breakpoints;
pub mod bus;
pub mod clock;
mod compare;
pub mod config;
mod contents;
pub mod counters;
pub mod cpu;
pub mod devices;
mod error;
pub mod host_time;
mod machine;
pub mod memory;
pub mod page_table;
mod sections;
pub mod signals;
mod snapshot;
pub mod tap;
pub mod tlb;

pub use address::{LinearAddress, PhysicalAddress, Selector, Vector};
pub use breakpoints::Breakpoints;
pub use compare::{Difference, Field, Fingerprint, difference, differing_pages};
pub use config::MachineConfig;
pub use cpu::Cpu;
pub use error::Error;
pub use machine::Machine;
pub use sections::FormatError;
pub use snapshot::RestoreOptions;
