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
pub mod kick;
pub mod ldt;
pub mod low_memory;
pub mod runs;
pub mod sandbox;
mod signals;
mod thread_setup;
mod time_stamp;
pub mod translated;
mod watchdog;
mod ways_out;
pub mod window;
mod world_switch;

pub use error::Error;
