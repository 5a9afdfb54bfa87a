//! Looking at descriptors without loading them: LAR, LSL, VERR, VERW, ARPL.

use crate::alu::Word;
use crate::descriptor::{self, Found};
use crate::exception::Exception;
use crate::op::Op;
use crate::operand;
use machine::cpu::Eflags;
use machine::{Machine, Selector};

/// System types that LAR accepts: TSSs, LDT, call gates, the task gate.
const SHOWN_BY_LAR: &[u8] = &[1, 2, 3, 4, 5, 9, 11, 12];
/// System types that LSL accepts: what has a limit.
const SHOWN_BY_LSL: &[u8] = &[1, 2, 3, 9, 11];
/// What LAR shows of the descriptor's second doubleword. The manuals leave the limit's top bits
/// undefined; AMD's CPUs show them.
const RIGHTS: u32 = 0x00ff_ff00;

/// The descriptor of the selector in operand `number`, if it lies within its table.
fn find(m: &mut Machine, op: &Op, number: u32) -> Result<Option<Found>, Exception> {
    if !m.cpu.in_protected_mode() {
        return Err(Exception::UNDEFINED);
    }
    let selector = Selector(operand::read::<u16>(m, op, number)?);
    if selector.is_null() {
        return Ok(None);
    }
    descriptor::find(m, selector)
}

fn finish(m: &mut Machine, zero: bool) {
    m.cpu.flags.set(Eflags::ZF, zero);
    m.counters.sensitive += 1;
}

/// The descriptor that LAR or LSL shows, if its type and privilege allow it.
fn visible(m: &mut Machine, op: &Op, types: &[u8]) -> Result<Option<Found>, Exception> {
    let Some(found) = find(m, op, 1)? else { return Ok(None) };
    let typed = found.system_type().is_none_or(|kind| types.contains(&kind));
    let reachable = found.is_conforming() || found.is_reachable(m);
    Ok((typed && reachable).then_some(found))
}

/// LAR.
pub(crate) fn lar<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let found = visible(m, op, SHOWN_BY_LAR)?;
    if let Some(found) = &found {
        let high = (found.descriptor.0 >> 32) as u32;
        operand::write(m, op, 0, T::truncate(high & RIGHTS))?;
    }
    finish(m, found.is_some());
    Ok(())
}

/// LSL.
pub(crate) fn lsl<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let found = visible(m, op, SHOWN_BY_LSL)?;
    if let Some(found) = &found {
        operand::write(m, op, 0, T::truncate(found.descriptor.limit()))?;
    }
    finish(m, found.is_some());
    Ok(())
}

/// VERR.
pub(crate) fn verr(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let found = find(m, op, 0)?;
    let readable =
        found.is_some_and(|f| f.is_readable() && (f.is_conforming() || f.is_reachable(m)));
    finish(m, readable);
    Ok(())
}

/// VERW.
pub(crate) fn verw(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let found = find(m, op, 0)?;
    let writable = found.is_some_and(|f| f.is_writable_data() && f.is_reachable(m));
    finish(m, writable);
    Ok(())
}

/// ARPL: raises the RPL of operand 0 to that of operand 1.
pub(crate) fn arpl(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    if !m.cpu.in_protected_mode() {
        return Err(Exception::UNDEFINED);
    }
    let floor = operand::read::<u16>(m, op, 1)? & 3;
    let selector = operand::read::<u16>(m, op, 0)?;
    let raised = selector & 3 < floor;
    if raised {
        // Only then is memory written: a read-only page does no harm otherwise.
        operand::write(m, op, 0, selector & !3 | floor)?;
    }
    m.cpu.flags.set(Eflags::ZF, raised);
    Ok(())
}
