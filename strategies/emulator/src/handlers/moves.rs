//! MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, XLAT, sign extensions, LAHF, SAHF.

use crate::access;
use crate::alu::Word;
use crate::exception::Exception;
use crate::op::Op;
use crate::operand;
use machine::Machine;
use machine::cpu::Eflags;
use machine::cpu::register::{EAX, EBX, EDX};

type Done = Result<(), Exception>;

pub(crate) fn register_register<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = op.source::<T>(m);
    op.set_destination(m, value);
    Ok(())
}

pub(crate) fn register_immediate<T: Word>(m: &mut Machine, op: &Op) -> Done {
    op.set_destination(m, T::truncate(op.immediate));
    Ok(())
}

pub(crate) fn register_memory<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = access::read::<T>(m, op.segment, op.offset(m))?;
    op.set_destination(m, value);
    Ok(())
}

pub(crate) fn memory_register<T: Word>(m: &mut Machine, op: &Op) -> Done {
    access::write::<T>(m, op.segment, op.offset(m), op.source(m))
}

pub(crate) fn memory_immediate<T: Word>(m: &mut Machine, op: &Op) -> Done {
    access::write::<T>(m, op.segment, op.offset(m), T::truncate(op.immediate))
}

/// MOVZX and MOVSX from a register.
pub(crate) fn extend_register<F: Word, T: Word, const SIGNED: bool>(
    m: &mut Machine,
    op: &Op,
) -> Done {
    let value = op.source::<F>(m);
    op.set_destination(m, extended::<F, T, SIGNED>(value));
    Ok(())
}

/// MOVZX and MOVSX from memory.
pub(crate) fn extend_memory<F: Word, T: Word, const SIGNED: bool>(
    m: &mut Machine,
    op: &Op,
) -> Done {
    let value = access::read::<F>(m, op.segment, op.offset(m))?;
    op.set_destination(m, extended::<F, T, SIGNED>(value));
    Ok(())
}

#[inline(always)]
fn extended<F: Word, T: Word, const SIGNED: bool>(value: F) -> T {
    T::truncate(if SIGNED { value.sign_extend() } else { value.zero_extend() })
}

pub(crate) fn lea<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let offset = op.offset(m);
    op.set_destination(m, T::truncate(offset));
    Ok(())
}

/// XCHG with both operands in registers.
pub(crate) fn exchange_registers<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let (a, b) = (op.destination::<T>(m), op.source::<T>(m));
    op.set_destination(m, b);
    T::set_register(&mut m.cpu.registers, op.source, a);
    Ok(())
}

/// XCHG r/m, r in memory.
pub(crate) fn exchange_memory<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let new = op.source::<T>(m);
    let mut old = new;
    access::modify(m, op.segment, op.offset(m), |_, value| {
        old = value;
        new
    })?;
    T::set_register(&mut m.cpu.registers, op.source, old);
    Ok(())
}

/// CMOVcc: the source is read, and may fault, whatever the condition.
pub(crate) fn conditional<T: Word, const CONDITION: u8>(m: &mut Machine, op: &Op) -> Done {
    let value = operand::read::<T>(m, op, 1)?;
    if m.cpu.flags.condition(CONDITION) {
        op.set_destination(m, value);
    }
    Ok(())
}

pub(crate) fn set_condition<const CONDITION: u8>(m: &mut Machine, op: &Op) -> Done {
    let value = u8::from(m.cpu.flags.condition(CONDITION));
    operand::write(m, op, 0, value)
}

pub(crate) fn bswap(m: &mut Machine, op: &Op) -> Done {
    let value = op.destination::<u32>(m).swap_bytes();
    op.set_destination(m, value);
    Ok(())
}

/// BSWAP of a 16-bit register is undefined; the CPUs at hand clear the register's lower half.
pub(crate) fn bswap16(m: &mut Machine, op: &Op) -> Done {
    op.set_destination(m, 0u16);
    Ok(())
}

pub(crate) fn xlat(m: &mut Machine, op: &Op) -> Done {
    let registers = &m.cpu.registers;
    let offset = registers[EBX].wrapping_add(registers[EAX] & 0xff) & op.address_mask;
    let value = access::read::<u8>(m, op.segment, offset)?;
    u8::set_register(&mut m.cpu.registers, 0, value);
    Ok(())
}

pub(crate) fn cbw(m: &mut Machine, _op: &Op) -> Done {
    let value = u8::register(&m.cpu.registers, 0).sign_extend() as u16;
    u16::set_register(&mut m.cpu.registers, EAX as u8, value);
    Ok(())
}

pub(crate) fn cwde(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.registers[EAX] = (m.cpu.registers[EAX] as u16).sign_extend();
    Ok(())
}

pub(crate) fn cwd(m: &mut Machine, _op: &Op) -> Done {
    let sign = (m.cpu.registers[EAX] as i16 >> 15) as u16;
    u16::set_register(&mut m.cpu.registers, EDX as u8, sign);
    Ok(())
}

pub(crate) fn cdq(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.registers[EDX] = (m.cpu.registers[EAX] as i32 >> 31) as u32;
    Ok(())
}

pub(crate) fn lahf(m: &mut Machine, _op: &Op) -> Done {
    let value = m.cpu.flags.bits() as u8;
    u8::set_register(&mut m.cpu.registers, 4, value);
    Ok(())
}

pub(crate) fn sahf(m: &mut Machine, _op: &Op) -> Done {
    let value = u8::register(&m.cpu.registers, 4);
    let low = Eflags::ARITHMETIC.difference(Eflags::OF);
    m.cpu.flags.merge(u32::from(value), low);
    Ok(())
}

/// SALC, the undocumented D6: AL becomes 0xFF or 0 after CF.
pub(crate) fn salc(m: &mut Machine, _op: &Op) -> Done {
    let value = if m.cpu.flags.carry() { 0xff } else { 0 };
    u8::set_register(&mut m.cpu.registers, 0, value);
    Ok(())
}

pub(crate) fn nothing(_m: &mut Machine, _op: &Op) -> Done {
    Ok(())
}
