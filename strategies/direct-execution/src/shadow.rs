//! The shadow of the guest's page tables: which guest pages the window shows, and how.
//!
//! The window is a translation look-aside buffer, no more: it starts empty, a touch faults, the
//! guest's page tables are walked (accessed and dirty bits set as the CPU would), and the page is
//! mapped with the rights that it has now; writable only once it is dirty. It need not follow the
//! guest's page tables until the guest flushes. A flush of everything does not empty it: every page
//! is looked up again and only those that changed are unmapped, at some nanoseconds a page against
//! 8 µs for mapping it anew.
//!
//! Guest kernel and guest user share the one window. Pages that the user must not touch are made
//! inaccessible while the guest is at CPL 3, in runs of neighbours.

use crate::straddle;
use host::low_memory::Protection;
use host::runs::{PAGE, Page, Runs, joined};
use host::window::LowWindow;
use machine::cpu::Cr0;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine};
use std::ops::Range;

/// Runs before the window is emptied: with a gap behind each they are twice as many mappings, of
/// which the kernel usually allows 65,530.
const MOST_RUNS: usize = 24 << 10;

/// Bytes on each side of a fault that are looked at for mapping along.
const AROUND: u64 = 16 * PAGE;
/// The same while paging is off, when neighbours are always alike.
const AROUND_UNPAGED: u64 = 32 << 20;

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
    shown: Runs,
    /// The privilege that the window shows now.
    user: bool,
}

impl Shadow {
    pub(crate) fn new() -> Result<Shadow, host::Error> {
        Ok(Shadow { window: LowWindow::new()?, shown: Runs::default(), user: false })
    }

    /// Forgets everything that it shows.
    pub(crate) fn clear(&mut self) -> Result<(), host::Error> {
        self.shown.clear();
        self.window.unmap(&(u64::from(self.window.start())..1 << 32))
    }

    /// Follows what the guest flushed since the last call.
    pub(crate) fn follow_flushes(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let forgotten = m.tlb.take_forgotten();
        if forgotten.all {
            return self.revalidate(m);
        }
        for address in forgotten.pages {
            let page = u64::from(address.0) & !(PAGE - 1);
            self.unmap(page..page + PAGE)?;
        }
        Ok(())
    }

    fn unmap(&mut self, pages: Range<u64>) -> Result<(), host::Error> {
        if !self.shown.remove(pages.clone()) {
            return Ok(());
        }
        // Where the hole makes one mapping too many, all go.
        self.window.unmap(&pages).or_else(|_| self.clear())
    }

    /// Unmaps the pages that the guest's page tables no longer map so.
    fn revalidate(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let mut changed = Vec::new();
        for (run, first) in self.shown.iter() {
            for page in run.clone().step_by(PAGE as usize) {
                let shown = first.beyond(page - run.start);
                if look_up(m, page).is_none_or(|now| !covers(now, shown)) {
                    changed.push(page..page + PAGE);
                }
            }
        }
        joined(changed.into_iter()).into_iter().try_for_each(|pages| self.unmap(pages))
    }

    /// Shows the window as the guest's kernel or user may see it.
    pub(crate) fn set_privilege(&mut self, user: bool) -> Result<(), host::Error> {
        if self.user == user {
            return Ok(());
        }
        self.user = user;
        if user {
            return self.protect(|_| true, Protection::None);
        }
        self.protect(|page| !page.writable, Protection::Read)?;
        self.protect(|page| page.writable, Protection::Write)
    }

    /// Changes the rights to the supervisor's pages.
    fn protect(
        &mut self,
        concerns: impl Fn(Page) -> bool,
        protection: Protection,
    ) -> Result<(), host::Error> {
        let runs = self.shown.iter().filter(|(_, page)| !page.user && concerns(*page));
        for pages in joined(runs.map(|(run, _)| run)) {
            self.window.protect(&pages, protection)?;
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
        let page = u64::from(address) & !(PAGE - 1);
        if page < u64::from(self.window.start()) {
            return Ok(Touch::Emulate);
        }
        if straddle::is_refused_behind(m, address, write)
            || emulator::access_page(m, LinearAddress(address), write).is_none()
        {
            return Ok(Touch::Emulate);
        }
        let Some(found) = look_up(m, page) else { return Ok(Touch::Emulate) };
        if write && !found.writable {
            return Ok(Touch::Emulate);
        }
        if self.shown.get(page) == Some(found) {
            // The host faults on a page as it should be: no progress would come of mapping it again.
            return Ok(Touch::Emulate);
        }
        if self.shown.len() >= MOST_RUNS {
            self.clear()?;
        }
        let run = self.run_around(m, page, found);
        let first = found.beyond(run.start.wrapping_sub(page));
        self.show(m, run, first)?;
        Ok(Touch::Mapped)
    }

    /// Neighbours that can be mapped in the same call: contiguous in the file, with the same rights,
    /// already accessed (and dirty, where the page is), so that no bit has to be set for them.
    fn run_around(&self, m: &mut Machine, page: u64, found: Page) -> Range<u64> {
        let around = if m.cpu.paging() { AROUND } else { AROUND_UNPAGED };
        let lowest = page.saturating_sub(around).max(self.window.start().into());
        let highest = (page + PAGE + around).min(1 << 32);
        self.shown.around(page, found, lowest..highest, |at| look_up(m, at))
    }

    fn show(&mut self, m: &Machine, run: Range<u64>, first: Page) -> Result<(), host::Error> {
        let protection = if first.writable { Protection::Write } else { Protection::Read };
        let map =
            |window: &mut LowWindow| window.map(&run, m.memory.file(), first.offset, protection);
        if map(&mut self.window).is_err() {
            // One mapping too many, perhaps, for the limit that this host has.
            self.clear()?;
            map(&mut self.window)?;
        }
        self.shown.insert(run, first);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_shrank_do_not_cover() {
        let page = Page { offset: 0x5000, writable: true, user: true };
        assert!(covers(page, Page { writable: false, ..page }));
        assert!(!covers(Page { writable: false, ..page }, page));
        assert!(!covers(Page { user: false, ..page }, page));
        assert!(!covers(Page { offset: 0x6000, ..page }, page));
    }
}
