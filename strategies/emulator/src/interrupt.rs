//! Interrupts and exceptions: delivery through the IVT or IDT. (To be written.)

use crate::Outcome;
use crate::exception::Exception;
use machine::Machine;

/// Delivers an exception or interrupt, with double and triple faults.
pub(crate) fn raise(_m: &mut Machine, _exception: Exception) -> Outcome {
    Outcome::Shutdown
}

/// Delivers an external interrupt; wakes the CPU from HLT.
pub fn deliver_interrupt(m: &mut Machine, vector: machine::Vector) -> Outcome {
    m.cpu.halted = false;
    raise(m, Exception::external(vector.0))
}
