//! EFLAGS as a whole: PUSHF, POPF, CLI, STI (Intel SDM volume 2).

use crate::alu::Word;
use crate::exception::Exception;
use crate::mode;
use crate::op::Op;
use crate::stack;
use machine::Machine;
use machine::cpu::{Eflags, InterruptShadow};

/// Raises #GP in virtual-8086 mode unless IOPL is 3 (Intel SDM volume 3, 20.2.7). The mode's
/// extensions are announced by no model.
pub(crate) fn check_virtual_8086(m: &Machine) -> Result<(), Exception> {
    if m.cpu.in_virtual_8086_mode() && m.cpu.flags.iopl() < 3 {
        return Err(Exception::PROTECTION);
    }
    Ok(())
}

/// PUSHF: VM and RF are never shown.
pub(crate) fn pushf<T: Word>(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    check_virtual_8086(m)?;
    let hidden = Eflags::VM | Eflags::RF;
    let image = m.cpu.flags.bits() & !hidden.bits();
    stack::push(m, T::truncate(image))?;
    m.counters.sensitive += 1;
    Ok(())
}

/// The bits that POPF and IRET at this privilege level may change, RF, VM, VIF and VIP aside.
pub(crate) fn writable<T: Word>(m: &Machine) -> Eflags {
    let mut mask = Eflags::WRITABLE;
    mask.set(Eflags::IOPL, m.cpu.cpl == 0);
    mask.set(Eflags::IF, m.cpu.cpl <= m.cpu.flags.iopl());
    if T::SIZE == 2 { mask & Eflags::from_bits_retain(0xffff) } else { mask }
}

/// POPF: what the privilege level may not change silently stays. With the right to change IF, the
/// 32-bit form clears VIF and VIP.
pub(crate) fn popf<T: Word>(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    check_virtual_8086(m)?;
    let image = stack::pop::<T>(m)?.zero_extend();
    let mask = writable::<T>(m);
    mode::set_flags(m, image, mask);
    m.cpu.flags.set(Eflags::RF, false);
    if T::SIZE == 4 && mask.contains(Eflags::IF) && !m.cpu.in_virtual_8086_mode() {
        m.cpu.flags.set(Eflags::VIF | Eflags::VIP, false);
    }
    m.counters.sensitive += 1;
    Ok(())
}

/// CLI and STI need CPL not above IOPL.
fn check_iopl(m: &Machine) -> Result<(), Exception> {
    if m.cpu.cpl <= m.cpu.flags.iopl() { Ok(()) } else { Err(Exception::PROTECTION) }
}

/// CLI.
pub(crate) fn cli(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    check_iopl(m)?;
    m.cpu.flags.set(Eflags::IF, false);
    m.counters.privileged += 1;
    Ok(())
}

/// STI: interrupts are held off for one more instruction if they were masked.
pub(crate) fn sti(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    check_iopl(m)?;
    if !m.cpu.flags.contains(Eflags::IF) {
        m.cpu.interrupt_shadow = InterruptShadow::Sti;
    }
    m.cpu.flags.set(Eflags::IF, true);
    m.counters.privileged += 1;
    Ok(())
}
