//! ADD to CMP, TEST, INC, DEC, NEG, NOT, MUL to IDIV, XADD, CMPXCHG: arithmetic in every form.

use crate::access;
use crate::alu::{WideWord, Word};
use crate::exception::Exception;
use crate::op::Op;
use crate::operand;
use machine::Machine;
use machine::cpu::register::{EAX, EBX, ECX, EDX};

type Done = Result<(), Exception>;

/// An operation on two operands.
pub(crate) trait Binary {
    /// Whether the result is kept (not so for CMP and TEST).
    const KEEPS: bool;
    /// The result and the flags.
    fn apply<T: Word>(a: T, b: T, flags: u16) -> (T, u16);
}

macro_rules! binary_operations {
    ($($name:ident, $keeps:literal, |$a:ident, $b:ident, $flags:ident| $result:expr;)*) => {$(
        pub(crate) struct $name;
        impl Binary for $name {
            const KEEPS: bool = $keeps;
            #[inline(always)]
            fn apply<T: Word>($a: T, $b: T, $flags: u16) -> (T, u16) {
                $result
            }
        }
    )*};
}

binary_operations! {
    Add, true, |a, b, _flags| a.add(b);
    Or, true, |a, b, _flags| a.or(b);
    Adc, true, |a, b, flags| a.adc(b, flags);
    Sbb, true, |a, b, flags| a.sbb(b, flags);
    And, true, |a, b, _flags| a.and(b);
    Sub, true, |a, b, _flags| a.sub(b);
    Xor, true, |a, b, _flags| a.xor(b);
    Cmp, false, |a, b, _flags| a.sub(b);
    Test, false, |a, b, _flags| a.and(b);
}

#[inline(always)]
fn compute<O: Binary, T: Word>(m: &mut Machine, a: T, b: T) -> T {
    let (result, flags) = O::apply(a, b, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    result
}

pub(crate) fn register_register<O: Binary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let result = compute::<O, T>(m, op.destination(m), op.source(m));
    if O::KEEPS {
        op.set_destination(m, result);
    }
    Ok(())
}

pub(crate) fn register_immediate<O: Binary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let result = compute::<O, T>(m, op.destination(m), T::truncate(op.immediate));
    if O::KEEPS {
        op.set_destination(m, result);
    }
    Ok(())
}

pub(crate) fn register_memory<O: Binary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = access::read(m, op.segment, op.offset(m))?;
    let result = compute::<O, T>(m, op.destination(m), value);
    if O::KEEPS {
        op.set_destination(m, result);
    }
    Ok(())
}

#[inline(always)]
fn memory_value<O: Binary, T: Word>(m: &mut Machine, op: &Op, value: T) -> Done {
    let offset = op.offset(m);
    if O::KEEPS {
        access::modify(m, op.segment, offset, |m, old| compute::<O, T>(m, old, value))
    } else {
        let old = access::read(m, op.segment, offset)?;
        compute::<O, T>(m, old, value);
        Ok(())
    }
}

pub(crate) fn memory_register<O: Binary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = op.source(m);
    memory_value::<O, T>(m, op, value)
}

pub(crate) fn memory_immediate<O: Binary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    memory_value::<O, T>(m, op, T::truncate(op.immediate))
}

/// An operation on one operand.
pub(crate) trait Unary {
    /// The result and the flags.
    fn apply<T: Word>(a: T, flags: u16) -> (T, u16);
}

macro_rules! unary_operations {
    ($($name:ident, |$a:ident, $flags:ident| $result:expr;)*) => {$(
        pub(crate) struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<T: Word>($a: T, $flags: u16) -> (T, u16) {
                $result
            }
        }
    )*};
}

unary_operations! {
    Inc, |a, flags| a.inc(flags);
    Dec, |a, flags| a.dec(flags);
    Neg, |a, _flags| T::default().sub(a);
    Not, |a, flags| (a.xor(T::truncate(u32::MAX)).0, flags);
}

#[inline(always)]
fn compute_unary<O: Unary, T: Word>(m: &mut Machine, a: T) -> T {
    let (result, flags) = O::apply(a, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    result
}

pub(crate) fn unary_register<O: Unary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let result = compute_unary::<O, T>(m, op.destination(m));
    op.set_destination(m, result);
    Ok(())
}

pub(crate) fn unary_memory<O: Unary, T: Word>(m: &mut Machine, op: &Op) -> Done {
    access::modify(m, op.segment, op.offset(m), compute_unary::<O, T>)
}

/// Writes a double-width result: AX for bytes, else (E)DX and (E)AX.
fn set_pair<T: Word>(m: &mut Machine, low: T, high: T) {
    if T::SIZE == 1 {
        let both = (low.zero_extend() | high.zero_extend() << 8) as u16;
        u16::set_register(&mut m.cpu.registers, EAX as u8, both);
    } else {
        T::set_register(&mut m.cpu.registers, EAX as u8, low);
        T::set_register(&mut m.cpu.registers, EDX as u8, high);
    }
}

