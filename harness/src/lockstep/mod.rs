//! Lockstep: a strategy runs a guest beside the emulator, and the first difference is found.
//!
//! No strategy has to count instructions for it. A stretch goes like this:
//!
//! ```text
//! runner      runs a strategy for about so many instructions and stops where it can; the tap
//!             records what comes in, and interrupts are held back
//! reference   gets the same inputs from the log and executes the same code in the emulator, one
//!             visit of the runner's EIP after the other, until everything is equal there: the
//!             whole CPU, the pages that it wrote since the stretch began, and the log used up
//! both        take an interrupt, if one has come meanwhile: always between two stretches
//! ```
//!
//! When the reference gets nowhere near, both go back to the beginning of the stretch, and a binary
//! search finds the instruction (`locate`): the emulator executes the first k, the strategy the rest.
//! What the architecture leaves open is no difference: flags that it calls undefined (`undefined`), and
//! accessed bits of what is only read ahead (`accessed`). Where it shows in what comes later, the
//! comparison ends, and says so (`open`).
//!
//! Pages that only the strategy has written are found by comparing all memory: from time to time, or at
//! each end of a stretch where that is asked for. What was executed on the way to a difference is noted
//! beside it (`way`), for those who judge it.
//!
//! Two strategies are compared by holding each against the reference.

mod accessed;
mod chase;
mod code;
mod engine;
mod finding;
mod locate;
mod log;
mod open;
mod reference;
mod runner;
mod stale;
mod undefined;
mod way;

pub use engine::{End, Lockstep, Options, Progress};
pub use finding::{Finding, Place, What};
pub use open::Open;
pub use way::{Fault, Way, stores_x87_pointers};
