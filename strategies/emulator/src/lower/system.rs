//! Privileged, sensitive and far instructions.

use super::Lowered;
use iced_x86::Instruction;

/// The handler for `instruction`, if it is one of these.
pub(super) fn lower(_instruction: &Instruction) -> Option<Lowered> {
    None
}
