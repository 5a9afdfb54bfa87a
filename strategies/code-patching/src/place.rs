//! Linear addresses that the guest does not use, for stubs and for the virtual CPU.
//!
//! With paging on, those whose page directory entry is not present; with paging off, those where no
//! memory is. The guest may come to use them later: that is looked for at each change to its ring 3 and
//! each look at the machine, and everything moves elsewhere then.

use crate::area::{self, Area};
use crate::view::PAGE;
use direct_execution::Shadow;
use machine::cpu::Cr4;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine, PhysicalAddress};
use std::ops::Range;

/// What one page directory entry maps, or two with PAE.
const UNIT: u32 = 4 << 20;
const PRESENT: u32 = 1;
const FIRST: u32 = 64 << 10;

/// Whether the guest uses nothing within the 4 MiB around an address.
pub(crate) fn is_free(m: &Machine, address: u32) -> bool {
    let unit = address & !(UNIT - 1);
    if !m.cpu.paging() {
        let at = |offset: u32| PhysicalAddress(u64::from(unit) + u64::from(offset));
        return [0, UNIT / 2, UNIT - PAGE as u32]
            .into_iter()
            .all(|offset| m.memory.page_kind(at(offset)) == PageKind::Device);
    }
    if m.cpu.cr4.contains(Cr4::PAE) {
        return [unit, unit + UNIT / 2].into_iter().all(|half| {
            let directory = m.cpu.pdptes[(half >> 30) as usize];
            directory & u64::from(PRESENT) == 0 || {
                let entry = (directory & 0x000f_ffff_ffff_f000) + u64::from(half >> 21 & 511) * 8;
                m.memory.read_u32(PhysicalAddress(entry)) & PRESENT == 0
            }
        });
    }
    let entry = u64::from(m.cpu.cr3 & !0xfff) + u64::from(unit >> 22) * 4;
    m.memory.read_u32(PhysicalAddress(entry)) & PRESENT == 0
}

/// Whether the guest uses nothing of an area.
pub(crate) fn is_area_free(m: &Machine, base: u32) -> bool {
    (0..area::BYTES / UNIT).all(|unit| is_free(m, base + unit * UNIT))
}

/// A place for stubs of code at `code`, below `ceiling`.
pub(crate) fn for_area(m: &Machine, shadow: &Shadow, code: u32, ceiling: u64) -> Option<u32> {
    Area::places(code).find(|&base| {
        let end = u64::from(base) + u64::from(area::BYTES);
        let mut units = (base..=base + (area::BYTES - 1)).step_by(UNIT as usize);
        let taken = units.any(|at| shadow.is_taken(at.into()) || shadow.is_taken_for_code(at));
        let shown = base.wrapping_add(shadow.code_shift());
        let is_free = is_area_free(m, base) && is_area_free(m, shown);
        base >= FIRST && end <= ceiling && !taken && is_free
    })
}

/// The 4 MiB around an address, by where they begin.
pub(crate) fn unit(address: u32) -> u32 {
    address & !(UNIT - 1)
}

/// The same, as a range.
pub(crate) fn around(address: u32) -> Range<u64> {
    let start = u64::from(unit(address));
    start..start + u64::from(UNIT)
}

/// How far above the guest's code to show copies of it: such that the guest uses nothing where those
/// of `units` come to lie.
pub(crate) fn for_code(
    m: &Machine,
    shadow: &Shadow,
    units: impl Iterator<Item = u32> + Clone,
) -> Option<u32> {
    /// A little above is most often free, and above what guest ring 3 reaches.
    const FAVOURITE: u32 = 0x20;
    let shifts = (FAVOURITE..0x100).chain(1..FAVOURITE).map(|shift| shift * area::BYTES);
    let mut shifts = shifts.filter(|shift| {
        units.clone().all(|unit| {
            let place = unit.wrapping_add(*shift);
            place >= FIRST && is_free(m, place) && !shadow.is_taken(place.into())
        })
    });
    shifts.next()
}

/// A place for the virtual CPU: above guest ring 3's memory, so that segment limits can keep that out.
/// In the upper half that is the first gap above the kernel's code; otherwise the highest there is.
pub(crate) fn for_page(m: &Machine, is_taken: impl Fn(u32) -> bool) -> Option<u32> {
    const HALF: u32 = 1 << 31;
    const HIGHEST: u32 = 0xff80_0000;
    let code = m.cpu.instruction_address().0;
    let above = (code >= HALF).then(|| {
        let first = (code & !(UNIT - 1)).saturating_add(UNIT);
        (first..HIGHEST).step_by(UNIT as usize)
    });
    let below = (HALF..=HIGHEST).rev().step_by(UNIT as usize).map(|at| at & !(UNIT - 1));
    above.into_iter().flatten().chain(below).find(|&at| is_free(m, at) && !is_taken(at))
}

/// Where stubs may end at most: guest ring 3 does not reach above its ceiling.
pub(crate) fn highest(m: &Machine, shadow: &Shadow) -> u64 {
    match shadow.lowest_supervisor() {
        Some(lowest) if m.cpu.cpl == 3 => lowest,
        _ => 0xff00_0000,
    }
}

/// The page of RAM or ROM behind a linear address that the guest has accessed: its offset in the
/// memory file, which for RAM is its physical address.
pub(crate) fn ram(m: &mut Machine, linear: LinearAddress) -> Option<u64> {
    let found = emulator::mapping(m, linear)?;
    match m.memory.page_kind(found.physical) {
        PageKind::Ram(offset) if found.accessed => Some(offset),
        _ => None,
    }
}

/// The bytes of the page at a linear address; zeroes where there is none.
pub(crate) fn read_page(m: &mut Machine, linear: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    if let Some(found) = emulator::mapping(m, LinearAddress(linear)) {
        m.memory.read(found.physical, &mut bytes);
    }
    bytes
}
