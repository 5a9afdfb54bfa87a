//! Interrupts and exceptions: delivery through the IVT or IDT (Intel SDM volume 3, chapter 6, and
//! volume 2, INT n).
//!
//! [`raise`] is for what arises outside of an instruction or aborts one: it delivers, and turns
//! exceptions during delivery into double and triple faults. INT n and its like call [`deliver`]
//! themselves, so that an exception during their delivery is an exception of the instruction, with
//! its EIP. Delivery that fails has changed nothing, unless a task switch was committed.

use crate::Outcome;
use crate::access;
use crate::descriptor::{self, Found};
use crate::exception::Exception;
use crate::mode;
use crate::shortcut;
use crate::task::{self, Reason};
use crate::transfer::{self, Frame, Stack};
use machine::cpu::{Descriptor, Dr6, Dr7, Eflags, InterruptShadow, Segment, SegmentRegister};
use machine::{Machine, Selector, Vector};

/// Exceptions in a row during delivery after which the CPU counts as shut down. Only #AC and debug
/// traps of task switches can follow one another without end; a real CPU would hang in microcode.
const MOST_EXCEPTIONS: usize = 16;

const VECTOR_DEBUG: u8 = 1;
const VECTOR_DOUBLE_FAULT: u8 = 8;

/// Delivers an external interrupt, as acknowledged from the interrupt controller; a CPU in HLT wakes.
pub fn deliver_interrupt(machine: &mut Machine, vector: Vector) -> Outcome {
    raise(machine, Exception::external(vector.0))
}

/// Delivers an exception or interrupt, with double and triple faults. EIP is that of the
/// instruction to return to.
pub(crate) fn raise(m: &mut Machine, exception: Exception) -> Outcome {
    debug_assert!(!exception.is_restart());
    // The interrupted block is left: stack frames may be written over it.
    m.memory.set_executing(0..0);
    let mut current = exception;
    for _ in 0..MOST_EXCEPTIONS {
        settle_debug(m, current);
        match deliver(m, current, m.cpu.eip) {
            Ok(()) if m.cpu.pending_debug & Dr6::BT != 0 => current = Exception::DEBUG.as_trap(),
            Ok(()) => return Outcome::Continue,
            Err(second) => match combine(current, second) {
                Some(next) => current = next,
                None => return Outcome::Shutdown,
            },
        }
    }
    Outcome::Shutdown
}

/// Brings DR6 and DR7 up to date before an exception: #DB takes the pending conditions, any other
/// fault drops those of the instruction that it aborts (Intel SDM volume 3, 17.2.3 and 17.2.4).
fn settle_debug(m: &mut Machine, exception: Exception) {
    if is_debug(exception) {
        m.cpu.debug[6] |= std::mem::take(&mut m.cpu.pending_debug);
        if m.cpu.debug[7] & Dr7::GD != 0 {
            m.cpu.debug[7] &= !Dr7::GD;
            mode::update(m);
        }
    } else if !exception.is_trap() {
        m.cpu.pending_debug &= Dr6::BT;
    }
}

fn is_debug(exception: Exception) -> bool {
    exception.vector() == VECTOR_DEBUG && !exception.is_external() && !exception.is_software()
}

/// What an exception during the delivery of another leads to (Intel SDM volume 3, table 6-5);
/// nothing stands for shutdown.
fn combine(first: Exception, second: Exception) -> Option<Exception> {
    let severe = second.is_contributory() || second.is_page_fault();
    if is_double_fault(first) && severe {
        return None;
    }
    let double =
        (first.is_contributory() && second.is_contributory()) || (first.is_page_fault() && severe);
    Some(if double { Exception::DOUBLE_FAULT } else { second })
}

fn is_double_fault(exception: Exception) -> bool {
    exception.vector() == VECTOR_DOUBLE_FAULT && exception.error_code().is_some()
}

/// Delivers one event. `return_eip` is what its handler returns to.
pub(crate) fn deliver(m: &mut Machine, event: Exception, return_eip: u32) -> Result<(), Exception> {
    let delivered = if shortcut::deliver(m, event, return_eip, flags_image(m, event)) {
        Ok(())
    } else if m.cpu.cr0.contains(machine::cpu::Cr0::PE) {
        through_idt(m, event, return_eip)
    } else {
        through_ivt(m, event, return_eip)
    };
    delivered.map_err(
        |second| {
            if event.is_software() { second } else { second.caused_externally() }
        },
    )?;
    m.cpu.halted = false;
    m.cpu.interrupt_shadow = InterruptShadow::None;
    count(m, event);
    Ok(())
}

fn count(m: &mut Machine, event: Exception) {
    let counter = if event.is_external() {
        &mut m.counters.interrupts
    } else if event.is_page_fault() {
        &mut m.counters.guest_page_faults
    } else {
        &mut m.counters.exceptions
    };
    *counter += 1;
}

/// Real mode: four bytes a vector, and no error codes (Intel SDM volume 3, 20.1.4).
fn through_ivt(m: &mut Machine, event: Exception, return_eip: u32) -> Result<(), Exception> {
    let offset = u32::from(event.vector()) * 4;
    if offset + 3 > u32::from(m.cpu.idtr.limit) {
        return Err(Exception::protection(u16::from(event.vector()) * 8 + 2));
    }
    let entry: u32 = access::read_system(m, m.cpu.idtr.base.wrapping_add(offset))?;
    let mut frame = Frame::new();
    frame.add_all(&[flags_image(m, event), u32::from(m.cpu.segments[1].selector), return_eip]);
    let mut stack = Stack::current(m);
    stack.push(m, &frame, false)?;
    transfer::enter_unprotected(m, Selector((entry >> 16) as u16), entry & 0xffff)?;
    stack.install(m);
    mode::set_flags(m, 0, Eflags::IF | Eflags::TF | Eflags::AC | Eflags::RF);
    Ok(())
}

