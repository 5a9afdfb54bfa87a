//! Executes IA-32 instructions on a machine: the only description of their semantics.
//!
//! [`step`] executes one instruction; [`Emulator`] runs many, from decoded blocks. Every strategy
//! calls one of them for what it does not run itself.

#[expect(dead_code, reason = "being written")]
mod access;
#[expect(dead_code, reason = "being written")]
mod alu;
#[expect(dead_code, reason = "being written")]
mod debug;
#[expect(dead_code, reason = "being written")]
mod exception;
mod handlers;
#[expect(dead_code, reason = "being written")]
mod interrupt;
#[expect(dead_code, reason = "being written")]
mod lower;
#[expect(dead_code, reason = "being written")]
mod mode;
#[expect(dead_code, reason = "being written")]
mod op;
#[expect(dead_code, reason = "being written")]
mod operand;
#[expect(dead_code, reason = "being written")]
mod paging;
#[expect(dead_code, reason = "being written")]
mod stack;

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
