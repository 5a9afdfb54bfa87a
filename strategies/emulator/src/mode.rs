//! What follows when privilege, flags or control registers change.

use crate::access;
use crate::debug;
use crate::exception::Exception;
use machine::Machine;
use machine::cpu::Eflags;

/// Sets the current privilege level.
pub(crate) fn set_cpl(m: &mut Machine, cpl: u8) {
    m.cpu.cpl = cpl;
    update(m);
}

/// Replaces the EFLAGS bits in `mask`.
pub(crate) fn set_flags(m: &mut Machine, bits: u32, mask: Eflags) {
    m.cpu.flags.merge(bits, mask);
    if mask.intersects(Eflags::AC) {
        update(m);
    }
}

/// To be called when CPL, EFLAGS.AC, CR0.AM or DR7 changed: decides whether every memory access
/// has to take the slow path, where alignment and data breakpoints are checked.
pub(crate) fn update(m: &mut Machine) {
    let bypassed = access::alignment_checked(m) || debug::enabled(m);
    m.tlb.set_bypassed(bypassed);
}

/// Raises #GP unless the CPU runs at CPL 0 (Intel SDM volume 3, 5.9).
#[inline]
pub(crate) fn require_ring0(m: &Machine) -> Result<(), Exception> {
    if m.cpu.cpl == 0 { Ok(()) } else { Err(Exception::PROTECTION) }
}

/// Forgets all translations because the guest asked for it.
pub(crate) fn flush_tlb(m: &mut Machine) {
    m.counters.tlb_flushes += 1;
    m.tlb.flush();
}
