//! BCD arithmetic: 64-bit mode has dropped these instructions, so they are computed here. Flags that
//! the manual leaves undefined are those that the CPUs at hand give (compared with the real CPU).

use crate::alu::Word;
use crate::exception::Exception;
use crate::op::Op;
use machine::Machine;
use machine::cpu::Eflags;
use machine::cpu::register::EAX;

type Done = Result<(), Exception>;

fn al(m: &Machine) -> u8 {
    u8::register(&m.cpu.registers, 0)
}

fn set_ax(m: &mut Machine, value: u16) {
    u16::set_register(&mut m.cpu.registers, EAX as u8, value);
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

fn decimal_adjust(m: &mut Machine, adjust: impl Fn(u8, u8) -> (u8, bool)) {
    let old = al(m);
    let (old_carry, old_auxiliary) = (m.cpu.flags.carry(), m.cpu.flags.contains(Eflags::AF));
    let (mut value, mut carry) = (old, false);
    let auxiliary = old & 0xf > 9 || old_auxiliary;
    if auxiliary {
        let borrowed;
        (value, borrowed) = adjust(value, 6);
        carry = old_carry || borrowed;
    }
    if old > 0x99 || old_carry {
        value = adjust(value, 0x60).0;
        carry = true;
    }
    u8::set_register(&mut m.cpu.registers, 0, value);
    set_flags(m, value, carry, auxiliary);
}

pub(crate) fn daa(m: &mut Machine, _op: &Op) -> Done {
    decimal_adjust(m, u8::overflowing_add);
    Ok(())
}

pub(crate) fn das(m: &mut Machine, _op: &Op) -> Done {
    decimal_adjust(m, u8::overflowing_sub);
    Ok(())
}

fn ascii_adjust(m: &mut Machine, adjust: impl Fn(u16, u16) -> u16) {
    let needed = al(m) & 0xf > 9 || m.cpu.flags.contains(Eflags::AF);
    let ax = m.cpu.registers[EAX] as u16;
    let adjusted = if needed { adjust(ax, 0x106) } else { ax };
    set_ax(m, adjusted & 0xff0f);
    set_flags(m, adjusted as u8 & 0xf, needed, needed);
}

pub(crate) fn aaa(m: &mut Machine, _op: &Op) -> Done {
    ascii_adjust(m, u16::wrapping_add);
    Ok(())
}

pub(crate) fn aas(m: &mut Machine, _op: &Op) -> Done {
    ascii_adjust(m, u16::wrapping_sub);
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
