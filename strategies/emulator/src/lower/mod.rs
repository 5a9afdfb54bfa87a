//! From iced-x86's instruction to the handler that executes it.
//!
//! Each topic has a table of its own; what none of them knows is undefined.

mod integer;
mod system;

use crate::float::{self, FloatHandler};
use crate::op::Handler;
use iced_x86::Instruction;

/// How execution goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// With the next instruction.
    Next,
    /// With the next instruction, but in a new block: modes, mappings, or what the monitor looks at
    /// between blocks may have changed.
    Fence,
    /// Where the handler has set EIP to.
    Jump,
}

/// The handler for an instruction, and how execution goes on.
#[derive(Clone, Copy)]
pub(crate) struct Lowered {
    /// Executes it.
    pub(crate) handler: Handler,
    /// How execution goes on.
    pub(crate) flow: Flow,
    /// For handlers that call a stub: the operation's `immediate`, `destination` and `source`.
    pub(crate) stub: Option<(u32, u8, u8)>,
}

impl Lowered {
    /// An instruction in the middle of a block.
    pub(crate) fn next(handler: Handler) -> Lowered {
        Lowered { handler, flow: Flow::Next, stub: None }
    }

    /// An instruction after which a new block begins.
    pub(crate) fn fence(handler: Handler) -> Lowered {
        Lowered { handler, flow: Flow::Fence, stub: None }
    }

    /// An instruction that sets EIP.
    pub(crate) fn jump(handler: Handler) -> Lowered {
        Lowered { handler, flow: Flow::Jump, stub: None }
    }
}

/// The handler for `instruction`, or nothing if it is undefined.
pub(crate) fn lower(instruction: &Instruction) -> Option<Lowered> {
    integer::lower(instruction)
        .or_else(|| system::lower(instruction))
        .or_else(|| float(instruction))
}

fn float(instruction: &Instruction) -> Option<Lowered> {
    let FloatHandler { handler, stub } = float::lower(instruction)?;
    Some(Lowered { handler, flow: Flow::Next, stub })
}
