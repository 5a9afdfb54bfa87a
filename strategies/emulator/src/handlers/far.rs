//! Far JMP, CALL and RET: through code segments, call gates, task gates and TSSs
//! (Intel SDM volume 2, and volume 3, 5.8).

use crate::alu::Word;
use crate::descriptor::{self, Found};
use crate::exception::Exception;
use crate::op::Op;
use crate::operand;
use crate::stack;
use crate::task::{self, Reason, Saved};
use crate::transfer::{self, Frame, Outer, Stack};
use iced_x86::OpKind;
use machine::cpu::{Segment, SegmentRegister, register};
use machine::{Machine, Selector};

/// Where a far JMP or CALL goes.
#[derive(Clone, Copy)]
struct Target {
    selector: Selector,
    offset: u32,
}

/// What a selector in protected mode leads to.
enum Way {
    /// A code segment, at the instruction's own offset.
    Code(Found),
    /// A call gate.
    Gate(Found),
    /// An available TSS, named directly or by a task gate.
    Task(Found),
}

fn target<T: Word>(m: &mut Machine, op: &Op) -> Result<Target, Exception> {
    let instruction = &op.instruction;
    match instruction.op_kind(0) {
        OpKind::FarBranch16 => Ok(Target {
            selector: Selector(instruction.far_branch_selector()),
            offset: u32::from(instruction.far_branch16()),
        }),
        OpKind::FarBranch32 => Ok(Target {
            selector: Selector(instruction.far_branch_selector()),
            offset: instruction.far_branch32(),
        }),
        _ => {
            let place = operand::place(m, op);
            let offset: T = place.read(m)?;
            let selector: u16 = place.after(op, T::SIZE).read(m)?;
            Ok(Target { selector: Selector(selector), offset: offset.zero_extend() })
        }
    }
}

/// Looks the target up; checks the rights to gates and TSSs.
fn find_way(m: &mut Machine, selector: Selector) -> Result<Way, Exception> {
    let found = descriptor::fetch(m, selector, Exception::protection)?;
    let invalid = Exception::protection(found.code());
    let Some(kind) = found.system_type() else {
        return if found.is_code() { Ok(Way::Code(found)) } else { Err(invalid) };
    };
    if !matches!(kind, 1 | 4 | 5 | 9 | 12) || !found.is_reachable(m) {
        return Err(invalid);
    }
    transfer::check_present(&found)?;
    match kind {
        4 | 12 => Ok(Way::Gate(found)),
        5 => Ok(Way::Task(task::available(m, found.descriptor.gate_selector())?)),
        _ => Ok(Way::Task(task::available(m, selector)?)),
    }
}

/// The code segment of a direct JMP or CALL, which stays at its privilege level.
fn direct(m: &mut Machine, found: &Found, eip: u32) -> Result<Segment, Exception> {
    let (dpl, cpl) = (found.descriptor.dpl(), m.cpu.cpl);
    let allowed =
        if found.is_conforming() { dpl <= cpl } else { found.selector.rpl() <= cpl && dpl == cpl };
    if !allowed {
        return Err(Exception::protection(found.code()));
    }
    transfer::check_present(found)?;
    let segment = found.load_code(m, cpl)?;
    transfer::check_eip(&segment, eip)?;
    Ok(segment)
}

/// Where a call gate leads.
struct Gate {
    code: Found,
    eip: u32,
    wide: bool,
    parameters: u32,
}

fn open(m: &mut Machine, gate: &Found) -> Result<Gate, Exception> {
    let descriptor = gate.descriptor;
    let wide = descriptor.kind() & 8 != 0;
    let code = descriptor::fetch(m, descriptor.gate_selector(), Exception::protection)?;
    if !code.is_code() || code.descriptor.dpl() > m.cpu.cpl {
        return Err(Exception::protection(code.code()));
    }
    let eip = descriptor.gate_offset() & if wide { u32::MAX } else { 0xffff };
    Ok(Gate { code, eip, wide, parameters: u32::from(descriptor.gate_parameters()) })
}

fn switch(m: &mut Machine, op: &Op, found: Found, reason: Reason) -> Result<(), Exception> {
    let saved = Saved { eip: op.next_eip(m), flags: m.cpu.flags.bits() };
    let switched = task::switch(m, found, reason, saved);
    task::settle(m, switched)
}

/// Far JMP; `T` is the size of the offset in memory.
pub(crate) fn jump<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let target = target::<T>(m, op)?;
    if m.cpu.in_protected_mode() {
        jump_protected(m, op, target)?;
    } else {
        transfer::enter_unprotected(m, target.selector, target.offset)?;
    }
    m.counters.sensitive += 1;
    Ok(())
}

fn jump_protected(m: &mut Machine, op: &Op, target: Target) -> Result<(), Exception> {
    let cpl = m.cpu.cpl;
    match find_way(m, target.selector)? {
        Way::Code(found) => {
            let segment = direct(m, &found, target.offset)?;
            transfer::enter(m, segment, target.offset, cpl);
        }
        Way::Gate(found) => {
            let gate = open(m, &found)?;
            if !gate.code.is_conforming() && gate.code.descriptor.dpl() != cpl {
                return Err(Exception::protection(gate.code.code()));
            }
            transfer::check_present(&gate.code)?;
            let segment = gate.code.load_code(m, cpl)?;
            transfer::check_eip(&segment, gate.eip)?;
            transfer::enter(m, segment, gate.eip, cpl);
        }
        Way::Task(found) => switch(m, op, found, Reason::Jump)?,
    }
    Ok(())
}

