//! Direct execution in ring 3: the guest's own bytes on the host's CPU.
//!
//! The guest runs in 32-bit compatibility mode at CPL 3. Its address space is shown in a window at
//! linear address 0 (`shadow`), its segments by LDT descriptors with DPL 3 (`segments`). Every
//! signal is an exit (`exit`): the interrupted state is copied into the machine, and ordinary code
//! decides — map a page, raise what the guest is to see, or let the emulator execute the
//! instruction. What cannot run so (real mode, virtual-8086 mode, single steps) the emulator runs.
//!
//! What does not trap is not noticed. `trap-and-emulate` leaves it at that; `code-patching` has the
//! guest's code executed from copies in which nothing is left to go wrong ([`Code`]).

mod behind;
mod code;
mod engine;
mod exit;
mod peek;
mod segments;
mod shadow;
mod straddle;
mod tables;
mod user;
mod watch;
mod world;

pub use code::{Code, GuestBytes};
pub use engine::{Engine, support};
pub use shadow::{CodePage, Shadow, Touch};
pub use user::UserCode;
pub use watch::Divergence;
