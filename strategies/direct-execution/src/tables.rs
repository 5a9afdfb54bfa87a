//! The page tables that the window was filled from, as they were then.
//!
//! The guest flushes everything at each change of its address space, but most of what the window shows
//! is the kernel's, and the same in all of them. A comparison of each page table with its copy tells
//! that a thousand times as fast as looking every page up again.

use machine::cpu::{Cr0, Cr4};
use machine::{Machine, PhysicalAddress};
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: usize = 4096;
const PRESENT: u64 = 1;
const ACCESSED: u64 = 1 << 5;
const ACCESSED_AND_DIRTY: u64 = 0x60;
const LARGE: u64 = 1 << 7;

/// How linear addresses are translated, apart from the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mode {
    cr0: Cr0,
    cr4: Cr4,
}

impl Mode {
    fn of(m: &Machine) -> Mode {
        let cr4 = m.cpu.cr4 & (Cr4::PAE | Cr4::PSE);
        Mode { cr0: m.cpu.cr0 & (Cr0::PG | Cr0::WP), cr4 }
    }

    fn is_wide(self) -> bool {
        self.cr4.contains(Cr4::PAE)
    }

    /// Bytes of linear address space for each entry of a directory.
    fn reach(self) -> u64 {
        if self.is_wide() { 2 << 20 } else { 4 << 20 }
    }

    /// Bytes of an entry.
    fn size(self) -> usize {
        if self.is_wide() { 8 } else { 4 }
    }

    /// The directory entry for a linear address.
    fn directory_entry(self, m: &Machine, linear: u64) -> u64 {
        if !self.is_wide() {
            let at = u64::from(m.cpu.cr3 & !0xfff) + (linear >> 22) * 4;
            return m.memory.read_u32(PhysicalAddress(at)).into();
        }
        let pointer = m.cpu.pdptes[(linear >> 30) as usize & 3];
        if pointer & PRESENT == 0 {
            return 0;
        }
        let at = (pointer & 0xf_ffff_f000) + (linear >> 21 & 511) * 8;
        m.memory.read_u64(PhysicalAddress(at))
    }

    /// The page table that a directory entry leads to.
    fn table(self, entry: u64) -> Option<PhysicalAddress> {
        let has_large = self.is_wide() || self.cr4.contains(Cr4::PSE);
        let is_table = entry & PRESENT != 0 && !(has_large && entry & LARGE != 0);
        is_table.then_some(PhysicalAddress(entry & 0xf_ffff_f000))
    }
}

/// A directory entry, and the page table that it leads to.
#[derive(Debug)]
struct Part {
    entry: u64,
    table: Option<Box<[u8; PAGE]>>,
}

impl Part {
    fn read(m: &Machine, mode: Mode, linear: u64) -> Part {
        let entry = mode.directory_entry(m, linear);
        let table = mode.table(entry).map(|physical| {
            let mut copy = Box::new([0; PAGE]);
            m.memory.read(physical, &mut copy[..]);
            copy
        });
        Part { entry, table }
    }
}

/// What a flush may have changed.
pub(crate) enum Changes {
    /// The translations of these linear addresses.
    Of(Vec<Range<u64>>),
    /// All, and nothing is remembered any more.
    All,
}

/// Copies of page tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    mode: Option<Mode>,
    /// By the first linear address that they are about.
    parts: BTreeMap<u64, Part>,
}

impl Tables {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.mode = None;
        self.parts.clear();
    }

    /// Notes that these pages are shown as the tables have them now.
    pub(crate) fn remember(&mut self, m: &Machine, pages: &Range<u64>) {
        let mode = *self.mode.get_or_insert(Mode::of(m));
        if !mode.cr0.contains(Cr0::PG) {
            return;
        }
        let (reach, size) = (mode.reach(), mode.size());
        let mut start = pages.start;
        while start < pages.end {
            let first = start & !(reach - 1);
            let end = pages.end.min(first + reach);
            let Some(part) = self.parts.get_mut(&first) else {
                self.parts.insert(first, Part::read(m, mode, first));
                start = end;
                continue;
            };
            if let (Some(copy), Some(physical)) = (&mut part.table, mode.table(part.entry)) {
                let index = |at: u64| ((at - first) as usize / PAGE) * size;
                let entries = index(start)..index(end - 1) + size;
                let from = PhysicalAddress(physical.0 + entries.start as u64);
                m.memory.read(from, &mut copy[entries]);
            }
            start = end;
        }
    }

    /// About what the tables may say something else now.
    pub(crate) fn changes(&mut self, m: &Machine) -> Changes {
        let mode = Mode::of(m);
        if self.mode.is_some_and(|before| before != mode) {
            self.mode = None;
            self.parts.clear();
            return Changes::All;
        }
        let mut changed = Vec::new();
        for (&first, part) in &mut self.parts {
            let entry = mode.directory_entry(m, first);
            if (entry ^ part.entry) & !ACCESSED != 0 {
                changed.push(first..first + mode.reach());
                *part = Part::read(m, mode, first);
            } else if let (Some(copy), Some(physical)) = (&mut part.table, mode.table(entry)) {
                compare(m, mode, first, physical, copy, &mut changed);
            }
        }
        Changes::Of(changed)
    }
}

/// Finds the entries of a page table that are not as its copy has them, and brings that up to date.
fn compare(
    m: &Machine,
    mode: Mode,
    first: u64,
    physical: PhysicalAddress,
    copy: &mut [u8; PAGE],
    changed: &mut Vec<Range<u64>>,
) {
    let mut now = [0; PAGE];
    m.memory.read(physical, &mut now);
    if now == *copy {
        return;
    }
    let entries = copy.chunks(mode.size()).zip(now.chunks(mode.size()));
    for (at, (before, after)) in entries.enumerate() {
        let (before, after) = (whole(before), whole(after));
        // Bits that were set are no change, and what was not present was not shown.
        if before | (after & ACCESSED_AND_DIRTY) != after && before & PRESENT != 0 {
            let start = first + (at * PAGE) as u64;
            changed.push(start..start + PAGE as u64);
        }
    }
    *copy = now;
}

fn whole(bytes: &[u8]) -> u64 {
    let mut entry = [0; 8];
    entry[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(entry)
}
