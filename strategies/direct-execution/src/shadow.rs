//! The shadow of the guest's page tables: which guest pages the window shows, and how.
//!
//! The window is a translation look-aside buffer, no more: it starts empty, a touch faults, the
//! guest's page tables are walked (accessed and dirty bits set as the CPU would), and the page is
//! mapped with the rights that it has now; writable only once it is dirty. It need not follow the
//! guest's page tables until the guest flushes. A flush of everything does not empty it: every page
//! is looked up again and only those that changed are unmapped, at some 50 ns a page against 8 µs
//! for mapping it anew.
//!
//! Guest kernel and guest user share the one window. Pages that the user must not touch are made
//! inaccessible while the guest is at CPL 3, in runs of neighbours.

use host::low_memory::Protection;
use host::window::LowWindow;
use machine::cpu::Cr0;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine};
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: u64 = 4096;

/// Mappings before the window is emptied; the kernel's usual limit is 65,530 for the process.
const MOST_PAGES: usize = 48 << 10;

/// Pages around a fault that are looked at for mapping along.
const AROUND: u64 = 16;
/// The same while paging is off, when neighbours are always alike.
const AROUND_UNPAGED: u64 = 1 << 13;

/// One page of the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    /// Its offset in the guest's memory file.
    offset: u64,
    writable: bool,
    /// Whether the guest's user may touch it as it is mapped.
    user: bool,
}

impl Page {
    fn protection(self) -> Protection {
        if self.writable { Protection::Write } else { Protection::Read }
    }
}

/// What a touch of the window came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// The page is there now: execute the instruction again.
    Mapped,
    /// The emulator has to execute the instruction: the guest's own page fault, a device, ROM that
    /// is written, or a page that the host does not let us map.
    Emulate,
}

/// The window and what is in it.
#[derive(Debug)]
pub(crate) struct Shadow {
    window: LowWindow,
    pages: BTreeMap<u64, Page>,
    /// The privilege that the window shows now.
    user: bool,
}

impl Shadow {
    pub(crate) fn new() -> Result<Shadow, host::Error> {
        Ok(Shadow { window: LowWindow::new()?, pages: BTreeMap::new(), user: false })
    }

    /// Forgets everything that it shows.
    pub(crate) fn clear(&mut self) -> Result<(), host::Error> {
        self.pages.clear();
        self.window.unmap(&(u64::from(self.window.start())..1 << 32))
    }

    /// Follows what the guest flushed since the last call.
    pub(crate) fn follow_flushes(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let forgotten = m.tlb.take_forgotten();
        if forgotten.all {
            self.revalidate(m)?;
        } else {
            for address in forgotten.pages {
                self.unmap(u64::from(address.0) & !(PAGE - 1))?;
            }
        }
        Ok(())
    }

    fn unmap(&mut self, page: u64) -> Result<(), host::Error> {
        match self.pages.remove(&page) {
            Some(_) => self.window.unmap(&(page..page + PAGE)),
            None => Ok(()),
        }
    }

    /// Unmaps the pages that the guest's page tables no longer map so.
    fn revalidate(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let mut changed = Vec::new();
        for (&page, shown) in &self.pages {
            if look_up(m, page).is_none_or(|now| !covers(now, *shown)) {
                changed.push(page);
            }
        }
        for run in runs(changed.into_iter()) {
            let pages: Vec<u64> = self.pages.range(run.clone()).map(|(&page, _)| page).collect();
            for page in pages {
                self.pages.remove(&page);
            }
            self.window.unmap(&run)?;
        }
        Ok(())
    }

    /// Shows the window as the guest's kernel or user may see it.
    pub(crate) fn set_privilege(&mut self, user: bool) -> Result<(), host::Error> {
        if self.user == user {
            return Ok(());
        }
        self.user = user;
        let supervisor = |page: &Page| !page.user;
        if user {
            let pages = self.pages.iter().filter(|(_, page)| supervisor(page)).map(|(&at, _)| at);
            for run in runs(pages) {
                self.window.protect(&run, Protection::None)?;
            }
        } else {
            for writable in [false, true] {
                let shown = |page: &Page| supervisor(page) && page.writable == writable;
                let pages = self.pages.iter().filter(|(_, page)| shown(page)).map(|(&at, _)| at);
                let protection = if writable { Protection::Write } else { Protection::Read };
                for run in runs(pages) {
                    self.window.protect(&run, protection)?;
                }
            }
        }
        Ok(())
    }

