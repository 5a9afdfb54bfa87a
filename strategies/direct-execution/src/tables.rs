//! The page tables that the window was filled from, as they were then.
//!
//! The guest flushes everything at each change of its address space, but most of what the window shows
//! is the kernel's, and the same in all of them. A comparison of each page table with its copy tells
//! that a thousand times as fast as looking every page up again.

use machine::cpu::{Cr0, Cr4};
use machine::page_table::{self, entry, is_other};
use machine::{Machine, PhysicalAddress};
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: usize = 4096;
const PRESENT: u64 = 1;
const ACCESSED: u64 = 1 << 5;
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

    /// Whether it is what a directory entry leads to. One that is not accessed yet has to become so.
    fn is_of(&self, entry: u64) -> bool {
        self.entry | (entry & ACCESSED) == entry
    }

    /// Takes over what the table has about these pages, counted from its first, and says which of them
    /// were something else before.
    fn remember(
        &mut self,
        m: &Machine,
        mode: Mode,
        pages: &Range<u64>,
        mut was_other: impl FnMut(u64),
    ) {
        let (Some(copy), Some(table)) = (&mut self.table, mode.table(self.entry)) else { return };
        for page in pages.clone().step_by(PAGE) {
            let at = page as usize / PAGE * mode.size();
            let before = &mut copy[at..at + mode.size()];
            let mut now = [0; 8];
            let now = &mut now[..mode.size()];
            m.memory.read(PhysicalAddress(table.0 + at as u64), now);
            if is_other(entry(before), entry(now)) {
                was_other(page);
            }
            before.copy_from_slice(now);
        }
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
    /// Linear addresses about which they said something else when more was shown.
    doubtful: Vec<Range<u64>>,
}

impl Tables {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.mode = None;
        self.parts.clear();
        self.doubtful.clear();
    }

    /// Notes that these pages are shown as the tables have them now.
    pub(crate) fn remember(&mut self, m: &Machine, pages: &Range<u64>) {
        let mode = *self.mode.get_or_insert(Mode::of(m));
        if !mode.cr0.contains(Cr0::PG) {
            return;
        }
        let reach = mode.reach();
        let mut start = pages.start;
        while start < pages.end {
            let first = start & !(reach - 1);
            let end = pages.end.min(first + reach);
            let entry = mode.directory_entry(m, first);
            match self.parts.get_mut(&first) {
                Some(part) if part.is_of(entry) => {
                    part.entry = entry;
                    part.remember(m, mode, &(start - first..end - first), |page| {
                        self.doubtful.push(first + page..first + page + PAGE as u64);
                    });
                }
                known => {
                    if known.is_some() {
                        // The guest has changed it, and not flushed yet.
                        self.doubtful.push(first..first + reach);
                    }
                    self.parts.insert(first, Part::read(m, mode, first));
                }
            }
            start = end;
        }
    }

    /// About what the tables may say something else now.
    pub(crate) fn changes(&mut self, m: &Machine) -> Changes {
        let mode = Mode::of(m);
        if self.mode.is_some_and(|before| before != mode) {
            self.clear();
            return Changes::All;
        }
        let mut changed = std::mem::take(&mut self.doubtful);
        for (&first, part) in &mut self.parts {
            let entry = mode.directory_entry(m, first);
            if !part.is_of(entry) {
                changed.push(first..first + mode.reach());
                *part = Part::read(m, mode, first);
            } else if let (Some(copy), Some(physical)) = (&mut part.table, mode.table(entry)) {
                page_table::follow(&m.memory, physical, mode.size(), copy, |at| {
                    let start = first + (at * PAGE) as u64;
                    changed.push(start..start + PAGE as u64);
                });
            }
        }
        Changes::Of(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::MachineConfig;

    const DIRECTORY: u32 = 0x1000;
    const TABLE: u32 = 0x2000;
    const OTHER: u32 = 0x3000;
    /// Present, writable, the user's, accessed.
    const BITS: u32 = 0x27;
    const LINEAR: u64 = 0x40_0000;
    const PAGES: Range<u64> = LINEAR..LINEAR + PAGE as u64;

    fn machine() -> Machine {
        let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
        let mut m = Machine::new(&config).unwrap();
        m.cpu.cr0 |= Cr0::PE | Cr0::PG;
        m.cpu.cr3 = DIRECTORY;
        m
    }

    fn write(m: &mut Machine, at: u32, value: u32) {
        assert!(m.memory.write(PhysicalAddress(at.into()), &value.to_le_bytes()));
    }

    fn set_directory(m: &mut Machine, table: u32) {
        write(m, DIRECTORY + 4, table);
    }

    fn changed(tables: &mut Tables, m: &Machine) -> Vec<Range<u64>> {
        match tables.changes(m) {
            Changes::Of(changed) => changed,
            Changes::All => panic!("the mode is the same"),
        }
    }

    #[test]
    fn only_what_has_changed_is_looked_up_again() {
        let mut m = machine();
        let mut tables = Tables::default();
        set_directory(&mut m, TABLE | BITS);
        write(&mut m, TABLE, 0x8000 | BITS);
        tables.remember(&m, &PAGES);
        assert!(changed(&mut tables, &m).is_empty());
        write(&mut m, TABLE, 0x8000 | BITS | 0x40);
        assert!(changed(&mut tables, &m).is_empty(), "it has become dirty");
        write(&mut m, TABLE, 0x9000 | BITS);
        assert_eq!(changed(&mut tables, &m), [PAGES]);
        assert!(changed(&mut tables, &m).is_empty());
    }

    #[test]
    fn a_table_that_comes_and_goes_between_two_flushes_is_seen() {
        let mut m = machine();
        let mut tables = Tables::default();
        write(&mut m, TABLE, 0x8000 | BITS);
        write(&mut m, OTHER, 0x9000 | BITS);
        // In another address space nothing is there.
        set_directory(&mut m, OTHER | BITS);
        tables.remember(&m, &PAGES);
        set_directory(&mut m, 0);
        assert!(!changed(&mut tables, &m).is_empty());
        // A table becomes present, which needs no flush, and its page is shown; the next address
        // space has none again.
        set_directory(&mut m, TABLE | BITS);
        tables.remember(&m, &PAGES);
        set_directory(&mut m, 0);
        assert!(!changed(&mut tables, &m).is_empty());
    }

    #[test]
    fn two_tables_between_two_flushes_make_all_doubtful() {
        let mut m = machine();
        let mut tables = Tables::default();
        write(&mut m, TABLE, 0x8000 | BITS);
        write(&mut m, OTHER + 4, 0x9000 | BITS);
        set_directory(&mut m, TABLE | BITS);
        tables.remember(&m, &PAGES);
        set_directory(&mut m, OTHER | BITS);
        tables.remember(&m, &(PAGES.end..PAGES.end + PAGE as u64));
        assert!(changed(&mut tables, &m).contains(&(LINEAR..2 * LINEAR)));
        assert!(changed(&mut tables, &m).is_empty());
    }
}
