//! Segment registers: MOV, PUSH, POP, LDS and its like (Intel SDM volume 2).

use crate::alu::Word;
use crate::descriptor;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use crate::operand;
use crate::stack;
use iced_x86::OpKind;
use machine::cpu::{InterruptShadow, SegmentRegister};
use machine::{Machine, Selector};

/// The segment register that operand `number` names.
fn named(op: &Op, number: u32) -> SegmentRegister {
    SegmentRegister::ALL[op.instruction.op_register(number).number() % 6]
}

/// Loads a segment register, with the interrupt shadow that MOV and POP to SS throw.
fn load(m: &mut Machine, register: SegmentRegister, selector: u16) -> Result<(), Exception> {
    let segment = descriptor::load(m, register, Selector(selector))?;
    *m.cpu.segment_mut(register) = segment;
    m.counters.sensitive += 1;
    Ok(())
}

fn cast_shadow(m: &mut Machine, register: SegmentRegister) {
    if register == SegmentRegister::Ss {
        m.cpu.interrupt_shadow = InterruptShadow::MovSs;
    }
}

/// MOV to a segment register other than CS.
pub(crate) fn mov_to(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let selector = operand::read::<u16>(m, op, 1)?;
    let register = named(op, 0);
    load(m, register, selector)?;
    cast_shadow(m, register);
    Ok(())
}

/// MOV from a segment register: 16 bits to memory, zero-extended to a 32-bit register.
pub(crate) fn mov_from(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let selector = m.cpu.segment(named(op, 1)).selector;
    store_word(m, op, u32::from(selector))?;
    m.counters.sensitive += 1;
    Ok(())
}

/// Stores to operand 0: 16 bits to memory or a 16-bit register, all of `value` to a 32-bit one.
pub(crate) fn store_word(m: &mut Machine, op: &Op, value: u32) -> Result<(), Exception> {
    let register = op.instruction.op_kind(0) == OpKind::Register;
    if register && op.instruction.op_register(0).size() == 4 {
        operand::write::<u32>(m, op, 0, value)
    } else {
        operand::write::<u16>(m, op, 0, value as u16)
    }
}

/// PUSH of a segment register.
pub(crate) fn push<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let selector = m.cpu.segment(named(op, 0)).selector;
    if maker::pushes_selectors_by_half() {
        stack::push_low::<T>(m, selector)?;
    } else {
        stack::push(m, T::truncate(u32::from(selector)))?;
    }
    m.counters.sensitive += 1;
    Ok(())
}

/// POP of a segment register. ESP moves by the old stack's rules.
pub(crate) fn pop<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let selector = stack::peek::<T>(m, 0)?.zero_extend() as u16;
    let register = named(op, 0);
    let segment = descriptor::load(m, register, Selector(selector))?;
    stack::drop_bytes(m, T::SIZE);
    *m.cpu.segment_mut(register) = segment;
    cast_shadow(m, register);
    m.counters.sensitive += 1;
    Ok(())
}

/// LDS, LES, LFS, LGS and LSS with an offset of `T`'s size.
pub(crate) fn load_far<T: Word, const SEGMENT: u8>(
    m: &mut Machine,
    op: &Op,
) -> Result<(), Exception> {
    let place = operand::place(m, op);
    let offset: T = place.read(m)?;
    let selector: u16 = place.after(op, T::SIZE).read(m)?;
    load(m, SegmentRegister::ALL[usize::from(SEGMENT)], selector)?;
    operand::write(m, op, 0, offset)
}
