//! Executes IA-32 instructions on a machine: the only description of their semantics.

use machine::Machine;

/// What an instruction left the CPU in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The next instruction can be executed.
    Continue,
    /// The CPU waits in HLT (`cpu.halted` is set).
    Halted,
    /// A triple fault shut the CPU down.
    Shutdown,
}

/// Executes one instruction, exceptions delivered. (To be written.)
pub fn step(_machine: &mut Machine) -> Outcome {
    Outcome::Continue
}
