//! INT n, INT3, INTO, INT1 and IRET (Intel SDM volume 2).

use crate::alu::Word;
use crate::descriptor;
use crate::exception::Exception;
use crate::handlers::flags::{check_virtual_8086, writable};
use crate::interrupt;
use crate::mode;
use crate::op::Op;
use crate::shortcut;
use crate::stack;
use crate::task;
use crate::transfer::{self, Outer};
use machine::cpu::{Eflags, SegmentRegister};
use machine::{Machine, Selector};

/// Delivers on the instruction's behalf: what goes wrong is the instruction's own exception.
fn deliver(m: &mut Machine, op: &Op, event: Exception) -> Result<(), Exception> {
    let delivered = interrupt::deliver(m, event, op.next_eip(m));
    task::settle(m, delivered)
}

/// INT n.
pub(crate) fn int(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    check_virtual_8086(m)?;
    deliver(m, op, Exception::software_interrupt(op.instruction.immediate8()))
}

/// INT3, which IOPL does not matter to. Where a debugger may have planted it, it is looked at by
/// itself.
pub(crate) fn int3(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    if m.breakpoints.are_set() {
        return Err(Exception::RESTART);
    }
    deliver(m, op, Exception::software_interrupt(3))
}

/// INTO.
pub(crate) fn into(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    if m.cpu.flags.overflow() {
        return deliver(m, op, Exception::software_interrupt(4));
    }
    m.cpu.eip = op.next_eip(m);
    Ok(())
}

/// INT1: a #DB without conditions in DR6 and without a privilege check of the gate.
pub(crate) fn int1(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    deliver(m, op, Exception::DEBUG.as_trap())
}

/// What IRET finds on the stack.
struct Popped {
    eip: u32,
    selector: Selector,
    flags: u32,
}

/// IRET in all of its forms.
pub(crate) fn iret<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    check_virtual_8086(m)?;
    let mask = restored::<T>(m);
    if T::SIZE == 4 && shortcut::iret(m, mask) {
        // Nothing is left to do.
    } else if m.cpu.in_protected_mode() && m.cpu.flags.contains(Eflags::NT) {
        task::return_to_previous(m, op.next_eip(m))?;
    } else {
        let popped = Popped {
            eip: stack::peek::<T>(m, 0)?.zero_extend(),
            selector: Selector(stack::peek::<T>(m, T::SIZE)?.zero_extend() as u16),
            flags: stack::peek::<T>(m, 2 * T::SIZE)?.zero_extend(),
        };
        // CPL and IOPL from before the return decide which flags it changes.
        return_to::<T>(m, &popped, mask)?;
    }
    m.counters.sensitive += 1;
    Ok(())
}

fn return_to<T: Word>(m: &mut Machine, popped: &Popped, mask: Eflags) -> Result<(), Exception> {
    if !m.cpu.in_protected_mode() {
        transfer::enter_unprotected(m, popped.selector, popped.eip)?;
        stack::drop_bytes(m, 3 * T::SIZE);
    } else if T::SIZE == 4 && m.cpu.cpl == 0 && popped.flags & Eflags::VM.bits() != 0 {
        return to_virtual_8086(m, popped);
    } else {
        let code = transfer::returned_code(m, popped.selector)?;
        if popped.selector.rpl() == m.cpu.cpl {
            transfer::check_eip(&code, popped.eip)?;
            transfer::enter(m, code, popped.eip, m.cpu.cpl);
            stack::drop_bytes(m, 3 * T::SIZE);
        } else {
            let esp = stack::peek::<T>(m, 3 * T::SIZE)?.zero_extend();
            let stack = Selector(stack::peek::<T>(m, 4 * T::SIZE)?.zero_extend() as u16);
            transfer::return_outward(m, &Outer { code, eip: popped.eip, stack, esp })?;
        }
    }
    mode::set_flags(m, popped.flags, mask);
    Ok(())
}

/// The flags that IRET takes from the stack, VM aside.
fn restored<T: Word>(m: &Machine) -> Eflags {
    let mut mask = writable::<T>(m);
    if T::SIZE == 4 {
        mask |= Eflags::RF;
        mask.set(Eflags::VIF | Eflags::VIP, m.cpu.in_protected_mode() && m.cpu.cpl == 0);
    }
    mask
}

/// IRETD at CPL 0 with VM set in the image (Intel SDM volume 3, 20.2.3).
fn to_virtual_8086(m: &mut Machine, popped: &Popped) -> Result<(), Exception> {
    const ORDER: [SegmentRegister; 5] = [
        SegmentRegister::Ss,
        SegmentRegister::Es,
        SegmentRegister::Ds,
        SegmentRegister::Fs,
        SegmentRegister::Gs,
    ];
    let esp: u32 = stack::peek(m, 12)?;
    let mut selectors = [Selector(0); ORDER.len()];
    for (depth, selector) in (16..).step_by(4).zip(&mut selectors) {
        *selector = Selector(stack::peek::<u32>(m, depth)? as u16);
    }
    if popped.eip > 0xffff {
        return Err(Exception::PROTECTION);
    }
    m.cpu.flags.set_bits(popped.flags);
    let code = descriptor::unprotected(m, SegmentRegister::Cs, popped.selector);
    transfer::enter(m, code, popped.eip, 3);
    for (register, selector) in ORDER.into_iter().zip(selectors) {
        *m.cpu.segment_mut(register) = descriptor::unprotected(m, register, selector);
    }
    m.cpu.registers[machine::cpu::register::ESP] = esp;
    Ok(())
}
