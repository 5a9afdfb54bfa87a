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
            self.views.iter_mut().try_for_each(View::clear)?;
            self.tables.clear();
            self.code.fill(0);
            return Ok(Changes { code: true });
        }
        let mut changed = Vec::new();
        let size = if self.key.is_pae() { 8 } else { 4 };
        for table in &mut self.tables {
            table.compare(m, size, &mut changed);
        }
        let mut changes = Changes::default();
        for range in changed {
            changes.code |= self.take_code_in(&range);
            self.views.iter_mut().try_for_each(|view| view.hide(range.clone()))?;
        }
        Ok(changes)
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
            let pdpte = m.cpu.pdptes[(linear >> 30) as usize];
            let directory = pdpte & 0xf_ffff_f000;
            self.remember_table(m, directory, linear & !((1 << 30) - 1), TWO_MIB, pages, 8);
            let entry = m.memory.read_u64(PhysicalAddress(directory + (linear >> 21 & 0x1ff) * 8));
            if entry & 0x80 != 0 {
                return self.note_large(linear);
            }
            let table = entry & 0xf_ffff_f000;
            return self.remember_table(m, table, linear & !(TWO_MIB - 1), 4096, pages, 8);
        }
        let directory = u64::from(m.cpu.cr3 & !0xfff);
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
    fn compare(&mut self, m: &Machine, size: usize, changed: &mut Vec<Range<u64>>) {
        let Table { linear, reach, .. } = *self;
        page_table::follow(&m.memory, PhysicalAddress(self.physical), size, &mut self.copy, |at| {
            let start = linear + at as u64 * reach;
            changed.push(start..start + reach);
        });
    }
}
