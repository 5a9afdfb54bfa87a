//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE.

use crate::access;
use crate::alu::Word;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use crate::operand;
use crate::stack;
use machine::Machine;
use machine::cpu::SegmentRegister;
use machine::cpu::register::{EBP, ESP};

type Done = Result<(), Exception>;
const SS: u8 = SegmentRegister::Ss as u8;

pub(crate) fn push_register<T: Word>(m: &mut Machine, op: &Op) -> Done {
    stack::push(m, op.destination::<T>(m))
}

pub(crate) fn push_immediate<T: Word>(m: &mut Machine, op: &Op) -> Done {
    stack::push(m, T::truncate(op.immediate))
}

pub(crate) fn push_memory<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = access::read::<T>(m, op.segment, op.offset(m))?;
    stack::push(m, value)
}

pub(crate) fn pop_register<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let value = stack::pop::<T>(m)?;
    op.set_destination(m, value);
    Ok(())
}

/// The address is computed with ESP already incremented (Intel SDM volume 2, POP).
pub(crate) fn pop_memory<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let before = m.cpu.registers[ESP];
    let value = stack::pop::<T>(m)?;
    let offset = op.offset(m);
    access::write(m, op.segment, offset, value).inspect_err(|_| m.cpu.registers[ESP] = before)
}

pub(crate) fn pusha<T: Word>(m: &mut Machine, _op: &Op) -> Done {
    let values: [T; 8] = std::array::from_fn(|i| T::truncate(m.cpu.registers[i]));
    stack::push_all(m, &values)
}

pub(crate) fn popa<T: Word>(m: &mut Machine, _op: &Op) -> Done {
    let mut values = [T::default(); 8];
    for (depth, value) in values.iter_mut().rev().enumerate() {
        *value = stack::peek(m, depth as u32 * T::SIZE)?;
    }
    for (number, value) in values.into_iter().enumerate() {
        if number != ESP {
            T::set_register(&mut m.cpu.registers, number as u8, value);
        }
    }
    stack::drop_bytes(m, 8 * T::SIZE);
    Ok(())
}

/// ENTER with a nesting level (Intel SDM volume 2, ENTER).
pub(crate) fn enter<T: Word>(m: &mut Machine, op: &Op) -> Done {
    // It ends its block: begun anew it could read pointers that it has already written.
    m.memory.set_executing(0..0);
    let esp = m.cpu.registers[ESP];
    enter_frame::<T>(m, op).inspect_err(|_| m.cpu.registers[ESP] = esp)
}

fn enter_frame<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let bytes = u32::from(op.instruction.immediate16());
    let level = u32::from(op.instruction.immediate8_2nd() & 31);
    let mask = stack::mask(m);
    stack::push(m, T::register(&m.cpu.registers, EBP as u8))?;
    let frame = m.cpu.registers[ESP];
    let outer = m.cpu.registers[EBP];
    for depth in 1..level {
        let offset = outer.wrapping_sub(depth * T::SIZE) & mask;
        let pointer = access::read::<T>(m, SS, offset)?;
        stack::push(m, pointer)?;
    }
    if level > 0 {
        stack::push(m, T::truncate(frame))?;
    }
    let top = m.cpu.registers[ESP].wrapping_sub(bytes) & mask;
    // The new top must be writable, so that a fault comes here and not in the procedure.
    access::check_write(m, SS, top, T::SIZE)?;
    stack::set_pointer(m, top);
    T::set_register(&mut m.cpu.registers, EBP as u8, T::truncate(frame));
    Ok(())
}

pub(crate) fn leave<T: Word>(m: &mut Machine, _op: &Op) -> Done {
    let ebp = m.cpu.registers[EBP];
    let value = access::read::<T>(m, SS, ebp & stack::mask(m))?;
    stack::set_pointer(m, ebp.wrapping_add(T::SIZE));
    T::set_register(&mut m.cpu.registers, EBP as u8, value);
    Ok(())
}

/// BOUND r, m&m: signed comparison.
pub(crate) fn bound<T: Word>(m: &mut Machine, op: &Op) -> Done {
    let place = operand::place(m, op);
    let lower = place.read::<T>(m)?.sign_extend() as i32;
    let index = op.destination::<T>(m).sign_extend() as i32;
    if index < lower && maker::is_intel() {
        // The upper bound may lie on another page.
        return Err(Exception::BOUND);
    }
    let upper = place.after(op, T::SIZE).read::<T>(m)?.sign_extend() as i32;
    if (lower..=upper).contains(&index) { Ok(()) } else { Err(Exception::BOUND) }
}
