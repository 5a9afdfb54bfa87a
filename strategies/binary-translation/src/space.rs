//! Address spaces: two windows each, kept across loads of CR3 and revalidated on return.
//!
//! Of every page-table page that a window was filled from, a copy is kept. When the guest flushes
//! its TLB, or comes back to the address space, the pages are compared with their copies, and only
//! what changed is hidden. Accessed and dirty bits that were set in between are no change; those
//! that were cleared are.

use crate::mode::Mode;
use crate::view::{Touch, View};
use host::Error;
use machine::cpu::{Cr0, Cr4};
use machine::{Machine, PhysicalAddress, page_table};
use std::ops::Range;

const PAGE: usize = 4096;
const FOUR_MIB: u64 = 4 << 20;
const TWO_MIB: u64 = 2 << 20;
/// Page-table pages that are remembered; one more empties the windows.
const MOST_TABLES: usize = 1 << 10;

/// What an address space is told from others by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpaceKey {
    cr0: Cr0,
    cr4: Cr4,
    cr3: u32,
    pdptes: [u64; 4],
}

impl SpaceKey {
    /// The current one. Without paging there is just one.
    pub(crate) fn of(m: &Machine) -> SpaceKey {
        let cpu = &m.cpu;
        if !cpu.paging() {
            let (cr0, cr4) = (Cr0::empty(), Cr4::empty());
            return SpaceKey { cr0, cr4, cr3: 0, pdptes: [0; 4] };
        }
        let cr4 = cpu.cr4 & (Cr4::PAE | Cr4::PSE);
        let pdptes = if cr4.contains(Cr4::PAE) { cpu.pdptes } else { [0; 4] };
        SpaceKey { cr0: cpu.cr0 & (Cr0::PG | Cr0::WP), cr4, cr3: cpu.cr3, pdptes }
    }

    fn is_paged(&self) -> bool {
        self.cr0.contains(Cr0::PG)
    }

    fn is_pae(&self) -> bool {
        self.cr4.contains(Cr4::PAE)
    }

    /// Bytes of an entry of its tables.
    fn entry_bytes(&self) -> usize {
        if self.is_pae() { 8 } else { 4 }
    }

    /// The page directory for a linear address.
    fn directory(&self, linear: u64) -> Option<u64> {
        match self.is_pae() {
            true => {
                let pdpte = self.pdptes[(linear >> 30) as usize];
                (pdpte & 1 != 0).then_some(pdpte & 0xf_ffff_f000)
            }
            false => Some(u64::from(self.cr3 & !0xfff)),
        }
    }
}

/// A page-table page as it was when windows were filled from it.
#[derive(Debug)]
struct Table {
    physical: u64,
    /// The linear address of its first entry's region.
    linear: u64,
    /// Bytes of linear address space for each entry.
    reach: u64,
    copy: Box<[u8; PAGE]>,
}

/// An address space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) key: SpaceKey,
    views: [View; 2],
    tables: Vec<Table>,
    /// Regions of 4 MiB that are, at least in part, large pages.
    large: [u64; 16],
    /// Linear pages that code was executed from.
    code: Vec<u64>,
    /// Numbers under which targets are looked up here, by mode.
    epochs: Vec<(Mode, u32)>,
    /// How many of the cache's crossings were checked against this space.
    pub(crate) verified: usize,
    /// When it was last activated.
    pub(crate) used: u64,
}

/// What revalidation found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Changes {
    /// Something that code was executed from.
    pub(crate) code: bool,
}

impl Space {
    pub(crate) fn new(key: SpaceKey) -> Result<Space, Error> {
        Ok(Space {
            key,
            views: [View::new()?, View::new()?],
            tables: Vec::new(),
            large: [0; 16],
            code: vec![0; 1 << 14],
            epochs: Vec::new(),
            verified: 0,
            used: 0,
        })
    }

