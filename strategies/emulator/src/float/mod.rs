//! x87, MMX, SSE and SSE2 on the host's own unit. (To be written.)

use machine::Machine;

/// Takes the x87 state back from the host's unit, if it is there.
pub(crate) fn leave(_m: &mut Machine) {}