    /// Handles a fault at `address`.
    pub(crate) fn touch(
        &mut self,
        m: &mut Machine,
        address: u32,
        write: bool,
    ) -> Result<Touch, host::Error> {
        let linear = LinearAddress(address);
        let page = u64::from(address) & !(PAGE - 1);
        if page < u64::from(self.window.start()) {
            return Ok(Touch::Emulate);
        }
        if emulator::access_page(m, linear, write).is_none() {
            return Ok(Touch::Emulate);
        }
        let Some(found) = look_up(m, page) else { return Ok(Touch::Emulate) };
        if write && !found.writable {
            return Ok(Touch::Emulate);
        }
        if self.pages.get(&page) == Some(&found) {
            // The host faults on a page as it should be: no progress would come of mapping it again.
            return Ok(Touch::Emulate);
        }
        if self.pages.len() >= MOST_PAGES {
            self.clear()?;
        }
        let run = self.run_around(m, page, found);
        self.show(m, run, page, found)?;
        Ok(Touch::Mapped)
    }

    /// Neighbours that can be mapped in the same call: contiguous in the file, with the same rights,
    /// already accessed (and dirty, where the page is), so that no bit has to be set for them.
    fn run_around(&self, m: &mut Machine, page: u64, found: Page) -> Range<u64> {
        let fits = |m: &mut Machine, at: u64| {
            let offset = found.offset.wrapping_add(at).wrapping_sub(page);
            !self.pages.contains_key(&at) && look_up(m, at) == Some(Page { offset, ..found })
        };
        let (mut start, mut end) = (page, page + PAGE);
        let most = if m.cpu.paging() { AROUND } else { AROUND_UNPAGED };
        while start > u64::from(self.window.start())
            && page - start < most * PAGE
            && fits(m, start - PAGE)
        {
            start -= PAGE;
        }
        while end < 1 << 32 && end - page < most * PAGE && fits(m, end) {
            end += PAGE;
        }
        start..end
    }

    fn show(
        &mut self,
        m: &mut Machine,
        run: Range<u64>,
        page: u64,
        found: Page,
    ) -> Result<(), host::Error> {
        let offset = found.offset - (page - run.start);
        self.window.map(&run, m.memory.file(), offset, found.protection())?;
        for at in run.clone().step_by(PAGE as usize) {
            self.pages.insert(at, Page { offset: offset + (at - run.start), ..found });
        }
        Ok(())
    }
}

/// What the window should show at `page`: nothing for what is unmapped, not yet accessed, or a device.
fn look_up(m: &mut Machine, page: u64) -> Option<Page> {
    let found = emulator::mapping(m, LinearAddress(page as u32))?;
    if !found.accessed {
        return None;
    }
    let (offset, ram) = match m.memory.page_kind(found.physical) {
        PageKind::Ram(offset) => (offset, true),
        PageKind::Rom(offset) => (offset, false),
        PageKind::Device => return None,
    };
    let supervisor_writes = m.cpu.cpl != 3 && !m.cpu.cr0.contains(Cr0::WP);
    let writable = ram && found.dirty && (found.writable || supervisor_writes);
    // A page that is writable only because WP is clear is hidden from the user altogether.
    let user = found.user && (found.writable || !writable);
    Some(Page { offset, writable, user })
}

/// Whether a page shown so may stay when the guest's tables now say `now`.
fn covers(now: Page, shown: Page) -> bool {
    now.offset == shown.offset && (now.writable || !shown.writable) && (now.user || !shown.user)
}

/// Joins ascending pages into runs of neighbours.
fn runs(pages: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += PAGE,
            _ => runs.push(page..page + PAGE),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined() {
        let pages = [0x1000, 0x2000, 0x3000, 0x8000, 0xa000, 0xb000];
        assert_eq!(runs(pages.into_iter()), [0x1000..0x4000, 0x8000..0x9000, 0xa000..0xc000]);
    }

    #[test]
    fn rights_that_shrank_do_not_cover() {
        let page = Page { offset: 0x5000, writable: true, user: true };
        assert!(covers(page, Page { writable: false, ..page }));
        assert!(!covers(Page { writable: false, ..page }, page));
        assert!(!covers(Page { user: false, ..page }, page));
        assert!(!covers(Page { offset: 0x6000, ..page }, page));
    }
}
