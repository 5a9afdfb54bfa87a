//! Executing instructions through stubs.

use super::arena::Stub;
use super::image;
use super::simd;
use super::stub::Needs;
use super::unit;
use crate::access;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use machine::Machine;
use machine::cpu::{Cr0, Cr4, FxArea};
use machine::signals::{Interrupt, InterruptLine};

type Done = Result<(), Exception>;

/// The interrupt line of the coprocessor's error output on a PC.
const FERR_IRQ: u8 = 13;

/// What x87 instructions check: #NM while the unit is switched off, then a pending exception.
pub(crate) fn check_x87(m: &mut Machine, waits: bool) -> Done {
    if m.cpu.cr0.intersects(Cr0::EM | Cr0::TS) {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    if waits { check_pending(m) } else { Ok(()) }
}

/// #MF for a pending exception; with CR0.NE clear the error goes out as IRQ 13 instead, and
/// execution goes on as with IGNNE# asserted (Intel SDM volume 1, appendix D.2).
pub(crate) fn check_pending(m: &mut Machine) -> Done {
    if m.cpu.fpu.resident || !unit::exception_pending(m) {
        return Ok(());
    }
    if m.cpu.cr0.contains(Cr0::NE) {
        return Err(Exception::FLOATING_POINT);
    }
    let line = InterruptLine::new(m.signals().clone(), FERR_IRQ);
    line.set(true);
    line.set(false);
    Ok(())
}

/// What MMX instructions check.
pub(crate) fn check_mmx(m: &mut Machine) -> Done {
    if m.cpu.cr0.contains(Cr0::EM) {
        return Err(Exception::UNDEFINED);
    }
    if m.cpu.cr0.contains(Cr0::TS) {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    check_pending(m)
}

/// What SSE instructions check.
pub(crate) fn check_sse(m: &mut Machine) -> Done {
    if m.cpu.cr0.contains(Cr0::EM) || !m.cpu.cr4.contains(Cr4::OSFXSR) {
        return Err(Exception::UNDEFINED);
    }
    if m.cpu.cr0.contains(Cr0::TS) {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    Ok(())
}

/// x87 arithmetic, loads and stores.
pub(crate) fn x87(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, true)?;
    run_x87(m, op)?;
    note_pointers(m, op);
    if !unit::all_masked(m) {
        unit::leave(m);
    }
    Ok(())
}

/// x87 control instructions: they do not move the instruction pointer, and those that load a control
/// word may make an exception pending. `WAITS` tells whether they look at a pending one first.
pub(crate) fn x87_control<const WAITS: bool>(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, WAITS)?;
    if WAITS {
        run_x87(m, op)?;
    } else {
        with_operand(m, op)?;
    }
    unit::leave(m);
    Ok(())
}

/// Runs an instruction that waits. A pending exception that was let pass (CR0.NE clear) must not
/// reach the host: the unit then runs with everything masked, and the exception stays pending.
fn run_x87(m: &mut Machine, op: &Op) -> Done {
    if m.cpu.fpu.resident || !unit::exception_pending(m) {
        return with_operand(m, op);
    }
    let masks = m.cpu.fpu.area.0[0] & 0x3f;
    m.cpu.fpu.area.0[0] |= 0x3f;
    m.cpu.fpu.area.0[2] &= !0x80;
    m.cpu.fpu.area.0[3] &= !0x80;
    let done = with_operand(m, op);
    unit::leave(m);
    // An FLDCW has brought masks of its own.
    if op.instruction.mnemonic() != iced_x86::Mnemonic::Fldcw {
        m.cpu.fpu.area.0[0] = m.cpu.fpu.area.0[0] & !0x3f | masks;
    }
    image::update_summary(&mut m.cpu.fpu);
    done
}

/// MMX instructions.
pub(crate) fn mmx(m: &mut Machine, op: &Op) -> Done {
    check_mmx(m)?;
    run_x87(m, op).inspect_err(|_| {
        // Half of the transition to MMX comes before the store.
        if maker::is_intel() && Needs(op.source).has(Needs::WRITES) {
            unit::leave(m);
            unit::set_top(&mut m.cpu.fpu, 0);
        }
    })?;
    if !unit::all_masked(m) {
        unit::leave(m);
    }
    Ok(())
}

/// SSE and SSE2 instructions, those with an MMX operand included.
pub(crate) fn sse(m: &mut Machine, op: &Op) -> Done {
    check_sse(m)?;
    let needs = Needs(op.source);
    if needs.has(Needs::X87) {
        check_pending(m)?;
    }
    if needs.has(Needs::MXCSR) && m.cpu.fpu.mxcsr() & 0x1f80 != 0x1f80 {
        with_unmasked_exceptions(m, op)?;
    } else {
        run_sse(m, op)?;
    }
    if !unit::all_masked(m) {
        unit::leave(m);
    }
    Ok(())
}

/// With an MMX operand, a pending x87 exception must not reach the host.
fn run_sse(m: &mut Machine, op: &Op) -> Done {
    if Needs(op.source).has(Needs::X87) { run_x87(m, op) } else { with_operand(m, op) }
}

/// The instruction runs with all exceptions masked and none set; if it sets one that the guest has
/// unmasked, its results are taken back and #XM raised (Intel SDM volume 1, 11.5).
fn with_unmasked_exceptions(m: &mut Machine, op: &Op) -> Done {
    unit::leave(m);
    let saved = m.cpu.fpu.clone();
    let general = m.cpu.registers;
    let flags = m.cpu.flags;
    let mxcsr = saved.mxcsr();
    let clean = mxcsr & !0x3f | 0x1f80;
    m.cpu.fpu.set_mxcsr(clean);
    let done = run_sse(m, op);
    unit::leave(m);
    let raised = if done.is_ok() { raised(m, op, mxcsr) } else { 0 };
    let unmasked = raised & !(mxcsr >> 7);
    if done.is_err() || unmasked != 0 {
        m.cpu.fpu = saved;
        m.cpu.registers = general;
        m.cpu.flags = flags;
    }
    m.cpu.fpu.set_mxcsr(mxcsr | raised);
    if unmasked != 0 && Needs(op.source).has(Needs::X87) {
        // The transition to MMX comes before the computation.
        unit::begin_mmx(&mut m.cpu.fpu);
    }
    done?;
    match unmasked {
        0 => Ok(()),
        _ if m.cpu.cr4.contains(Cr4::OSXMMEXCPT) => Err(Exception::SIMD),
        _ => Err(Exception::UNDEFINED),
    }
}

/// The exceptions of an instruction that has just run masked, as it would have set them with
/// `mxcsr` (Intel SDM volume 1, 11.5.2 and 11.5.3).
fn raised(m: &Machine, op: &Op, mxcsr: u32) -> u32 {
    const BEFORE_COMPUTATION: u32 = 7;
    const UNDERFLOW: u32 = 1 << 4;
    let raised = m.cpu.fpu.mxcsr() & 0x3f;
    if raised & BEFORE_COMPUTATION & !(mxcsr >> 7) != 0 {
        // Nothing is computed then.
        return raised & BEFORE_COMPUTATION;
    }
    // Masked underflow is for inexact results; unmasked, a tiny one is enough.
    let tiny = mxcsr & UNDERFLOW << 7 == 0 && simd::result_is_denormal(&m.cpu.fpu, &op.instruction);
    raised | if tiny { UNDERFLOW } else { 0 }
}

/// Calls the stub with its memory operand in place: the guest's own memory where it is at hand, else
/// a copy.
fn with_operand(m: &mut Machine, op: &Op) -> Done {
    let needs = Needs(op.source);
    if !needs.has(Needs::READS | Needs::WRITES) {
        call(m, op, std::ptr::null_mut());
        return Ok(());
    }
    let offset = op.offset(m);
    let size = op.instruction.memory_size().size() as u32;
    let segment = &m.cpu.segments[usize::from(op.segment)];
    let linear = segment.base.wrapping_add(offset);
    if needs.has(Needs::ALIGNED) && linear & 15 != 0 {
        return Err(Exception::PROTECTION);
    }
    let user = m.cpu.cpl == 3;
    let direct = if needs.has(Needs::WRITES) {
        segment.writes_freely(offset, size).then(|| m.tlb.write(user, linear, size)).flatten()
    } else {
        let host = segment.reads_freely(offset, size).then(|| m.tlb.read(user, linear, size));
        host.flatten().map(<*const u8>::cast_mut)
    };
    match direct {
        Some(host) => {
            call(m, op, host);
            Ok(())
        }
        None => with_copy(m, op, offset, size as usize, needs),
    }
}

#[cold]
fn with_copy(m: &mut Machine, op: &Op, offset: u32, size: usize, needs: Needs) -> Done {
    let mut copy = FxArea([0; 512]);
    let Some(bytes) = copy.0.get_mut(..size) else { return Err(Exception::UNDEFINED) };
    let unmasked = needs.has(Needs::X87) && !unit::all_masked(m);
    if maker::is_intel() && unmasked && needs.has(Needs::WRITES) && !needs.has(Needs::READS) {
        return store_if_no_exception(m, op, offset, bytes);
    }
    if needs.has(Needs::WRITES) {
        access::check_write(m, op.segment, offset, size as u32)?;
    }
    if needs.has(Needs::READS) {
        access::read_bytes(m, op.segment, offset, bytes)?;
    }
    if !needs.has(Needs::WRITES) {
        call(m, op, copy.0.as_mut_ptr());
        return Ok(());
    }
    // A write into the running block is found only at the write: be ready to take the x87 state back.
    let general = m.cpu.registers;
    unit::leave(m);
    if !needs.has(Needs::READS) && unmasked {
        // An unmasked exception keeps a store from happening: what is there is then put back.
        access::read_bytes(m, op.segment, offset, &mut copy.0[..size])?;
    }
    let saved = m.cpu.fpu.clone();
    call(m, op, copy.0.as_mut_ptr());
    access::write_bytes(m, op.segment, offset, &copy.0[..size]).inspect_err(|_| {
        unit::leave(m);
        m.cpu.fpu = saved;
        m.cpu.registers = general;
    })
}

/// A store of the x87 unit with unmasked exceptions, of which Intel's CPUs look whether there is one
/// before they touch memory: then they do not store, and memory raises no fault.
fn store_if_no_exception(m: &mut Machine, op: &Op, offset: u32, copy: &mut [u8]) -> Done {
    /// Those that keep an instruction from storing: all but the one for rounding.
    const BEFORE_STORE: u8 = 0x1f;
    let general = m.cpu.registers;
    unit::leave(m);
    let saved = m.cpu.fpu.clone();
    call(m, op, copy.as_mut_ptr());
    unit::leave(m);
    let raised = m.cpu.fpu.area.0[2] & !saved.area.0[2];
    if raised & !saved.area.0[0] & BEFORE_STORE != 0 {
        return Ok(());
    }
    access::write_bytes(m, op.segment, offset, copy).inspect_err(|_| {
        m.cpu.fpu = saved;
        m.cpu.registers = general;
    })
}

#[inline]
fn call(m: &mut Machine, op: &Op, memory: *mut u8) {
    let needs = Needs(op.source);
    if needs.has(Needs::X87) {
        unit::enter(m);
    }
    let general = usize::from(op.destination & 7);
    let result = unit::call(m, Stub(op.immediate), memory, m.cpu.registers[general]);
    if needs.has(Needs::SETS_GENERAL) {
        m.cpu.registers[general] = result;
    }
}

/// Keeps the x87 unit's last instruction and data pointers (Intel SDM volume 1, 8.1.8). The last
/// opcode is not kept: it reads as 0, as on CPUs that record it for unmasked exceptions only.
fn note_pointers(m: &mut Machine, op: &Op) {
    let eip = op.eip(m);
    let cs = m.cpu.segments[1].selector;
    let needs = Needs(op.source);
    let data = needs
        .has(Needs::READS | Needs::WRITES)
        .then(|| (op.offset(m), m.cpu.segments[usize::from(op.segment)].selector));
    let area = &mut m.cpu.fpu.area.0;
    area[8..12].copy_from_slice(&eip.to_le_bytes());
    area[12..14].copy_from_slice(&cs.to_le_bytes());
    if let Some((offset, selector)) = data {
        area[16..20].copy_from_slice(&offset.to_le_bytes());
        area[20..22].copy_from_slice(&selector.to_le_bytes());
    }
}

/// Instructions that need no unit (MOVNTI).
pub(crate) fn plain(m: &mut Machine, op: &Op) -> Done {
    with_operand(m, op)
}
