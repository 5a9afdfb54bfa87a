//! What strategies borrow from the host kernel and CPU: guest code run natively in compatibility
//! mode, descriptors in the host's LDT, memory below 4 GiB, address windows, signals as exits.
//!
//! All of the project's signal handling lives here. What an exit means for a guest is left to the
//! strategies.

pub mod address_window;
pub mod compatibility;
pub mod crossing;
mod dispatch;
mod error;
mod high_half;
pub mod int1;
pub mod kick;
pub mod ldt;
pub mod low_memory;
pub mod runs;
pub mod sandbox;
pub mod shared_pages;
mod signals;
mod thread_setup;
mod time_stamp;
pub mod translated;
mod watchdog;
mod ways_out;
pub mod window;
mod world_switch;

pub use error::Error;

/// Whether memory can be executable and yet not readable: Linux sees to that where the CPU has
/// protection keys (PKU) and the kernel uses them (OSPKE, Intel SDM volume 2, CPUID leaf 7).
#[must_use]
pub fn has_execute_only_memory() -> bool {
    const OSPKE: u32 = 1 << 4;
    let highest = core::arch::x86_64::__cpuid(0).eax;
    highest >= 7 && core::arch::x86_64::__cpuid_count(7, 0).ecx & OSPKE != 0
}
