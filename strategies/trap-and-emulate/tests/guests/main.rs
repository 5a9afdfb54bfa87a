//! Small guests under trap-and-emulate: what traps comes out as the architecture has it, and what
//! does not trap is found by the watch.
//!
//! The guests are code-patching's too: its tests run these files with a strategy of their own.

#[macro_use]
mod guest;

mod float;
mod limits;
mod modes;
mod moving;
mod paging;
mod privilege;
mod random;
mod segments;
mod time;
mod traps;
mod watch;

use trap_and_emulate::TrapAndEmulate;

/// The strategy under test.
type Native = TrapAndEmulate;

fn native() -> Native {
    TrapAndEmulate::new()
}

/// Whether PUSHF shows the host's IF, because it does not trap.
const PUSHF_SHOWS_HOST: bool = true;
