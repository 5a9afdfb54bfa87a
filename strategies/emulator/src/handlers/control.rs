//! Control and debug registers, the TLB, caches, HLT (Intel SDM volume 3, chapter 2).

use crate::exception::Exception;
use crate::handlers::segments::store_word;
use crate::mode::{self, require_ring0};
use crate::op::Op;
use crate::operand;
use crate::paging;
use machine::cpu::{Cr0, Cr4, Dr6, Dr7};
use machine::{LinearAddress, Machine};

/// The number of the control or debug register that operand `number` names.
fn named(op: &Op, number: u32) -> usize {
    op.instruction.op_register(number).number()
}

/// Raises #UD for control registers that do not exist, else #GP outside of CPL 0.
fn check_control(m: &Machine, number: usize) -> Result<(), Exception> {
    if !matches!(number, 0 | 2 | 3 | 4) {
        return Err(Exception::UNDEFINED);
    }
    require_ring0(m)
}

/// MOV from a control register.
pub(crate) fn mov_from_control(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let number = named(op, 1);
    check_control(m, number)?;
    let value = match number {
        0 => m.cpu.cr0.bits(),
        2 => m.cpu.cr2,
        3 => m.cpu.cr3,
        _ => m.cpu.cr4.bits(),
    };
    m.counters.privileged += 1;
    operand::write(m, op, 0, value)
}

/// MOV to a control register.
pub(crate) fn mov_to_control(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let number = named(op, 0);
    check_control(m, number)?;
    let value: u32 = operand::read(m, op, 1)?;
    match number {
        0 => write_cr0(m, value)?,
        2 => m.cpu.cr2 = value,
        3 => write_cr3(m, value)?,
        _ => write_cr4(m, value)?,
    }
    m.counters.control_register_writes += 1;
    Ok(())
}

/// CR0. Reserved bits are ignored; what paging rests on flushes the TLB.
fn write_cr0(m: &mut Machine, value: u32) -> Result<(), Exception> {
    let new = Cr0::from_bits_truncate(value) | Cr0::ET;
    let paging_unprotected = new.contains(Cr0::PG) && !new.contains(Cr0::PE);
    let uncached_write_back = new.contains(Cr0::NW) && !new.contains(Cr0::CD);
    if paging_unprotected || uncached_write_back {
        return Err(Exception::PROTECTION);
    }
    let changed = m.cpu.cr0 ^ new;
    let loads_pdptes = changed.intersects(Cr0::PG | Cr0::CD | Cr0::NW);
    if new.contains(Cr0::PG) && m.cpu.cr4.contains(Cr4::PAE) && loads_pdptes {
        m.cpu.pdptes = paging::load_pdptes(m, m.cpu.cr3)?;
    }
    m.cpu.cr0 = new;
    if changed.intersects(Cr0::PG) {
        mode::flush_tlb(m);
    } else if changed.intersects(Cr0::WP) {
        // The CPU checks WP at each access; the software TLB has it in its permissions.
        m.tlb.flush();
    }
    mode::update(m);
    Ok(())
}

/// CR3: a new address space. Under PAE the first level is loaded at once.
fn write_cr3(m: &mut Machine, value: u32) -> Result<(), Exception> {
    if m.cpu.paging() && m.cpu.cr4.contains(Cr4::PAE) {
        m.cpu.pdptes = paging::load_pdptes(m, value)?;
    }
    m.cpu.cr3 = value;
    mode::flush_tlb(m);
    Ok(())
}

/// CR4, of which each model has the bits that it announces.
fn write_cr4(m: &mut Machine, value: u32) -> Result<(), Exception> {
    let new = Cr4::from_bits_retain(value);
    if !m.cpu.model.cr4_mask().contains(new) {
        return Err(Exception::PROTECTION);
    }
    let paging_changed = (m.cpu.cr4 ^ new).intersects(Cr4::PSE | Cr4::PAE | Cr4::PGE);
    if m.cpu.paging() && new.contains(Cr4::PAE) && paging_changed {
        m.cpu.pdptes = paging::load_pdptes(m, m.cpu.cr3)?;
    }
    m.cpu.cr4 = new;
    if paging_changed {
        mode::flush_tlb(m);
    }
    Ok(())
}

/// CLTS.
pub(crate) fn clts(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    m.cpu.cr0.remove(Cr0::TS);
    m.counters.control_register_writes += 1;
    Ok(())
}

/// SMSW: 16 bits of CR0, or all of it to a 32-bit register.
pub(crate) fn smsw(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    store_word(m, op, m.cpu.cr0.bits())?;
    m.counters.sensitive += 1;
    Ok(())
}

/// LMSW: PE, MP, EM and TS; it cannot leave protected mode.
pub(crate) fn lmsw(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    let value = u32::from(operand::read::<u16>(m, op, 0)?);
    let loaded = Cr0::MP | Cr0::EM | Cr0::TS;
    let kept = m.cpu.cr0 - loaded;
    m.cpu.cr0 = kept | Cr0::from_bits_truncate(value) & (loaded | Cr0::PE);
    m.counters.control_register_writes += 1;
    Ok(())
}

/// The debug register that `number` means, if it may be touched: DR4 and DR5 are aliases unless
/// CR4.DE is set, and DR7.GD guards all (Intel SDM volume 3, 17.2).
fn check_debug(m: &mut Machine, number: usize) -> Result<usize, Exception> {
    require_ring0(m)?;
    let aliased = matches!(number, 4 | 5);
    if aliased && m.cpu.cr4.contains(Cr4::DE) {
        return Err(Exception::UNDEFINED);
    }
    if m.cpu.debug[7] & Dr7::GD != 0 {
        m.cpu.pending_debug |= Dr6::BD;
        return Err(Exception::DEBUG);
    }
    Ok(if aliased { number + 2 } else { number & 7 })
}

/// MOV from a debug register.
pub(crate) fn mov_from_debug(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let number = check_debug(m, named(op, 1))?;
    m.counters.privileged += 1;
    operand::write(m, op, 0, m.cpu.debug[number])
}

/// MOV to a debug register; reserved bits keep their values.
pub(crate) fn mov_to_debug(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    const DR6_WRITABLE: u32 = Dr6::BD | Dr6::BS | Dr6::BT | 0xf;
    const DR7_ZERO: u32 = 0xd800;
    let number = check_debug(m, named(op, 0))?;
    let value: u32 = operand::read(m, op, 1)?;
    m.cpu.debug[number] = match number {
        6 => value & DR6_WRITABLE | Dr6::RESET,
        7 => value & !DR7_ZERO | Dr7::RESET,
        _ => value,
    };
    mode::update(m);
    m.counters.privileged += 1;
    Ok(())
}

/// INVLPG: the operand is an address alone; no segment limit applies.
pub(crate) fn invlpg(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    let base = m.cpu.segment(op.segment()).base;
    m.tlb.flush_page(LinearAddress(base.wrapping_add(op.offset(m))));
    m.counters.tlb_invalidations += 1;
    Ok(())
}

/// INVD and WBINVD: there is no cache to be seen.
pub(crate) fn flush_cache(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    m.counters.privileged += 1;
    Ok(())
}

/// HLT.
pub(crate) fn hlt(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    m.cpu.halted = true;
    m.counters.halts += 1;
    Ok(())
}