/// Far CALL; `T` is the size of the offset and of what is pushed.
pub(crate) fn call<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let target = target::<T>(m, op)?;
    if m.cpu.in_protected_mode() {
        call_protected::<T>(m, op, target)?;
    } else {
        let stack = push_return(m, op, T::SIZE == 4)?;
        transfer::enter_unprotected(m, target.selector, target.offset)?;
        stack.install(m);
    }
    m.counters.sensitive += 1;
    Ok(())
}

/// Pushes CS and the next EIP on the current stack, which the caller then installs.
fn push_return(m: &mut Machine, op: &Op, wide: bool) -> Result<Stack, Exception> {
    let mut stack = Stack::current(m);
    let mut frame = Frame::new();
    add_return(m, op, &mut frame);
    stack.push(m, &frame, wide)?;
    Ok(stack)
}

fn add_return(m: &Machine, op: &Op, frame: &mut Frame) {
    let cs = m.cpu.segment(SegmentRegister::Cs).selector;
    frame.add_all(&[u32::from(cs), op.next_eip(m)]);
}

fn call_protected<T: Word>(m: &mut Machine, op: &Op, target: Target) -> Result<(), Exception> {
    match find_way(m, target.selector)? {
        Way::Code(found) => {
            let segment = direct(m, &found, target.offset)?;
            let stack = push_return(m, op, T::SIZE == 4)?;
            transfer::enter(m, segment, target.offset, m.cpu.cpl);
            stack.install(m);
            Ok(())
        }
        Way::Gate(found) => {
            let gate = open(m, &found)?;
            transfer::check_present(&gate.code)?;
            call_gate(m, op, &gate)
        }
        Way::Task(found) => switch(m, op, found, Reason::Nest),
    }
}

/// CALL through a gate, to the same or an inner privilege level.
fn call_gate(m: &mut Machine, op: &Op, gate: &Gate) -> Result<(), Exception> {
    let dpl = gate.code.descriptor.dpl();
    let inward = !gate.code.is_conforming() && dpl < m.cpu.cpl;
    let cpl = if inward { dpl } else { m.cpu.cpl };
    let mut frame = Frame::new();
    let mut stack = if inward {
        let stack = Stack::inner(m, cpl)?;
        add_parameters(m, gate, &mut frame)?;
        stack
    } else {
        Stack::current(m)
    };
    add_return(m, op, &mut frame);
    let segment = gate.code.load_code(m, cpl)?;
    transfer::check_eip(&segment, gate.eip)?;
    stack.push(m, &frame, gate.wide)?;
    transfer::enter(m, segment, gate.eip, cpl);
    stack.install(m);
    Ok(())
}

/// The caller's SS:ESP and the parameters from its stack.
fn add_parameters(m: &mut Machine, gate: &Gate, frame: &mut Frame) -> Result<(), Exception> {
    let ss = m.cpu.segment(SegmentRegister::Ss).selector;
    frame.add_all(&[u32::from(ss), m.cpu.registers[register::ESP]]);
    for number in (0..gate.parameters).rev() {
        let parameter = if gate.wide {
            stack::peek::<u32>(m, number * 4)?
        } else {
            u32::from(stack::peek::<u16>(m, number * 2)?)
        };
        frame.add(parameter);
    }
    Ok(())
}

/// Far RET, with the bytes of parameters to drop.
pub(crate) fn ret<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let drop = if op.instruction.op_count() == 0 { 0 } else { op.instruction.immediate16() };
    let drop = u32::from(drop);
    let eip = stack::peek::<T>(m, 0)?.zero_extend();
    let selector = Selector(stack::peek::<T>(m, T::SIZE)?.zero_extend() as u16);
    if m.cpu.in_protected_mode() {
        ret_protected::<T>(m, selector, eip, drop)?;
    } else {
        transfer::enter_unprotected(m, selector, eip)?;
        stack::drop_bytes(m, 2 * T::SIZE + drop);
    }
    m.counters.sensitive += 1;
    Ok(())
}

fn ret_protected<T: Word>(
    m: &mut Machine,
    selector: Selector,
    eip: u32,
    drop: u32,
) -> Result<(), Exception> {
    let code = transfer::returned_code(m, selector)?;
    if selector.rpl() == m.cpu.cpl {
        transfer::check_eip(&code, eip)?;
        transfer::enter(m, code, eip, m.cpu.cpl);
        stack::drop_bytes(m, 2 * T::SIZE + drop);
        return Ok(());
    }
    let at = 2 * T::SIZE + drop;
    let esp = stack::peek::<T>(m, at)?.zero_extend();
    let stack = Selector(stack::peek::<T>(m, at + T::SIZE)?.zero_extend() as u16);
    transfer::return_outward(m, &Outer { code, eip, stack, esp: esp.wrapping_add(drop) })
}
