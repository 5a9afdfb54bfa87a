//! CPUID, the time-stamp counter, model-specific registers.

use crate::exception::Exception;
use crate::mode::require_ring0;
use crate::op::Op;
use machine::Machine;
use machine::cpu::{Cr4, register};

/// CPUID, as the model answers.
pub(crate) fn cpuid(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    let leaf = m.cpu.model.cpuid(m.cpu.registers[register::EAX]);
    m.cpu.registers[register::EAX] = leaf.eax;
    m.cpu.registers[register::EBX] = leaf.ebx;
    m.cpu.registers[register::ECX] = leaf.ecx;
    m.cpu.registers[register::EDX] = leaf.edx;
    m.counters.sensitive += 1;
    Ok(())
}

fn set_edx_eax(m: &mut Machine, value: u64) {
    m.cpu.registers[register::EAX] = value as u32;
    m.cpu.registers[register::EDX] = (value >> 32) as u32;
}

/// RDTSC; CR4.TSD keeps it to CPL 0.
pub(crate) fn rdtsc(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    if m.cpu.cr4.contains(Cr4::TSD) {
        require_ring0(m)?;
    }
    let now = m.read_tsc();
    set_edx_eax(m, now);
    m.counters.sensitive += 1;
    Ok(())
}

/// RDPMC: no model has counters.
pub(crate) fn rdpmc(_m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    Err(Exception::PROTECTION)
}

/// Numbers of model-specific registers (Intel SDM volume 4).
mod msr {
    pub(super) const TIME_STAMP_COUNTER: u32 = 0x10;
    pub(super) const BIOS_SIGN_ID: u32 = 0x8b;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const PAT: u32 = 0x277;
}

/// RDMSR.
pub(crate) fn rdmsr(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    let number = m.cpu.registers[register::ECX];
    let value = match number {
        msr::TIME_STAMP_COUNTER => m.read_tsc(),
        msr::BIOS_SIGN_ID => m.cpu.msrs.bios_sign_id,
        msr::SYSENTER_CS..=msr::SYSENTER_EIP => {
            u64::from(m.cpu.msrs.sysenter[(number - msr::SYSENTER_CS) as usize])
        }
        msr::MISC_ENABLE => m.cpu.msrs.misc_enable,
        msr::PAT => m.cpu.msrs.pat,
        _ => return Err(Exception::PROTECTION),
    };
    set_edx_eax(m, value);
    m.counters.privileged += 1;
    Ok(())
}

/// WRMSR.
pub(crate) fn wrmsr(m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    require_ring0(m)?;
    let number = m.cpu.registers[register::ECX];
    let low = m.cpu.registers[register::EAX];
    let value = u64::from(low) | u64::from(m.cpu.registers[register::EDX]) << 32;
    match number {
        msr::TIME_STAMP_COUNTER => m.clock().set_tsc(value),
        msr::BIOS_SIGN_ID => m.cpu.msrs.bios_sign_id = value,
        msr::SYSENTER_CS..=msr::SYSENTER_EIP => {
            m.cpu.msrs.sysenter[(number - msr::SYSENTER_CS) as usize] = low;
        }
        msr::MISC_ENABLE => m.cpu.msrs.misc_enable = value,
        msr::PAT if is_page_attribute_table(value) => m.cpu.msrs.pat = value,
        _ => return Err(Exception::PROTECTION),
    }
    m.counters.privileged += 1;
    Ok(())
}

/// Whether all eight entries are memory types that exist (Intel SDM volume 3, 11.12.2).
fn is_page_attribute_table(value: u64) -> bool {
    value.to_le_bytes().iter().all(|entry| matches!(entry, 0 | 1 | 4 | 5 | 6 | 7))
}
