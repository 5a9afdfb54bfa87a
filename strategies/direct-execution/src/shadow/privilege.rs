//! What guest ring 3 may touch of what the window shows.

use super::{END, Shadow};
use host::low_memory::Protection;
use host::runs::{PAGE, Page, joined};
use std::ops::Range;

impl Shadow {
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

    /// Finds anew which pages the user may touch: some may be gone.
    pub(super) fn find_privileges(&mut self) {
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

    pub(super) fn admit_supervisor(&mut self) -> Result<(), host::Error> {
        self.protect(|page| !page.writable, self.protection(false))?;
        self.protect(|page| page.writable, self.protection(true))?;
        self.protect_others(|taken| taken)
    }

    pub(super) fn protection(&self, writable: bool) -> Protection {
        match (self.executable, writable) {
            (true, false) => Protection::Read,
            (true, true) => Protection::Write,
            (false, false) => Protection::ReadData,
            (false, true) => Protection::WriteData,
        }
    }

    /// Changes the rights to the supervisor's pages of code, and to what is taken.
    pub(super) fn protect_others(
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
    pub(super) fn protect(
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

    pub(super) fn note_privilege(&mut self, pages: &Range<u64>, user: bool) {
        if user {
            self.highest_user = self.highest_user.max(Some(pages.end - PAGE));
        } else {
            let lowest = self.lowest_supervisor.unwrap_or(END);
            self.lowest_supervisor = Some(lowest.min(pages.start));
        }
    }
}
