//! Operands by their number, for handlers that are not worth specialised forms.

use crate::access;
use crate::alu::Word;
use crate::exception::Exception;
use crate::op::Op;
use iced_x86::{OpKind, Register};
use machine::Machine;

/// Where a memory operand lies: segment register number and offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The segment register's number.
    pub(crate) segment: u8,
    /// The offset.
    pub(crate) offset: u32,
}

impl Place {
    /// The place `bytes` further on.
    pub(crate) fn after(self, op: &Op, bytes: u32) -> Place {
        Place { offset: self.offset.wrapping_add(bytes) & op.address_mask, ..self }
    }

    /// Reads a value here.
    pub(crate) fn read<T: Word>(self, m: &mut Machine) -> Result<T, Exception> {
        access::read(m, self.segment, self.offset)
    }

    /// Writes a value here.
    pub(crate) fn write<T: Word>(self, m: &mut Machine, value: T) -> Result<(), Exception> {
        access::write(m, self.segment, self.offset, value)
    }
}

/// The memory operand's place.
pub(crate) fn place(m: &Machine, op: &Op) -> Place {
    Place { segment: op.segment, offset: op.offset(m) }
}

/// The number of a general register, as instructions encode it.
pub(crate) fn register_number(register: Register) -> u8 {
    register.number() as u8 & 7
}

/// Reads operand `number` as a `T`: register, memory, or immediate.
pub(crate) fn read<T: Word>(m: &mut Machine, op: &Op, number: u32) -> Result<T, Exception> {
    match op.instruction.op_kind(number) {
        OpKind::Register => {
            let register = register_number(op.instruction.op_register(number));
            Ok(T::register(&m.cpu.registers, register))
        }
        OpKind::Memory => place(m, op).read(m),
        _ => Ok(T::truncate(op.instruction.immediate(number) as u32)),
    }
}

/// Writes operand `number`: register or memory.
pub(crate) fn write<T: Word>(
    m: &mut Machine,
    op: &Op,
    number: u32,
    value: T,
) -> Result<(), Exception> {
    match op.instruction.op_kind(number) {
        OpKind::Register => {
            let register = register_number(op.instruction.op_register(number));
            T::set_register(&mut m.cpu.registers, register, value);
            Ok(())
        }
        _ => place(m, op).write(m, value),
    }
}

/// Whether operand `number` is in memory.
pub(crate) fn is_memory(op: &Op, number: u32) -> bool {
    op.instruction.op_kind(number) == OpKind::Memory
}
