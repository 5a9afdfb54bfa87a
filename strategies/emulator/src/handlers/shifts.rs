//! Shifts, rotates and single bits.

use crate::access;
use crate::alu::{WideWord, Word};
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use crate::operand;
use iced_x86::OpKind;
use machine::Machine;
use machine::cpu::Eflags;
use machine::cpu::register::ECX;

type Done = Result<(), Exception>;

/// A shift or rotate.
pub(crate) trait Shift {
    /// Whether Intel's CPUs leave OF alone where a register is rotated by a constant other than 1. It is
    /// undefined then, and they give something else for memory, and for the same count in CL.
    const MAY_KEEP_OVERFLOW: bool;
    fn apply<T: Word>(value: T, count: u8, flags: u16) -> (T, u16);
}

macro_rules! shift_operations {
    ($($name:ident = $method:ident, $keeps:literal;)*) => {$(
        pub(crate) struct $name;
        impl Shift for $name {
            const MAY_KEEP_OVERFLOW: bool = $keeps;
            #[inline(always)]
            fn apply<T: Word>(value: T, count: u8, flags: u16) -> (T, u16) {
                value.$method(count, flags)
            }
        }
    )*};
}

shift_operations! {
    Shl = shl, false;
    Shr = shr, false;
    Sar = sar, false;
    Rol = rol, true;
    Ror = ror, true;
    Rcl = rcl, false;
    Rcr = rcr, false;
}

#[inline(always)]
fn shift<O: Shift, T: Word>(m: &mut Machine, value: T, count: u8) -> T {
    let (result, flags) = O::apply(value, count, m.cpu.flags.host());
    m.cpu.flags.set_host(flags);
    result
}

pub(crate) fn register_by_immediate<O: Shift, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let (count, overflow) = (op.immediate as u8, m.cpu.flags.overflow());
    let result = shift::<O, T>(m, op.destination(m), count);
    if O::MAY_KEEP_OVERFLOW && count & 31 != 1 && maker::is_intel() {
        m.cpu.flags.set(Eflags::OF, overflow);
    }
    op.set_destination(m, result);
    Ok(())
}

pub(crate) fn register_by_cl<O: Shift, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let count = m.cpu.registers[ECX] as u8;
    let result = shift::<O, T>(m, op.destination(m), count);
    op.set_destination(m, result);
    Ok(())
}

pub(crate) fn memory_by_immediate<O: Shift, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let count = op.immediate as u8;
    access::modify(m, op.segment, op.offset(m), |m, value| shift::<O, T>(m, value, count))
}

pub(crate) fn memory_by_cl<O: Shift, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let count = m.cpu.registers[ECX] as u8;
    access::modify(m, op.segment, op.offset(m), |m, value| shift::<O, T>(m, value, count))
}

/// SHLD and SHRD, with the count in CL or an immediate.
pub(crate) fn double<T: WideWord, const LEFT: bool>(m: &mut Machine, op: &Op) -> Done {
    let filler = op.source::<T>(m);
    let by_cl = op.instruction.op_kind(2) == OpKind::Register;
    let count = if by_cl { m.cpu.registers[ECX] as u8 } else { op.immediate as u8 };
    let shift = |m: &mut Machine, value: T| {
        let flags = m.cpu.flags.host();
        let (result, flags) =
            if LEFT { value.shld(filler, count, flags) } else { value.shrd(filler, count, flags) };
        m.cpu.flags.set_host(flags);
        result
    };
    if operand::is_memory(op, 0) {
        access::modify(m, op.segment, op.offset(m), shift)
    } else {
        let result = shift(m, op.destination(m));
        op.set_destination(m, result);
        Ok(())
    }
}

/// BSF and BSR.
pub(crate) fn scan<T: WideWord, const FORWARD: bool>(m: &mut Machine, op: &Op) -> Done {
    let source = operand::read::<T>(m, op, 1)?;
    let (old, flags) = (op.destination::<T>(m), m.cpu.flags.host());
    let (result, flags) = if FORWARD { old.bsf(source, flags) } else { old.bsr(source, flags) };
    m.cpu.flags.set_host(flags);
    op.set_destination(m, result);
    Ok(())
}

/// BT, BTS, BTR or BTC.
pub(crate) trait BitTest {
    const KEEPS: bool;
    fn apply<T: WideWord>(value: T, bit: T, flags: u16) -> (T, u16);
}

macro_rules! bit_operations {
    ($($name:ident = $method:ident, $keeps:literal;)*) => {$(
        pub(crate) struct $name;
        impl BitTest for $name {
            const KEEPS: bool = $keeps;
            #[inline(always)]
            fn apply<T: WideWord>(value: T, bit: T, flags: u16) -> (T, u16) {
                value.$method(bit, flags)
            }
        }
    )*};
}

bit_operations! { Bt = bt, false; Bts = bts, true; Btr = btr, true; Btc = btc, true; }

/// The bit number in an immediate counts within the operand; one in a register reaches the whole
/// bit string around a memory operand (Intel SDM volume 2, BT).
pub(crate) fn bit<O: BitTest, T: WideWord>(m: &mut Machine, op: &Op) -> Done {
    let in_register = op.instruction.op_kind(1) == OpKind::Register;
    let number = if in_register { op.source(m) } else { T::truncate(op.immediate) };
    let test = |m: &mut Machine, value: T| {
        let (result, flags) = O::apply(value, number, m.cpu.flags.host());
        m.cpu.flags.set_host(flags);
        result
    };
    if !operand::is_memory(op, 0) {
        let result = test(m, op.destination(m));
        if O::KEEPS {
            op.set_destination(m, result);
        }
        return Ok(());
    }
    let words =
        if in_register { (number.sign_extend() as i32) >> T::BITS.trailing_zeros() } else { 0 };
    let offset = op.offset(m).wrapping_add((words as u32).wrapping_mul(T::SIZE)) & op.address_mask;
    if O::KEEPS {
        access::modify(m, op.segment, offset, test)
    } else {
        let value = access::read(m, op.segment, offset)?;
        test(m, value);
        Ok(())
    }
}
