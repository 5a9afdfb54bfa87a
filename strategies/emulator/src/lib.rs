//! Executes IA-32 instructions on a machine: the only description of their semantics.
//!
//! [`step`] executes one instruction; [`Emulator`] runs many, from decoded blocks. Every strategy
//! calls one of them for what it does not run itself.

mod access;
mod alu;
mod block;
mod debug;
mod decode;
mod descriptor;
mod exception;
mod fetch;
mod float;
mod handlers;
mod interrupt;
mod lower;
mod maker;
mod mode;
mod op;
mod operand;
mod paging;
mod run;
mod shortcut;
mod stack;
mod stepper;
mod task;
mod transfer;

pub use decode::{DECODER_OPTIONS, is_ia32};
pub use float::prepare;
pub use handlers::tables::load_local_table;
pub use interrupt::deliver_interrupt;
pub use maker::pushes_selectors_by_half;
pub use paging::{Mapping, access as access_page, mapping};
pub use run::{Emulator, step};
pub use stepper::Stepper;

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

/// The instruction at EIP, as step would execute it; nothing if it cannot be fetched.
pub fn instruction(m: &mut machine::Machine) -> Option<iced_x86::Instruction> {
    fetch::instruction(m).ok().map(|(op, _)| op.instruction)
}