/// Protected and virtual-8086 mode: eight bytes a vector (Intel SDM volume 3, 6.11).
fn through_idt(m: &mut Machine, event: Exception, return_eip: u32) -> Result<(), Exception> {
    let offset = u32::from(event.vector()) * 8;
    let code = offset as u16 + 2;
    if offset + 7 > u32::from(m.cpu.idtr.limit) {
        return Err(Exception::protection(code));
    }
    let gate = Descriptor(access::read_system_u64(m, m.cpu.idtr.base.wrapping_add(offset))?);
    let gate_type = gate.attributes() & 0x1f;
    if !matches!(gate_type, 5 | 6 | 7 | 14 | 15) || (event.is_software() && gate.dpl() < m.cpu.cpl)
    {
        return Err(Exception::protection(code));
    }
    if !gate.has(machine::cpu::access::PRESENT) {
        return Err(Exception::not_present(code));
    }
    if gate_type == 5 {
        through_task_gate(m, event, gate, return_eip)
    } else {
        through_gate(m, event, gate, return_eip)
    }
}

/// Switches to the handler's task and pushes the error code there.
fn through_task_gate(
    m: &mut Machine,
    event: Exception,
    gate: Descriptor,
    return_eip: u32,
) -> Result<(), Exception> {
    let found = task::available(m, gate.gate_selector())?;
    let saved = task::Saved { eip: return_eip, flags: flags_image(m, event) };
    task::switch(m, found, Reason::Nest, saved)?;
    let Some(code) = event.error_code() else { return Ok(()) };
    let mut frame = Frame::new();
    frame.add(u32::from(code));
    let mut stack = Stack::current(m);
    let wide = m.cpu.tr.kind() & 8 != 0;
    stack.push(m, &frame, wide).map_err(Exception::in_new_task)?;
    stack.install(m);
    Ok(())
}

/// Through an interrupt or trap gate of 16 or 32 bits.
fn through_gate(
    m: &mut Machine,
    event: Exception,
    gate: Descriptor,
    return_eip: u32,
) -> Result<(), Exception> {
    let wide = gate.kind() & 8 != 0;
    let eip = gate.gate_offset() & if wide { u32::MAX } else { 0xffff };
    let target = descriptor::fetch(m, gate.gate_selector(), Exception::protection)?;
    let cpl = handler_privilege(m, &target)?;
    let inward = cpl < m.cpu.cpl;
    let mut stack = if inward { Stack::inner(m, cpl)? } else { Stack::current(m) };
    let segment = target.load_code(m, cpl)?;
    transfer::check_eip(&segment, eip)?;
    let mut frame = Frame::new();
    fill_frame(&mut frame, m, event, inward, return_eip);
    stack.push(m, &frame, wide)?;

    let from_virtual_8086 = m.cpu.in_virtual_8086_mode();
    let masks_interrupts = gate.kind() & 1 == 0;
    let mut cleared = Eflags::TF | Eflags::NT | Eflags::VM | Eflags::RF;
    cleared.set(Eflags::IF, masks_interrupts);
    m.cpu.flags.merge(0, cleared);
    transfer::enter(m, segment, eip, cpl);
    stack.install(m);
    if from_virtual_8086 {
        for register in DATA_SEGMENTS {
            *m.cpu.segment_mut(register) = Segment::null(0);
        }
    }
    Ok(())
}

/// The data segments in the order in which an interrupt out of virtual-8086 mode pushes them.
const DATA_SEGMENTS: [SegmentRegister; 4] =
    [SegmentRegister::Gs, SegmentRegister::Fs, SegmentRegister::Ds, SegmentRegister::Es];

/// The privilege level at which the handler in a code segment runs, if it may be entered.
fn handler_privilege(m: &Machine, target: &Found) -> Result<u8, Exception> {
    let invalid = Exception::protection(target.code());
    if !target.is_code() || target.descriptor.dpl() > m.cpu.cpl {
        return Err(invalid);
    }
    transfer::check_present(target)?;
    let cpl = if target.is_conforming() { m.cpu.cpl } else { target.descriptor.dpl() };
    if m.cpu.in_virtual_8086_mode() && cpl != 0 {
        return Err(invalid);
    }
    Ok(cpl)
}

/// What a gate pushes (Intel SDM volume 3, figures 6-4 and 20-4).
fn fill_frame(frame: &mut Frame, m: &Machine, event: Exception, inward: bool, return_eip: u32) {
    let selector = |register| u32::from(m.cpu.segment(register).selector);
    if m.cpu.in_virtual_8086_mode() {
        frame.add_all(&DATA_SEGMENTS.map(selector));
    }
    if inward {
        let esp = m.cpu.registers[machine::cpu::register::ESP];
        frame.add_all(&[selector(SegmentRegister::Ss), esp]);
    }
    frame.add_all(&[flags_image(m, event), selector(SegmentRegister::Cs), return_eip]);
    if let Some(code) = event.error_code() {
        frame.add(u32::from(code));
    }
}

/// EFLAGS as pushed: every fault but #DB sets RF in it, so that the instruction can be resumed
/// (Intel SDM volume 3, 17.3.1.1).
fn flags_image(m: &Machine, event: Exception) -> u32 {
    let flags = m.cpu.flags.bits();
    let resumable = !event.is_trap() && !is_double_fault(event) && !is_debug(event);
    if resumable { flags | Eflags::RF.bits() } else { flags }
}
