//! The shadow of the guest's page tables: which guest pages the window shows, and how.
//!
//! The window is a translation look-aside buffer, no more: it starts empty, a touch faults, the
//! guest's page tables are walked (accessed and dirty bits set as the CPU would), and the page is
//! mapped with the rights that it has now; writable only once it is dirty. It need not follow the
//! guest's page tables until the guest flushes. A flush of everything does not empty it: the page
//! tables are compared with what they were (`tables`), and only pages that changed are unmapped, for
//! mapping one anew takes 8 µs.
//!
//! Guest kernel and guest user share the one window. As long as all pages that the user must not touch
//! lie above all others, the limits of its segments keep it out (`ceiling`), and a change of privilege
//! costs nothing. Otherwise those pages are made inaccessible while the guest is at CPL 3, in runs of
//! neighbours.
//!
//! A page may be shown for execution alone, from a file of the monitor's ([`CodePage`]): data accesses
//! to it are faults, and the emulator's. Where the host has no memory that can be executed and not read,
//! such pages are shown at another place, which only the code segment leads to: its base is that much
//! higher ([`Shadow::set_code_shift`]), and data accesses meet the guest's own page. And ranges may be
//! taken that the guest does not use.

mod code;
mod flush;
mod privilege;

use crate::straddle;
use crate::tables::Tables;
use host::low_memory::Protection;
use host::runs::{PAGE, Page, Runs};
use host::window::LowWindow;
use machine::cpu::Cr0;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

/// Runs before the window is emptied: with a gap behind each they are twice as many mappings, of
/// which the kernel usually allows 65,530.
const MOST_RUNS: usize = 24 << 10;

/// Bytes on each side of a fault that are looked at for mapping along.
const AROUND: u64 = 16 * PAGE;
/// The same while paging is off, when neighbours are always alike.
const AROUND_UNPAGED: u64 = 32 << 20;
/// Bytes of a run that the host enters into its page tables at once. Of longer ones most may never be
/// touched, and the host would have to make memory for all.
const MOST_AT_ONCE: u64 = 1 << 20;

/// Flushes after which it is looked again what ring 3 must not touch: that takes longer than the flush.
const BETWEEN_SEARCHES: u32 = 64;

const END: u64 = 1 << 32;

/// What a touch of the window came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// The page is there now: execute the instruction again.
    Mapped,
    /// The emulator has to execute the instruction: the guest's own page fault, a device, ROM that
    /// is written, or a page that the host does not let us map.
    Emulate,
}

/// A page that is executed from the monitor's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodePage {
    /// The guest's page: its offset in the guest's memory file.
    pub offset: u64,
    /// The same of the page behind it, where an instruction reaches into that.
    pub behind: Option<u64>,
    /// The copy: its offset in the monitor's file.
    pub copy: usize,
}

impl CodePage {
    /// The guest's pages that it rests on, where it is at `page`.
    fn pages(&self, page: u64) -> Range<u64> {
        let behind = if self.behind.is_some() { PAGE } else { 0 };
        page..(page + PAGE + behind).min(END)
    }
}

/// A range that the monitor has taken for itself.
#[derive(Clone, Debug)]
struct Taken {
    range: Range<u64>,
    /// Whether guest ring 3 must not touch it.
    supervisor: bool,
    protection: Protection,
}

/// The window and what is in it.
#[derive(Debug)]
pub struct Shadow {
    window: LowWindow,
    shown: Runs,
    /// By the guest's page.
    codes: BTreeMap<u64, (CodePage, bool)>,
    /// How far above the guest's page its code is shown, modulo 4 GiB.
    code_shift: u32,
    taken: Vec<Taken>,
    /// What all that was found in.
    tables: Tables,
    /// Whether the guest's own pages can be executed.
    executable: bool,
    /// The privilege that the window shows now.
    user: bool,
    /// The highest page that the user may touch, and the lowest that it must not, of those shown.
    highest_user: Option<u64>,
    lowest_supervisor: Option<u64>,
    /// Flushes that changed something.
    flushes: u32,
}

impl Shadow {
    /// A window that shows nothing. Its pages can be executed if `executable`, or only those shown by
    /// [`Shadow::show_code`].
    ///
    /// # Errors
    /// When the process has such a window already, or the host refuses.
    pub(crate) fn new(executable: bool) -> Result<Shadow, host::Error> {
        Ok(Shadow {
            window: LowWindow::new()?,
            shown: Runs::default(),
            codes: BTreeMap::new(),
            code_shift: 0,
            taken: Vec::new(),
            tables: Tables::default(),
            executable,
            user: false,
            highest_user: None,
            lowest_supervisor: None,
            flushes: 0,
        })
    }

