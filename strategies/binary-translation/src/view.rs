//! One window and what it shows: the guest's address space as its kernel or its user may use it.
//!
//! The window is a translation look-aside buffer, no more: it starts empty, a touch faults, the
//! guest's page tables are walked (accessed and dirty bits set as the CPU would), and the page is
//! mapped with the rights that it has now; writable only once it is dirty, and never while it holds
//! translated code.

use host::Error;
use host::address_window::{AddressWindow, WINDOW_BYTES};
use host::low_memory::Protection;
use host::runs::{PAGE, Page, Runs};
use machine::cpu::Cr0;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine};
use std::ops::Range;

/// Runs before a window is emptied: with a gap behind each they are twice as many mappings, of which
/// the kernel usually allows 65,530 to all windows together.
const MOST_RUNS: usize = 4 << 10;
/// Bytes on each side of a fault that are looked at for mapping along.
const AROUND: u64 = 32 * PAGE;
/// The same while paging is off, when neighbours are always alike.
const AROUND_UNPAGED: u64 = 32 << 20;
/// Bytes of the longest access of translated code.
const LONGEST_ACCESS: u64 = 16;

/// What a touch of the window came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// The page is shown now: execute the instruction again.
    Mapped,
    /// The same, and it had been shown before: the guest keeps changing its mapping.
    MappedAgain,
    /// The emulator has to execute the instruction: the guest's own page fault, a device, ROM or
    /// translated code that is written.
    Emulate,
}

/// A window and its contents.
#[derive(Debug)]
pub(crate) struct View {
    window: AddressWindow,
    shown: Runs,
    /// Two bits for each page: whether it was ever shown, and whether as a writable one.
    seen: Vec<u64>,
    /// Where nothing is shown, as was last found out: pages are often hidden again and again.
    blank: Range<u64>,
    /// What the last touch that mapped something mapped.
    pub(crate) mapped: Range<u64>,
}

impl View {
    pub(crate) fn new() -> Result<View, Error> {
        let seen = vec![0; (WINDOW_BYTES / PAGE / 32) as usize];
        Ok(View {
            window: AddressWindow::new()?,
            shown: Runs::default(),
            seen,
            blank: 0..0,
            mapped: 0..0,
        })
    }

    /// The host address of linear address 0.
    pub(crate) fn base(&self) -> u64 {
        self.window.base()
    }

