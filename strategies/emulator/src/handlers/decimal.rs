//! BCD arithmetic: 64-bit mode has dropped these instructions, so they are computed here. Flags that
//! the manual leaves undefined are those that CPUs of the host's maker give (compared with the real
//! CPU): AMD's those of the addition by which they adjust, Intel's those of the result.

use crate::alu::Word;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use machine::Machine;
use machine::cpu::register::EAX;
use machine::cpu::{Eflags, Flags};

type Done = Result<(), Exception>;

fn al(m: &Machine) -> u8 {
    u8::register(&m.cpu.registers, 0)
}

fn set_ax(m: &mut Machine, value: u16) {
    u16::set_register(&mut m.cpu.registers, EAX as u8, value);
}

/// The flags behind an adjustment, of which `flags` are the addition's or subtraction's, CF and AF
/// aside.
fn set_adjusted_flags(m: &mut Machine, flags: u16, carry: bool, auxiliary: bool) {
    if maker::is_intel() {
        return set_flags(m, al(m), carry, auxiliary);
    }
    m.cpu.flags.set_host(flags);
    m.cpu.flags.set(Eflags::CF, carry);
    m.cpu.flags.set(Eflags::AF, auxiliary);
}

/// Sets SF, ZF and PF from a byte, CF and AF as given, OF to 0.
fn set_flags(m: &mut Machine, result: u8, carry: bool, auxiliary: bool) {
    let mut bits = Eflags::empty();
    bits.set(Eflags::SF, result & 0x80 != 0);
    bits.set(Eflags::ZF, result == 0);
    bits.set(Eflags::PF, result.count_ones().is_multiple_of(2));
    bits.set(Eflags::CF, carry);
    bits.set(Eflags::AF, auxiliary);
    m.cpu.flags.merge(bits.bits(), Eflags::ARITHMETIC);
}

fn decimal_adjust(m: &mut Machine, adjust: impl Fn(u8, u8) -> (u8, u16)) {
    let old = al(m);
    let auxiliary = old & 0xf > 9 || m.cpu.flags.contains(Eflags::AF);
    let high = old > 0x99 || m.cpu.flags.carry();
    let correction = if auxiliary { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let (value, flags) = adjust(old, correction);
    // DAS may borrow in its low digit alone.
    let mut low = Flags::default();
    low.set_host(adjust(old, correction & 6).1);
    u8::set_register(&mut m.cpu.registers, 0, value);
    set_adjusted_flags(m, flags, high || low.carry(), auxiliary);
}

pub(crate) fn daa(m: &mut Machine, _op: &Op) -> Done {
    decimal_adjust(m, u8::add);
    Ok(())
}

pub(crate) fn das(m: &mut Machine, _op: &Op) -> Done {
    decimal_adjust(m, u8::sub);
    Ok(())
}

fn ascii_adjust(m: &mut Machine, adjust: impl Fn(u16, u16) -> (u16, u16)) {
    let needed = al(m) & 0xf > 9 || m.cpu.flags.contains(Eflags::AF);
    let ax = m.cpu.registers[EAX] as u16;
    let (adjusted, flags) = adjust(ax, if needed { 0x106 } else { 0 });
    set_ax(m, adjusted & 0xff0f);
    set_adjusted_flags(m, flags, needed, needed);
}

pub(crate) fn aaa(m: &mut Machine, _op: &Op) -> Done {
    ascii_adjust(m, u16::add);
    Ok(())
}

pub(crate) fn aas(m: &mut Machine, _op: &Op) -> Done {
    ascii_adjust(m, u16::sub);
    Ok(())
}

pub(crate) fn aam(m: &mut Machine, op: &Op) -> Done {
    let base = op.immediate as u8;
    let value = al(m);
    let tens = value.checked_div(base).ok_or(Exception::DIVIDE)?;
    let ones = value % base;
    set_ax(m, u16::from(tens) << 8 | u16::from(ones));
    set_flags(m, ones, false, false);
    Ok(())
}

pub(crate) fn aad(m: &mut Machine, op: &Op) -> Done {
    let ax = m.cpu.registers[EAX] as u16;
    let tens = ((ax >> 8) as u8).wrapping_mul(op.immediate as u8);
    let (value, flags) = (ax as u8).add(tens);
    set_ax(m, u16::from(value));
    m.cpu.flags.set_host(flags);
    Ok(())
}
