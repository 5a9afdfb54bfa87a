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

use crate::straddle;
use crate::tables::{Changes, Tables};
use host::low_memory::Protection;
use host::runs::{PAGE, Page, Runs, joined};
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

    /// Shows code so many bytes, whole pages, above the guest's addresses (modulo 4 GiB).
    ///
    /// # Errors
    /// When the host refuses.
    pub fn set_code_shift(&mut self, shift: u32) -> Result<(), host::Error> {
        self.hide_code(|_, _| true)?;
        self.code_shift = shift;
        self.find_privileges();
        Ok(())
    }

    /// How far above the guest's addresses code is shown, modulo 4 GiB.
    #[must_use]
    pub fn code_shift(&self) -> u32 {
        self.code_shift
    }

    /// Where the code of a guest's page is shown.
    fn code_place(&self, page: u64) -> u64 {
        (page + u64::from(self.code_shift)) & (END - 1)
    }

    /// The guest's page whose code is shown at a place, if there is one.
    fn code_behind(&self, place: u64) -> Option<u64> {
        let page = place.wrapping_sub(self.code_shift.into()) & (END - 1);
        self.codes.contains_key(&page).then_some(page)
    }

    /// Whether code at a guest's address would be shown in a range that is taken.
    #[must_use]
    pub fn is_taken_for_code(&self, address: u32) -> bool {
        self.is_taken(self.code_place(address.into()))
    }

    /// Whether an address is in a range that is taken.
    #[must_use]
    pub fn is_taken(&self, address: u64) -> bool {
        self.taken.iter().any(|taken| taken.range.contains(&address))
    }

    /// The lowest address that guest ring 3 must not reach, if all below it may be reached.
    pub(crate) fn ceiling(&self) -> Option<u32> {
        let lowest = self.lowest_supervisor?;
        self.highest_user.is_none_or(|highest| highest < lowest).then_some(lowest as u32)
    }

    /// The lowest address that guest ring 3 must not touch, of what is shown and taken.
    #[must_use]
    pub fn lowest_supervisor(&self) -> Option<u64> {
        self.lowest_supervisor
    }

    /// Whether the limits of its segments keep guest ring 3 from what it must not touch.
    #[must_use]
    pub fn has_ceiling(&self) -> bool {
        self.ceiling().is_some()
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
        self.hide_codes(&pages)?;
        if !self.shown.remove(pages.clone()) {
            return Ok(());
        }
        // Where the hole makes one mapping too many, all go.
        self.window.unmap(&pages).or_else(|_| self.clear())
    }

    /// Unmaps the pages that the guest's page tables no longer map so.
    fn revalidate(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let mut changed = Vec::new();
        match self.tables.changes(m) {
            Changes::All => {
                self.find_changed(m, &(0..END), &mut changed);
                self.remember_all(m);
            }
            Changes::Of(mut doubtful) => {
                doubtful.sort_by_key(|pages| pages.start);
                for pages in joined(doubtful.into_iter()) {
                    self.find_changed(m, &pages, &mut changed);
                }
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        changed.sort_by_key(|pages| pages.start);
        changed.dedup();
        joined(changed.into_iter()).into_iter().try_for_each(|pages| self.unmap(pages))?;
        // What they are known to be keeps ring 3 out, if perhaps of more than it must.
        self.flushes = self.flushes.wrapping_add(1);
        if !self.has_ceiling() || self.flushes.is_multiple_of(BETWEEN_SEARCHES) {
            self.find_privileges();
        }
        Ok(())
    }

    /// Notes the page tables of all that is shown.
    fn remember_all(&mut self, m: &Machine) {
        for (run, _) in self.shown.iter() {
            self.tables.remember(m, &run);
        }
        for (&page, (code, _)) in &self.codes {
            self.tables.remember(m, &code.pages(page));
        }
    }

    /// Finds the pages within `doubtful` that are not to be shown any more as they are.
    fn find_changed(&self, m: &mut Machine, doubtful: &Range<u64>, changed: &mut Vec<Range<u64>>) {
        for (run, first) in self.shown.within(doubtful.clone()) {
            let pages = run.start.max(doubtful.start)..run.end.min(doubtful.end);
            for page in pages.step_by(PAGE as usize) {
                let shown = first.beyond(page - run.start);
                if look_up(m, page).is_none_or(|now| !covers(now, shown)) {
                    changed.push(page..page + PAGE);
                }
            }
        }
        // One that reaches into the page behind rests on that, too.
        let start = doubtful.start.saturating_sub(PAGE);
        for (&page, &(code, user)) in self.codes.range(start..doubtful.end) {
            if !code_holds(m, page, &code, user) {
                changed.push(page..page + PAGE);
            }
        }
    }

    /// Finds anew which pages the user may touch: some may be gone.
    fn find_privileges(&mut self) {
        let runs = self.shown.iter().map(|(run, first)| (run, first.user));
        let codes = self.codes.iter().flat_map(|(&page, &(_, user))| {
            // The limit of the code segment keeps ring 3 from the one, that of the others from the other.
            let place = if user { page } else { self.code_place(page) };
            [(page..page + PAGE, user), (place..place + PAGE, user)]
        });
        let taken = self.taken.iter().filter(|taken| taken.supervisor);
        let taken = taken.map(|taken| (taken.range.clone(), false));
        let (mut highest, mut lowest) = (None, END);
        for (pages, user) in runs.chain(codes).chain(taken) {
            if user {
                highest = highest.max(Some(pages.end - PAGE));
            } else {
                lowest = lowest.min(pages.start);
            }
        }
        self.highest_user = highest;
        self.lowest_supervisor = (lowest < END).then_some(lowest);
    }

    /// Shows the window as the guest's kernel or user may see it.
    pub(crate) fn set_privilege(&mut self, user: bool) -> Result<(), host::Error> {
        if self.user == user {
            return Ok(());
        }
        if self.has_ceiling() || self.lowest_supervisor.is_none() {
            if !std::mem::replace(&mut self.user, false) {
                return Ok(());
            }
            // It was kept out otherwise until now.
            return self.admit_supervisor();
        }
        self.user = user;
        if !user {
            return self.admit_supervisor();
        }
        self.protect(|_| true, Protection::None)?;
        self.protect_others(|_| Protection::None)
    }

    fn admit_supervisor(&mut self) -> Result<(), host::Error> {
        self.protect(|page| !page.writable, self.protection(false))?;
        self.protect(|page| page.writable, self.protection(true))?;
        self.protect_others(|taken| taken)
    }

    fn protection(&self, writable: bool) -> Protection {
        match (self.executable, writable) {
            (true, false) => Protection::Read,
            (true, true) => Protection::Write,
            (false, false) => Protection::ReadData,
            (false, true) => Protection::WriteData,
        }
    }

    /// Changes the rights to the supervisor's pages of code, and to what is taken.
    fn protect_others(
        &mut self,
        protection: impl Fn(Protection) -> Protection,
    ) -> Result<(), host::Error> {
        for (&page, _) in self.codes.iter().filter(|(_, (_, user))| !user) {
            let place = self.code_place(page);
            self.window.protect(&(place..place + PAGE), protection(Protection::Execute))?;
        }
        for taken in self.taken.iter().filter(|taken| taken.supervisor) {
            self.window.protect(&taken.range, protection(taken.protection))?;
        }
        Ok(())
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

    fn note_privilege(&mut self, pages: &Range<u64>, user: bool) {
        if user {
            self.highest_user = self.highest_user.max(Some(pages.end - PAGE));
        } else {
            let lowest = self.lowest_supervisor.unwrap_or(END);
            self.lowest_supervisor = Some(lowest.min(pages.start));
        }
    }

    /// Shows a page for execution alone, from a copy in `file`. False where the guest's page tables do
    /// not show that page there, or a page in a range that is taken.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn show_code(
        &mut self,
        m: &mut Machine,
        page: u32,
        code: CodePage,
        file: &File,
    ) -> Result<bool, host::Error> {
        let at = u64::from(page);
        let place = self.code_place(at);
        let Some(user) = code_privilege(m, at, &code) else { return Ok(false) };
        if self.is_taken(place) || place < u64::from(self.window.start()) {
            return Ok(false);
        }
        if self.shown.len() + self.codes.len() >= MOST_RUNS {
            self.clear()?;
        }
        self.shown.remove(place..place + PAGE);
        self.window.map(&(place..place + PAGE), file, code.copy as u64, Protection::Execute)?;
        self.note_privilege(&(at..at + PAGE), user);
        self.tables.remember(m, &code.pages(at));
        if !user {
            self.note_privilege(&(place..place + PAGE), user);
        }
        self.codes.insert(at, (code, user));
        Ok(true)
    }

    /// The page of code that is shown at a page.
    #[must_use]
    pub fn code_at(&self, page: u32) -> Option<CodePage> {
        self.codes.get(&u64::from(page)).map(|&(code, _)| code)
    }

    /// Hides the pages of code for which `which` holds.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn hide_code(
        &mut self,
        mut which: impl FnMut(u32, &CodePage) -> bool,
    ) -> Result<(), host::Error> {
        let pages: Vec<u64> = self
            .codes
            .iter()
            .filter(|(page, (code, _))| which(**page as u32, code))
            .map(|(&page, _)| page)
            .collect();
        pages.into_iter().try_for_each(|page| self.hide_codes(&(page..page + PAGE)))
    }

    /// Hides the pages of code in a range, and what reaches into it from the page before.
    fn hide_codes(&mut self, pages: &Range<u64>) -> Result<(), host::Error> {
        let before = pages.start.wrapping_sub(PAGE);
        let reaches = self.codes.get(&before).is_some_and(|(code, _)| code.behind.is_some());
        let within = self.codes.range(pages.clone()).map(|(&page, _)| page);
        let hidden: Vec<u64> = reaches.then_some(before).into_iter().chain(within).collect();
        for page in hidden {
            self.codes.remove(&page);
            let place = self.code_place(page);
            // Where the hole makes one mapping too many, all go.
            self.window.unmap(&(place..place + PAGE)).or_else(|_| self.clear())?;
        }
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

/// Whether the guest's user may touch a page of code; nothing if the guest's page tables do not show
/// that code there.
fn code_privilege(m: &mut Machine, page: u64, code: &CodePage) -> Option<bool> {
    let found = look_up(m, page).filter(|found| found.offset == code.offset)?;
    let behind = |m: &mut Machine| look_up(m, (page + PAGE) & (END - 1)).map(|found| found.offset);
    (code.behind.is_none() || code.behind == behind(m)).then_some(found.user)
}

fn code_holds(m: &mut Machine, page: u64, code: &CodePage, user: bool) -> bool {
    code_privilege(m, page, code).is_some_and(|now| now || !user)
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
