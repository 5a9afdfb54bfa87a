//! Descriptor-table registers and the task register: LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR.

use crate::access;
use crate::descriptor;
use crate::exception::Exception;
use crate::handlers::segments::store_word;
use crate::mode::require_ring0;
use crate::op::Op;
use crate::operand;
use crate::transfer;
use machine::cpu::TableRegister;
use machine::{Machine, Selector};

/// With a 16-bit operand size LGDT and LIDT load 24 bits of base.
const NARROW_BASE: u32 = 0x00ff_ffff;

fn load(m: &mut Machine, op: &Op, wide: bool) -> Result<TableRegister, Exception> {
    require_ring0(m)?;
    let place = operand::place(m, op);
    let limit: u16 = place.read(m)?;
    let base: u32 = place.after(op, 2).read(m)?;
    m.counters.privileged += 1;
    Ok(TableRegister { base: base & if wide { u32::MAX } else { NARROW_BASE }, limit })
}

/// All six bytes at any operand size.
fn store(m: &mut Machine, op: &Op, table: TableRegister) -> Result<(), Exception> {
    let mut bytes = [0; 6];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    let place = operand::place(m, op);
    access::write_bytes(m, place.segment, place.offset, &bytes)?;
    m.counters.sensitive += 1;
    Ok(())
}

/// LGDT.
pub(crate) fn lgdt<const WIDE: bool>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    m.cpu.gdtr = load(m, op, WIDE)?;
    Ok(())
}

/// LIDT.
pub(crate) fn lidt<const WIDE: bool>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    m.cpu.idtr = load(m, op, WIDE)?;
    Ok(())
}

/// SGDT.
pub(crate) fn sgdt(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    store(m, op, m.cpu.gdtr)
}

/// SIDT.
pub(crate) fn sidt(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    store(m, op, m.cpu.idtr)
}

/// Real and virtual-8086 mode do not know LLDT, LTR, SLDT and STR.
fn require_protected_mode(m: &Machine) -> Result<(), Exception> {
    if m.cpu.in_protected_mode() { Ok(()) } else { Err(Exception::UNDEFINED) }
}

/// LLDT.
pub(crate) fn lldt(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_protected_mode(m)?;
    require_ring0(m)?;
    let selector = Selector(operand::read::<u16>(m, op, 0)?);
    m.cpu.ldtr =
        descriptor::local_table(m, selector, Exception::protection, Exception::not_present)?;
    m.counters.privileged += 1;
    Ok(())
}

/// Loads LDTR; false, and nothing is changed, where LLDT would raise an exception.
pub fn load_local_table(m: &mut Machine, selector: Selector) -> bool {
    let loaded =
        descriptor::local_table(m, selector, Exception::protection, Exception::not_present);
    let Ok(table) = loaded else { return false };
    m.cpu.ldtr = table;
    m.counters.privileged += 1;
    true
}

/// LTR: the TSS becomes busy.
pub(crate) fn ltr(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_protected_mode(m)?;
    require_ring0(m)?;
    let selector = Selector(operand::read::<u16>(m, op, 0)?);
    if selector.is_local() {
        return Err(Exception::protection(descriptor::code(selector)));
    }
    let found = descriptor::fetch(m, selector, Exception::protection)?;
    if !matches!(found.system_type(), Some(1 | 9)) {
        return Err(Exception::protection(found.code()));
    }
    transfer::check_present(&found)?;
    found.set_busy(m, true)?;
    let mut tr = found.to_system_segment();
    tr.set_attributes(tr.attributes() | 2);
    m.cpu.tr = tr;
    m.counters.privileged += 1;
    Ok(())
}

/// SLDT.
pub(crate) fn sldt(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_protected_mode(m)?;
    store_word(m, op, u32::from(m.cpu.ldtr.selector))?;
    m.counters.sensitive += 1;
    Ok(())
}

/// STR.
pub(crate) fn str(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_protected_mode(m)?;
    store_word(m, op, u32::from(m.cpu.tr.selector))?;
    m.counters.sensitive += 1;
    Ok(())
}
