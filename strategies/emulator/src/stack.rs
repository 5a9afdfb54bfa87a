//! The guest's stack: pushes and pops through SS with the width of its B bit.

use crate::access;
use crate::alu::Word;
use crate::exception::Exception;
use machine::Machine;
use machine::cpu::{SegmentRegister, register};

const SS: u8 = SegmentRegister::Ss as u8;

/// Which bits of ESP are the stack pointer.
#[inline(always)]
pub(crate) fn mask(m: &Machine) -> u32 {
    if m.cpu.segments[usize::from(SS)].is_32bit() { u32::MAX } else { 0xffff }
}

/// Replaces the stack pointer; with a 16-bit stack the upper half of ESP stays.
#[inline(always)]
pub(crate) fn set_pointer(m: &mut Machine, pointer: u32) {
    let mask = mask(m);
    let esp = &mut m.cpu.registers[register::ESP];
    *esp = *esp & !mask | pointer & mask;
}

/// Pushes a value of `T`'s size.
#[inline(always)]
pub(crate) fn push<T: Word>(m: &mut Machine, value: T) -> Result<(), Exception> {
    let pointer = m.cpu.registers[register::ESP].wrapping_sub(T::SIZE) & mask(m);
    access::write(m, SS, pointer, value)?;
    set_pointer(m, pointer);
    Ok(())
}

/// Pushes a value of `T`'s size of which only the lower 16 bits are written.
pub(crate) fn push_low<T: Word>(m: &mut Machine, value: u16) -> Result<(), Exception> {
    let pointer = m.cpu.registers[register::ESP].wrapping_sub(T::SIZE) & mask(m);
    access::write(m, SS, pointer, value)?;
    set_pointer(m, pointer);
    Ok(())
}

/// Reads the value `depth` bytes above the stack pointer.
#[inline(always)]
pub(crate) fn peek<T: Word>(m: &mut Machine, depth: u32) -> Result<T, Exception> {
    let pointer = m.cpu.registers[register::ESP].wrapping_add(depth) & mask(m);
    access::read(m, SS, pointer)
}

/// Removes `bytes` from the stack.
#[inline(always)]
pub(crate) fn drop_bytes(m: &mut Machine, bytes: u32) {
    let pointer = m.cpu.registers[register::ESP].wrapping_add(bytes);
    set_pointer(m, pointer);
}

/// Pops a value.
#[inline(always)]
pub(crate) fn pop<T: Word>(m: &mut Machine) -> Result<T, Exception> {
    let value = peek(m, 0)?;
    drop_bytes(m, T::SIZE);
    Ok(value)
}

/// Pushes several values, the first one first; if one cannot be pushed, none is.
pub(crate) fn push_all<T: Word>(m: &mut Machine, values: &[T]) -> Result<(), Exception> {
    let before = m.cpu.registers[register::ESP];
    for depth in 1..=values.len() as u32 {
        let pointer = before.wrapping_sub(depth * T::SIZE) & mask(m);
        access::check_write(m, SS, pointer, T::SIZE)?;
    }
    for &value in values {
        if let Err(exception) = push(m, value) {
            m.cpu.registers[register::ESP] = before;
            return Err(exception);
        }
    }
    Ok(())
}