    /// Becomes another address space. What both have in common stays shown: the kernel, as a rule.
    pub(crate) fn turn_into(&mut self, m: &Machine, key: SpaceKey) -> Result<(), Error> {
        let SpaceKey { cr3, pdptes, .. } = key;
        let is_alike = key.is_paged() && SpaceKey { cr3, pdptes, ..self.key } == key;
        self.key = key;
        self.end_epochs();
        self.verified = 0;
        if !is_alike {
            return self.clear();
        }
        for table in self.tables.iter_mut().filter(|table| table.is_directory()) {
            let directory = key.directory(table.linear).map(PhysicalAddress);
            match directory.filter(|&directory| m.memory.host_page(directory).is_some()) {
                Some(directory) => table.physical = directory.0,
                None => return self.clear(),
            }
        }
        let changed = self.follow_directories(m);
        for range in &changed {
            self.views.iter_mut().for_each(|view| view.forget(range));
        }
        self.hide(changed).map(|_| ())
    }

    /// Shows nothing, and remembers nothing.
    fn clear(&mut self) -> Result<(), Error> {
        self.tables.clear();
        self.code.fill(0);
        self.views.iter_mut().try_for_each(View::clear)
    }

    /// Hides what has changed.
    fn hide(&mut self, changed: Vec<Range<u64>>) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        for range in changed {
            changes.code |= self.take_code_in(&range);
            self.views.iter_mut().try_for_each(|view| view.hide(range.clone()))?;
        }
        Ok(changes)
    }

    /// The base of the window for a privilege.
    pub(crate) fn window(&self, user: bool) -> u64 {
        self.views[usize::from(user)].base()
    }

    /// The epoch of a mode here; `fresh` gives out a new one.
    #[inline]
    pub(crate) fn epoch(&mut self, mode: Mode, fresh: impl FnOnce() -> u32) -> u32 {
        match self.epochs.iter().find(|(of, _)| *of == mode) {
            Some(&(_, epoch)) => epoch,
            None => {
                let epoch = fresh();
                self.epochs.push((mode, epoch));
                epoch
            }
        }
    }

    /// Makes every epoch of this space one of the past.
    pub(crate) fn end_epochs(&mut self) {
        self.epochs.clear();
    }

    /// Notes that code is executed from the page of `linear`.
    pub(crate) fn note_code(&mut self, m: &Machine, linear: u32) {
        let page = linear >> 12;
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        if self.code[word] & bit == 0 {
            self.code[word] |= bit;
            let page = u64::from(page) << 12;
            self.remember(m, &(page..page + 0x1000));
        }
    }

    /// Whether code was executed from the page of `linear`; the next that is will be noted anew.
    pub(crate) fn take_code(&mut self, linear: u32) -> bool {
        let page = linear >> 12;
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        let was_set = self.code[word] & bit != 0;
        self.code[word] &= !bit;
        was_set
    }

    /// Handles a fault in a window.
    pub(crate) fn touch(
        &mut self,
        m: &mut Machine,
        linear: u32,
        write: bool,
    ) -> Result<Touch, Error> {
        let view = &mut self.views[usize::from(m.cpu.cpl == 3)];
        let touch = view.touch(m, linear, write)?;
        if touch != Touch::Emulate {
            // Neighbours, too: their entries may have changed since the copy was made.
            let mapped = view.mapped.clone();
            self.remember(m, &mapped);
        }
        Ok(touch)
    }

    /// Takes the right to write a page of the file that now holds code.
    pub(crate) fn withhold(&mut self, offset: u64) -> Result<(), Error> {
        self.views.iter_mut().try_for_each(|view| view.withhold(offset))
    }

    /// Follows INVLPG. Returns the linear pages that it was about.
    pub(crate) fn invalidate(&mut self, linear: u32) -> Result<Range<u64>, Error> {
        let region = linear >> 22;
        let pages = if self.large[(region / 64) as usize] & 1 << (region % 64) != 0 {
            let start = u64::from(linear) & !(FOUR_MIB - 1);
            start..start + FOUR_MIB
        } else {
            let start = u64::from(linear) & !0xfff;
            start..start + 0x1000
        };
        self.views.iter_mut().try_for_each(|view| view.hide(pages.clone()))?;
        Ok(pages)
    }

    /// Follows a flush of everything, or a return to this space.
    pub(crate) fn revalidate(&mut self, m: &Machine) -> Result<Changes, Error> {
        if self.tables.len() > MOST_TABLES {
            self.clear()?;
            return Ok(Changes { code: true });
        }
        let mut changed = self.follow_directories(m);
        for table in self.tables.iter_mut().filter(|table| !table.is_directory()) {
            table.compare(m, &self.key, &mut changed);
        }
        self.hide(changed)
    }

    /// Finds what has changed in the directories, and forgets the tables that they led to there.
    fn follow_directories(&mut self, m: &Machine) -> Vec<Range<u64>> {
        let mut changed = Vec::new();
        for table in self.tables.iter_mut().filter(|table| table.is_directory()) {
            table.compare(m, &self.key, &mut changed);
        }
        let is_kept = |linear| !changed.iter().any(|range: &Range<u64>| range.contains(&linear));
        self.tables.retain(|table| table.is_directory() || is_kept(table.linear));
        changed
    }

    fn take_code_in(&mut self, range: &Range<u64>) -> bool {
        let pages = range.clone().step_by(PAGE);
        let mut any = false;
        for page in pages {
            any |= self.take_code(page as u32);
        }
        any
    }

    /// Remembers the page-table entries that these pages were translated by, as they are now.
    fn remember(&mut self, m: &Machine, pages: &Range<u64>) {
        if !self.key.is_paged() {
            return;
        }
        let reach = if self.key.is_pae() { TWO_MIB } else { FOUR_MIB };
        let mut start = pages.start;
        while start < pages.end {
            let end = pages.end.min((start & !(reach - 1)) + reach);
            self.remember_part(m, &(start..end));
            start = end;
        }
    }

    /// The same for pages that have their page table in common.
    fn remember_part(&mut self, m: &Machine, pages: &Range<u64>) {
        let linear = pages.start;
        if self.key.is_pae() {
            let Some(directory) = self.key.directory(linear) else { return };
            self.remember_table(m, directory, linear & !((1 << 30) - 1), TWO_MIB, pages, 8);
            let entry = m.memory.read_u64(PhysicalAddress(directory + (linear >> 21 & 0x1ff) * 8));
            if entry & 0x80 != 0 {
                return self.note_large(linear);
            }
            let table = entry & 0xf_ffff_f000;
            return self.remember_table(m, table, linear & !(TWO_MIB - 1), 4096, pages, 8);
        }
        let Some(directory) = self.key.directory(linear) else { return };
        self.remember_table(m, directory, 0, FOUR_MIB, pages, 4);
        let entry = u64::from(m.memory.read_u32(PhysicalAddress(directory + (linear >> 22) * 4)));
        if entry & 0x80 != 0 && self.key.cr4.contains(Cr4::PSE) {
            return self.note_large(linear);
        }
        let table = entry & 0xffff_f000;
        self.remember_table(m, table, linear & !(FOUR_MIB - 1), 4096, pages, 4);
    }

    fn note_large(&mut self, linear: u64) {
        let region = linear >> 22;
        self.large[(region / 64) as usize] |= 1 << (region % 64);
    }

    fn remember_table(
        &mut self,
        m: &Machine,
        physical: u64,
        linear: u64,
        reach: u64,
        pages: &Range<u64>,
        size: usize,
    ) {
        let index = |at: u64| ((at - linear) / reach) as usize * size;
        let entries = index(pages.start)..index(pages.end - 1) + size;
        let known = self.tables.iter_mut().rev().find(|table| {
            table.physical == physical && table.linear == linear && table.reach == reach
        });
        if let Some(table) = known {
            let now = &mut table.copy[entries.clone()];
            m.memory.read(PhysicalAddress(physical + entries.start as u64), now);
            return;
        }
        let mut copy = Box::new([0xff; PAGE]);
        m.memory.read(PhysicalAddress(physical), &mut copy[..]);
        self.tables.push(Table { physical, linear, reach, copy });
    }
}

