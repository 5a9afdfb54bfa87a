//! Near transfers of control: JMP, Jcc, CALL, RET, LOOP, JECXZ.

use crate::alu::Word;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use crate::operand;
use crate::stack;
use machine::Machine;
use machine::cpu::register::{ECX, ESP};

type Done = Result<(), Exception>;

/// Goes to `target`, or raises #GP when it lies outside the code segment.
#[inline(always)]
fn go<T: Word>(m: &mut Machine, target: u32) -> Done {
    let target = if T::SIZE == 2 { target & 0xffff } else { target };
    if target > m.cpu.segments[1].limit {
        return Err(Exception::PROTECTION);
    }
    m.cpu.eip = target;
    Ok(())
}

/// The target of a direct branch: its distance from the block's start is the immediate.
#[inline(always)]
fn target(m: &Machine, op: &Op) -> u32 {
    m.cpu.eip.wrapping_add(op.immediate)
}

/// Goes on with the next instruction. EIP does not wrap at 16 bits in 16-bit code: fetching beyond
/// the limit faults.
#[inline(always)]
fn fall_through(m: &mut Machine, op: &Op) {
    m.cpu.eip = op.next_eip(m);
}

/// `T` gives the operand size, to which EIP is cut.
pub(crate) fn jump<T: Word>(m: &mut Machine, op: &Op) -> Done {
    go::<T>(m, target(m, op))
}

pub(crate) fn jump_if<T: Word, const CONDITION: u8>(m: &mut Machine, op: &Op) -> Done {
    if m.cpu.flags.condition(CONDITION) {
        go::<T>(m, target(m, op))
    } else {
        fall_through(m, op);
        Ok(())
    }
}

pub(crate) fn jump_indirect<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let target = operand::read::<T>(m, op, 0)?.zero_extend();
    go::<T>(m, target)
}

pub(crate) fn call<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let target = target(m, op);
    call_to::<T>(m, op, target)
}

pub(crate) fn call_indirect<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let target = operand::read::<T>(m, op, 0)?.zero_extend();
    call_to::<T>(m, op, target)
}

#[inline(always)]
fn call_to<T: Word>(m: &mut Machine, op: &Op, target: u32) -> Done {
    let target = if T::SIZE == 2 { target & 0xffff } else { target };
    if target > m.cpu.segments[1].limit {
        return refuse_call::<T>(m, op);
    }
    stack::push(m, T::truncate(op.next_eip(m)))?;
    m.cpu.eip = target;
    Ok(())
}

/// A call that leads outside the code segment. Intel's CPUs have stored the return address when they
/// look, though ESP is as before.
#[cold]
fn refuse_call<T: Word>(m: &mut Machine, op: &Op) -> Done {
    if maker::is_intel() {
        let esp = m.cpu.registers[ESP];
        stack::push(m, T::truncate(op.next_eip(m)))?;
        m.cpu.registers[ESP] = esp;
    }
    Err(Exception::PROTECTION)
}

/// RET, with the bytes of arguments to drop as the immediate.
pub(crate) fn ret<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let target = stack::peek::<T>(m, 0)?.zero_extend();
    go::<T>(m, target)?;
    stack::drop_bytes(m, T::SIZE + (op.immediate & 0xffff));
    Ok(())
}

/// LOOP, LOOPE, LOOPNE. `T` gives the operand size; the counter has the address size.
pub(crate) fn loop_while<T: Word>(m: &mut Machine, op: &Op) -> Done {
    use iced_x86::Mnemonic::{Loope, Loopne};
    let mask = op.address_mask;
    let ecx = m.cpu.registers[ECX];
    let count = ecx.wrapping_sub(1) & mask;
    let condition = match op.instruction.mnemonic() {
        Loope => m.cpu.flags.zero(),
        Loopne => !m.cpu.flags.zero(),
        _ => true,
    };
    if count != 0 && condition {
        go::<T>(m, target(m, op))?;
    } else {
        fall_through(m, op);
    }
    m.cpu.registers[ECX] = ecx & !mask | count;
    Ok(())
}

/// JCXZ and JECXZ.
pub(crate) fn jump_if_counter_zero<T: Word>(m: &mut Machine, op: &Op) -> Done {
    if m.cpu.registers[ECX] & op.address_mask == 0 {
        go::<T>(m, target(m, op))
    } else {
        fall_through(m, op);
        Ok(())
    }
}