/// Reads the low and high half of what [`set_pair`] writes.
fn pair<T: Word>(m: &Machine) -> (T, T) {
    let low = T::register(&m.cpu.registers, EAX as u8);
    // AH is byte register 4.
    let high = if T::SIZE == 1 { 4 } else { EDX as u8 };
    (low, T::register(&m.cpu.registers, high))
}

pub(crate) fn mul<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let factor = operand::read::<T>(m, op, 0)?;
    let (low, high, flags) = pair::<T>(m).0.mul(factor, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    set_pair(m, low, high);
    Ok(())
}

pub(crate) fn imul<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let factor = operand::read::<T>(m, op, 0)?;
    let (low, high, flags) = pair::<T>(m).0.imul(factor, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    set_pair(m, low, high);
    Ok(())
}

pub(crate) fn div<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let divisor = operand::read::<T>(m, op, 0)?;
    let (low, high) = pair::<T>(m);
    let (quotient, remainder, flags) =
        T::div(low, high, divisor, m.cpu.flags.host()).ok_or(Exception::DIVIDE)?;
    m.cpu.flags.set_host(flags);
    set_pair(m, quotient, remainder);
    Ok(())
}

pub(crate) fn idiv<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let divisor = operand::read::<T>(m, op, 0)?;
    let (low, high) = pair::<T>(m);
    let (quotient, remainder, flags) =
        T::idiv(low, high, divisor, m.cpu.flags.host()).ok_or(Exception::DIVIDE)?;
    m.cpu.flags.set_host(flags);
    set_pair(m, quotient, remainder);
    Ok(())
}

/// IMUL r, r/m.
pub(crate) fn imul_two<T: WideWord>(m: &mut Machine, op: &Op) -> Done {
    let factor = operand::read::<T>(m, op, 1)?;
    imul_into(m, op, op.destination(m), factor);
    Ok(())
}

/// IMUL r, r/m, imm.
pub(crate) fn imul_three<T: WideWord>(m: &mut Machine, op: &Op) -> Done {
    let factor = operand::read::<T>(m, op, 1)?;
    imul_into(m, op, factor, T::truncate(op.immediate));
    Ok(())
}

#[inline(always)]
fn imul_into<T: WideWord>(m: &mut Machine, op: &Op, a: T, b: T) {
    let (result, flags) = a.imul_truncating(b, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    op.set_destination(m, result);
}

/// XADD r/m, r.
pub(crate) fn xadd<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let addend = op.source::<T>(m);
    if operand::is_memory(op, 0) {
        let mut old = addend;
        access::modify(m, op.segment, op.offset(m), |m, value: T| {
            old = value;
            compute::<Add, T>(m, value, addend)
        })?;
        T::set_register(&mut m.cpu.registers, op.source, old);
    } else {
        let old = op.destination::<T>(m);
        let sum = compute::<Add, T>(m, old, addend);
        T::set_register(&mut m.cpu.registers, op.source, old);
        op.set_destination(m, sum);
    }
    Ok(())
}

/// CMPXCHG r/m, r. The destination is written in any case (Intel SDM volume 2, CMPXCHG).
pub(crate) fn cmpxchg<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let new = op.source::<T>(m);
    let expected = T::register(&m.cpu.registers, EAX as u8);
    let mut old = expected;
    let exchange = |m: &mut Machine, value: T| {
        old = value;
        compute::<Cmp, T>(m, expected, value);
        if value == expected { new } else { value }
    };
    if operand::is_memory(op, 0) {
        access::modify(m, op.segment, op.offset(m), exchange)?;
    } else {
        let value = op.destination(m);
        let kept = { exchange }(m, value);
        op.set_destination(m, kept);
    }
    if old != expected {
        T::set_register(&mut m.cpu.registers, EAX as u8, old);
    }
    Ok(())
}

/// CMPXCHG8B m64.
pub(crate) fn cmpxchg8b(m: &mut Machine, op: &Op) -> Done {
    let offset = op.offset(m);
    access::check_write(m, op.segment, offset, 8)?;
    let mut bytes = [0; 8];
    access::read_bytes(m, op.segment, offset, &mut bytes)?;
    let old = u64::from_le_bytes(bytes);
    let registers = &m.cpu.registers;
    let join =
        |high: usize, low: usize| u64::from(registers[high]) << 32 | u64::from(registers[low]);
    let (expected, new) = (join(EDX, EAX), join(ECX, EBX));
    let equal = old == expected;
    let written = if equal { new } else { old };
    access::write_bytes(m, op.segment, offset, &written.to_le_bytes())?;
    m.cpu.flags.set(machine::cpu::Eflags::ZF, equal);
    if !equal {
        m.cpu.registers[EAX] = old as u32;
        m.cpu.registers[EDX] = (old >> 32) as u32;
    }
    Ok(())
}
