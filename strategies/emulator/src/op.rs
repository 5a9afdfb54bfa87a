//! A decoded instruction: the handler that executes it and its operands.

use crate::alu::Word;
use crate::exception::Exception;
use iced_x86::Instruction;
use machine::Machine;
use machine::cpu::SegmentRegister;

/// Executes one instruction. While it runs `cpu.eip` is that of the block's first instruction;
/// [`Op::eip`] and [`Op::next_eip`] give the instruction's own. A handler that returns an exception
/// has changed nothing (or only what a restart repeats). One that changes the flow of control, and
/// every last one of a block, sets `cpu.eip`.
pub(crate) type Handler = fn(&mut Machine, &Op) -> Result<(), Exception>;

/// No base or index register.
pub(crate) const NO_REGISTER: u8 = 0;
const PRESENT: u8 = 0x80;

/// A decoded instruction, one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Op {
    /// Executes it.
    pub(crate) handler: Handler,
    /// Everything about it, for handlers that are not worth fields of their own.
    pub(crate) instruction: Instruction,
    /// The immediate operand, sign-extended; for branches, the target relative to the block's start.
    pub(crate) immediate: u32,
    /// 0xFFFF for 16-bit addresses, else all ones.
    pub(crate) address_mask: u32,
    /// Memory operand: base register with bit 7 set, or [`NO_REGISTER`].
    pub(crate) base: u8,
    /// Memory operand: index register with bit 7 set, or [`NO_REGISTER`].
    pub(crate) index: u8,
    /// Memory operand: the index is shifted left by this.
    pub(crate) scale: u8,
    /// Memory operand: the segment register's number.
    pub(crate) segment: u8,
    /// The first register operand's number.
    pub(crate) destination: u8,
    /// The second register operand's number.
    pub(crate) source: u8,
    /// Where it starts, in bytes from the block's start.
    pub(crate) start: u8,
    /// Where it ends.
    pub(crate) end: u8,
}

const _: () = assert!(size_of::<Op>() == 64);

/// Marks a register number as present for [`Op::base`] and [`Op::index`].
pub(crate) fn present(register: u8) -> u8 {
    register | PRESENT
}

/// The register's value if it is present, else 0, without a branch.
#[inline(always)]
fn if_present(registers: &[u32; 8], register: u8) -> u32 {
    let mask = ((register as i8) >> 7) as i32 as u32;
    registers[usize::from(register & 7)] & mask
}

impl Op {
    /// The memory operand's offset in its segment.
    #[inline(always)]
    pub(crate) fn offset(&self, machine: &Machine) -> u32 {
        let registers = &machine.cpu.registers;
        let index = if_present(registers, self.index) << self.scale;
        if_present(registers, self.base)
            .wrapping_add(index)
            .wrapping_add(self.instruction.memory_displacement32())
            & self.address_mask
    }

    /// The memory operand's segment.
    pub(crate) fn segment(&self) -> SegmentRegister {
        SegmentRegister::ALL[usize::from(self.segment)]
    }

    /// The instruction's own EIP.
    #[inline(always)]
    pub(crate) fn eip(&self, machine: &Machine) -> u32 {
        machine.cpu.eip.wrapping_add(u32::from(self.start))
    }

    /// The next instruction's EIP.
    #[inline(always)]
    pub(crate) fn next_eip(&self, machine: &Machine) -> u32 {
        machine.cpu.eip.wrapping_add(u32::from(self.end))
    }

    /// Reads the first register operand.
    #[inline(always)]
    pub(crate) fn destination<T: Word>(&self, machine: &Machine) -> T {
        T::register(&machine.cpu.registers, self.destination)
    }

    /// Writes the first register operand.
    #[inline(always)]
    pub(crate) fn set_destination<T: Word>(&self, machine: &mut Machine, value: T) {
        T::set_register(&mut machine.cpu.registers, self.destination, value);
    }

    /// Reads the second register operand.
    #[inline(always)]
    pub(crate) fn source<T: Word>(&self, machine: &Machine) -> T {
        T::register(&machine.cpu.registers, self.source)
    }
}