impl Table {
    /// Finds the entries that changed since the copy was made, and brings the copy up to date.
    fn compare(&mut self, m: &Machine, key: &SpaceKey, changed: &mut Vec<Range<u64>>) {
        let Table { physical, linear, reach, .. } = *self;
        let (physical, size) = (PhysicalAddress(physical), key.entry_bytes());
        page_table::follow(&m.memory, physical, size, &mut self.copy, |at| {
            let start = linear + at as u64 * reach;
            changed.push(start..start + reach);
        });
    }

    fn is_directory(&self) -> bool {
        self.reach != PAGE as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::MachineConfig;

    const DIRECTORIES: [u32; 2] = [0x1000, 0x2000];
    const KERNEL_TABLE: u32 = 0x3000;
    const USER_TABLES: [u32; 2] = [0x4000, 0x5000];
    const KERNEL: u32 = 0xc000_0000;
    const USER: u32 = 0x0804_8000;
    /// Present, writable, the user's, accessed and dirty.
    const BITS: u32 = 0x67;

    fn write(m: &mut Machine, at: u32, value: u32) {
        assert!(m.memory.write(PhysicalAddress(at.into()), &value.to_le_bytes()));
    }

    /// Two address spaces with a kernel in common, and a page of the user's in each.
    fn machine() -> Machine {
        let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
        let mut m = Machine::new(&config).unwrap();
        m.cpu.cr0 |= Cr0::PE | Cr0::PG;
        for (directory, table) in DIRECTORIES.into_iter().zip(USER_TABLES) {
            write(&mut m, directory + (KERNEL >> 22) * 4, KERNEL_TABLE | BITS);
            write(&mut m, directory + (USER >> 22) * 4, table | BITS);
            write(&mut m, table + (USER >> 12 & 0x3ff) * 4, (table + 0x10000) | BITS);
            write(&mut m, table + 0x10000, table);
        }
        write(&mut m, KERNEL_TABLE, 0x20000 | BITS);
        write(&mut m, 0x20000, 0x1234);
        m
    }

    fn enter(m: &mut Machine, directory: u32) -> SpaceKey {
        m.cpu.cr3 = directory;
        m.tlb.flush();
        SpaceKey::of(m)
    }

    /// What the kernel's window has at an address once the page is shown.
    fn shown(space: &mut Space, m: &mut Machine, linear: u32) -> (Touch, u32) {
        let touch = space.touch(m, linear, false).unwrap();
        let host = (space.window(false) + u64::from(linear)) as *const u32;
        // SAFETY: the page is shown now, or was before.
        (touch, unsafe { host.read_volatile() })
    }

    #[test]
    fn a_space_that_turns_into_another_keeps_what_both_have() {
        let mut m = machine();
        let key = enter(&mut m, DIRECTORIES[0]);
        let mut space = Space::new(key).unwrap();
        assert_eq!(shown(&mut space, &mut m, USER), (Touch::Mapped, USER_TABLES[0]));
        assert_eq!(shown(&mut space, &mut m, KERNEL), (Touch::Mapped, 0x1234));
        space.note_code(&m, USER);

        let key = enter(&mut m, DIRECTORIES[1]);
        space.turn_into(&m, key).unwrap();
        // Nothing is left to be shown.
        assert_eq!(shown(&mut space, &mut m, KERNEL), (Touch::Emulate, 0x1234));
        // For the first time here, whatever was at the same address in the other one.
        assert_eq!(shown(&mut space, &mut m, USER), (Touch::Mapped, USER_TABLES[1]));
        assert!(!space.take_code(USER));

        // The tables are followed that it has now, and no others.
        let unmap = |m: &mut Machine, table: u32| write(m, table + (USER >> 12 & 0x3ff) * 4, 0);
        space.note_code(&m, USER);
        unmap(&mut m, USER_TABLES[0]);
        assert_eq!(space.revalidate(&m).unwrap(), Changes { code: false });
        unmap(&mut m, USER_TABLES[1]);
        assert_eq!(space.revalidate(&m).unwrap(), Changes { code: true });
    }

    #[test]
    fn what_is_translated_otherwise_or_nowhere_starts_with_nothing() {
        for paging in [false, true] {
            let mut m = machine();
            let key = enter(&mut m, DIRECTORIES[0]);
            let mut space = Space::new(key).unwrap();
            shown(&mut space, &mut m, KERNEL);
            // Beyond memory, and what is read there is nobody's.
            let key = enter(&mut m, 0x8000_0000);
            m.cpu.cr0.set(Cr0::PG, paging);
            let key = if paging { key } else { SpaceKey::of(&m) };
            space.turn_into(&m, key).unwrap();
            assert!(space.tables.is_empty());
            assert!(space.views.iter().all(View::is_blank));
        }
    }
}