    /// Shows nothing any more.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.shown.clear();
        self.window.unmap(&(0..WINDOW_BYTES))
    }

    /// Hides pages.
    pub(crate) fn hide(&mut self, pages: Range<u64>) -> Result<(), Error> {
        if self.blank.start <= pages.start && pages.end <= self.blank.end {
            return Ok(());
        }
        self.blank = pages.clone();
        if !self.shown.remove(pages.clone()) {
            return Ok(());
        }
        // Where the hole makes one mapping too many, all go.
        self.window.unmap(&pages).or_else(|_| self.clear())
    }

    /// Forgets that these pages were ever shown: they are another address space's from now on.
    pub(crate) fn forget(&mut self, pages: &Range<u64>) {
        // Of whole entries of page directories, so of whole words.
        const PAGES: u64 = 32 * PAGE;
        self.seen[(pages.start / PAGES) as usize..(pages.end / PAGES) as usize].fill(0);
    }

    /// Takes the right to write a page of the file, wherever it is shown: it now holds code.
    pub(crate) fn withhold(&mut self, offset: u64) -> Result<(), Error> {
        let shown: Vec<(u64, Page)> = self
            .shown
            .iter()
            .filter(|(_, first)| first.writable)
            .filter_map(|(run, first)| {
                let at = run.start + offset.checked_sub(first.offset)?;
                run.contains(&at).then(|| (at, first.beyond(at - run.start)))
            })
            .collect();
        for (at, page) in shown {
            self.window.protect(&(at..at + PAGE), Protection::Read)?;
            self.shown.insert(at..at + PAGE, Page { writable: false, ..page });
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn is_blank(&self) -> bool {
        self.shown.is_empty()
    }

    /// Handles a fault at `address`, at the CPU's current privilege.
    pub(crate) fn touch(
        &mut self,
        m: &mut Machine,
        address: u32,
        write: bool,
    ) -> Result<Touch, Error> {
        let page = u64::from(address) & !(PAGE - 1);
        if marks_too_early(m, address, write)
            || emulator::access_page(m, LinearAddress(address), write).is_none()
        {
            return Ok(Touch::Emulate);
        }
        let Some(found) = look_up(m, page) else { return Ok(Touch::Emulate) };
        if write && !found.writable || self.shown.get(page) == Some(found) {
            return Ok(Touch::Emulate);
        }
        if self.shown.len() >= MOST_RUNS {
            self.clear()?;
        }
        let before = self.shown.get(page);
        let run = self.run_around(m, page, found);
        let first = found.beyond(run.start.wrapping_sub(page));
        self.mapped = run.clone();
        self.show(m, run, first)?;
        let again = match before {
            Some(before) => !before.writable && found.writable && self.was_seen(page, true),
            None => self.was_seen(page, false),
        };
        self.see(page, found.writable);
        Ok(if again { Touch::MappedAgain } else { Touch::Mapped })
    }

    fn was_seen(&self, page: u64, writable: bool) -> bool {
        let index = page / PAGE * 2 + u64::from(writable);
        self.seen[(index / 64) as usize] & 1 << (index % 64) != 0
    }

    fn see(&mut self, page: u64, writable: bool) {
        let bits = if writable { 3 } else { 1 };
        self.seen[(page / PAGE / 32) as usize] |= bits << (page / PAGE % 32 * 2);
    }

    /// Neighbours that can be mapped in the same call: contiguous in the file, with the same rights,
    /// already accessed (and dirty, where the page is), so that no bit has to be set for them.
    fn run_around(&self, m: &mut Machine, page: u64, found: Page) -> Range<u64> {
        let around = if m.cpu.paging() { AROUND } else { AROUND_UNPAGED };
        let lowest = page.saturating_sub(around);
        let highest = (page + PAGE + around).min(WINDOW_BYTES);
        self.shown.around(page, found, lowest..highest, |at| look_up(m, at))
    }

    fn show(&mut self, m: &Machine, run: Range<u64>, first: Page) -> Result<(), Error> {
        let protection = if first.writable { Protection::Write } else { Protection::Read };
        self.blank = 0..0;
        let map = |window: &mut AddressWindow| {
            window.map(&run, m.memory.file(), first.offset, protection)
        };
        if map(&mut self.window).is_err() {
            // One mapping too many, perhaps, for the limit that this host has.
            self.clear()?;
            map(&mut self.window)?;
        }
        self.shown.insert(run, first);
        Ok(())
    }
}

/// Whether the access may go on into a page that refuses it, after this one was marked for it: the
/// emulator, which looks at both first, has to do the marking.
fn marks_too_early(m: &mut Machine, address: u32, write: bool) -> bool {
    PAGE - (u64::from(address) & (PAGE - 1)) < LONGEST_ACCESS
        && emulator::mapping(m, LinearAddress(address))
            .is_some_and(|found| !found.accessed || write && !found.dirty)
}

/// What the window should show at `page`: nothing for what is unmapped, not yet accessed, not the
/// user's while he runs, or a device.
fn look_up(m: &mut Machine, page: u64) -> Option<Page> {
    let found = emulator::mapping(m, LinearAddress(page as u32))?;
    let is_user = m.cpu.cpl == 3;
    if !found.accessed || is_user && !found.user {
        return None;
    }
    let (offset, ram) = match m.memory.page_kind(found.physical) {
        PageKind::Ram(offset) => (offset, true),
        PageKind::Rom(offset) => (offset, false),
        PageKind::Device => return None,
    };
    let allowed = found.writable || !is_user && !m.cpu.cr0.contains(Cr0::WP);
    let writable = ram && allowed && found.dirty && !m.memory.is_watched(found.physical);
    Some(Page { offset, writable, user: is_user })
}