    /// Forgets everything that it shows, but for what is taken.
    pub(crate) fn clear(&mut self) -> Result<(), host::Error> {
        self.shown.clear();
        self.codes.clear();
        self.tables.clear();
        self.highest_user = None;
        self.lowest_supervisor =
            self.taken.iter().filter(|taken| taken.supervisor).map(|taken| taken.range.start).min();
        let mut start = u64::from(self.window.start());
        for taken in &self.taken {
            if start < taken.range.start {
                self.window.unmap(&(start..taken.range.start))?;
            }
            start = taken.range.end;
        }
        if start < END { self.window.unmap(&(start..END)) } else { Ok(()) }
    }

    /// Takes a range that the guest does not use, and shows `file` from `offset` on in it.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn take(
        &mut self,
        range: Range<u64>,
        (file, offset): (&File, usize),
        protection: Protection,
        supervisor: bool,
    ) -> Result<(), host::Error> {
        self.unmap(range.clone())?;
        let now = if supervisor && self.user { Protection::None } else { protection };
        self.window.map_lazily(&range, file, offset as u64, now)?;
        if supervisor {
            let lowest = self.lowest_supervisor.unwrap_or(END);
            self.lowest_supervisor = Some(lowest.min(range.start));
        }
        self.taken.push(Taken { range, supervisor, protection });
        self.taken.sort_by_key(|taken| taken.range.start);
        Ok(())
    }

    /// Gives up all ranges that are taken.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn give_back(&mut self) -> Result<(), host::Error> {
        for taken in std::mem::take(&mut self.taken) {
            self.window.unmap(&taken.range)?;
        }
        Ok(())
    }

    /// Whether an address is in a range that is taken.
    #[must_use]
    pub fn is_taken(&self, address: u64) -> bool {
        self.taken.iter().any(|taken| taken.range.contains(&address))
    }

    fn unmap(&mut self, pages: Range<u64>) -> Result<(), host::Error> {
        self.hide_codes(&pages)?;
        if !self.shown.remove(pages.clone()) {
            return Ok(());
        }
        // Where the hole makes one mapping too many, all go.
        self.window.unmap(&pages).or_else(|_| self.clear())
    }

    /// Handles a fault at `address`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn touch(
        &mut self,
        m: &mut Machine,
        address: u32,
        write: bool,
    ) -> Result<Touch, host::Error> {
        let page = u64::from(address) & !(PAGE - 1);
        let hides_data = self.code_shift == 0 && self.codes.contains_key(&page);
        if page < u64::from(self.window.start()) || hides_data {
            return Ok(Touch::Emulate);
        }
        if self.is_taken(page) {
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
        if let Some(code) = self.code_behind(page) {
            // The guest has come to use the place.
            self.hide_codes(&(code..code + PAGE))?;
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
        self.shown.around(page, found, lowest..highest, |at| {
            let free = self.code_behind(at).is_none() && !self.is_taken(at);
            look_up(m, at).filter(|_| free)
        })
    }

    fn show(&mut self, m: &Machine, run: Range<u64>, first: Page) -> Result<(), host::Error> {
        let protection = self.protection(first.writable);
        let file = m.memory.file();
        let map = |window: &mut LowWindow| match run.end - run.start > MOST_AT_ONCE {
            true => window.map_lazily(&run, file, first.offset, protection),
            false => window.map(&run, file, first.offset, protection),
        };
        if map(&mut self.window).is_err() {
            // One mapping too many, perhaps, for the limit that this host has.
            self.clear()?;
            map(&mut self.window)?;
        }
        self.note_privilege(&run, first.user);
        self.tables.remember(m, &run);
        self.shown.insert(run, first);
        Ok(())
    }

    /// From now on no write to the guest's page at `offset` goes unseen.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn withhold_writes(&mut self, offset: u64) -> Result<(), host::Error> {
        let pages: Vec<u64> = self
            .shown
            .iter()
            .filter(|(run, first)| {
                let length = run.end - run.start;
                first.writable && (first.offset..first.offset + length).contains(&offset)
            })
            .map(|(run, first)| run.start + (offset - first.offset))
            .collect();
        pages.into_iter().try_for_each(|page| self.unmap(page..page + PAGE))
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
    let watched = m.memory.is_watched(found.physical);
    let writable = ram && found.dirty && !watched && (found.writable || supervisor_writes);
    // A page that is writable only because WP is clear is hidden from the user altogether.
    let user = found.user && (found.writable || !writable);
    Some(Page { offset, writable, user })
}
