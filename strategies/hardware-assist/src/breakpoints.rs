//! Catches the instructions that a KVM without hardware behind it gets wrong and tells nobody.
//!
//! Those are the MOV to CR0 that turns paging on, answered with a #GP of KVM's own ([`Reach::paging`]),
//! and CPUID ([`Reach::cpuid`]). The monitor looks for them in memory and sets the four debug
//! registers on what it finds; the emulator executes them. When there are too many it executes the
//! whole guest. Code that the guest unpacks later in the same run is not seen. With hardware behind
//! KVM nothing of this is used.

use crate::error::refused;
use crate::reach::Reach;
use crate::vcpu::Vcpu;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};
use machine::PhysicalAddress;
use machine::memory::Memory;
use rustix::fs::{SeekFrom, seek};
use std::ops::Range;
use strategy::Error;

/// Debug registers.
const MOST: usize = 4;

/// Bytes looked at in one piece.
const PIECE: u64 = 1 << 20;

/// Whether an instruction to be caught begins here: MOV CR0, r32 (0F 22 and a ModRM byte C0 to C7)
/// or CPUID (0F A2). Bytes that only look so cost a debug register and do no harm.
fn is_caught(reach: Reach, bytes: &[u8]) -> bool {
    match bytes {
        [0x0f, 0x22, 0xc0..=0xc7] => !reach.paging,
        [0x0f, 0xa2, _] => !reach.cpuid,
        _ => false,
    }
}

/// Sets breakpoints on all such instructions in `memory`, and catches INT3 where a debugger may have
/// planted it. False when there are more instructions than can be caught.
pub(crate) fn set(
    vcpu: &Vcpu,
    memory: &Memory,
    reach: Reach,
    debugged: bool,
) -> Result<bool, Error> {
    let sites = if reach.needs_breakpoints() { sites(memory, reach) } else { Vec::new() };
    let enabled = sites.len() <= MOST;
    let mut debug = kvm_guest_debug::default();
    if enabled && !sites.is_empty() {
        debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        for (index, &site) in sites.iter().enumerate() {
            debug.arch.debugreg[index] = site;
            // G0 to G3; types and lengths of zero are instruction breakpoints.
            debug.arch.debugreg[7] |= 2 << (2 * index);
        }
    }
    if debugged {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    }
    vcpu.fd().set_guest_debug(&debug).map_err(refused("KVM_SET_GUEST_DEBUG"))?;
    Ok(enabled)
}

/// Where the instruction stands, up to one more than can be caught. Without paging, physical
/// addresses are linear ones.
fn sites(memory: &Memory, reach: Reach) -> Vec<u64> {
    let mut sites = Vec::new();
    for (start, length, offset, _) in memory.areas() {
        for (from, to) in written(memory, offset, offset + length) {
            let start = start.0 + (from - offset);
            look(memory, start..start + (to - from), reach, &mut sites);
        }
    }
    sites
}

/// The parts of the file between `from` and `to` that were ever written. The rest is zeros, and to
/// read it would be to allocate it.
fn written(memory: &Memory, from: u64, to: u64) -> Vec<(u64, u64)> {
    let file = memory.file();
    let mut parts = Vec::new();
    let mut at = from;
    while at < to {
        let Ok(data) = seek(file, SeekFrom::Data(at)) else { break };
        let hole = seek(file, SeekFrom::Hole(data)).unwrap_or(to).min(to);
        if data < hole {
            parts.push((data, hole));
        }
        at = hole.max(data);
    }
    parts
}

/// Looks through a range of physical addresses.
fn look(memory: &Memory, range: Range<u64>, reach: Reach, sites: &mut Vec<u64>) {
    let mut buffer = Vec::new();
    let mut at = range.start;
    while at < range.end && sites.len() <= MOST {
        // Two bytes more than the step, for an instruction that lies across two pieces.
        buffer.resize((range.end - at).min(PIECE + 2) as usize, 0);
        memory.read(PhysicalAddress(at), &mut buffer);
        let here = buffer.windows(3).zip(at..).filter(|(bytes, _)| is_caught(reach, bytes));
        sites.extend(here.map(|(_, address)| address).take(MOST + 1));
        at += PIECE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_PAGING: Reach = Reach { paging: false, user_mode: true, cpuid: true };
    const NO_CPUID: Reach = Reach { paging: true, user_mode: true, cpuid: false };

    #[test]
    fn all_moves_to_cr0_are_found() {
        let mut memory = Memory::new(4 << 20, &[]).unwrap();
        let places = [0x1000, 0x10_0000 + PIECE - 1, 0x3f_fffd];
        for place in places {
            assert!(memory.write(PhysicalAddress(place), &[0x0f, 0x22, 0xc3]));
        }
        assert!(memory.write(PhysicalAddress(0x2000), &[0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0]));
        assert!(memory.write(PhysicalAddress(0x3000), &[0x0f, 0x22]));
        assert_eq!(sites(&memory, NO_PAGING), places);
        assert!(sites(&memory, NO_CPUID).is_empty());
    }

    #[test]
    fn cpuid_is_found_where_kvm_gets_it_wrong() {
        let mut memory = Memory::new(1 << 20, &[]).unwrap();
        assert!(memory.write(PhysicalAddress(0x1234), &[0x0f, 0xa2, 0xc3]));
        assert_eq!(sites(&memory, NO_CPUID), [0x1234]);
        assert!(sites(&memory, NO_PAGING).is_empty());
    }

    #[test]
    fn the_search_ends_when_there_are_too_many() {
        let mut memory = Memory::new(2 << 20, &[]).unwrap();
        assert!(memory.write(PhysicalAddress(0x1000), &[0x0f, 0x22, 0xc0].repeat(100)));
        assert!(sites(&memory, NO_PAGING).len() > MOST);
    }
}
