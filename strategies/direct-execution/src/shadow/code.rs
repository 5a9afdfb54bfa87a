//! Pages of code that are executed from copies.

use super::{CodePage, END, MOST_RUNS, Shadow, look_up};
use host::low_memory::Protection;
use host::runs::PAGE;
use machine::Machine;
use std::fs::File;
use std::ops::Range;

impl Shadow {
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
    pub(super) fn code_place(&self, page: u64) -> u64 {
        (page + u64::from(self.code_shift)) & (END - 1)
    }

    /// The guest's page whose code is shown at a place, if there is one.
    pub(super) fn code_behind(&self, place: u64) -> Option<u64> {
        let page = place.wrapping_sub(self.code_shift.into()) & (END - 1);
        self.codes.contains_key(&page).then_some(page)
    }

    /// Whether code at a guest's address would be shown in a range that is taken.
    #[must_use]
    pub fn is_taken_for_code(&self, address: u32) -> bool {
        self.is_taken(self.code_place(address.into()))
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
    pub(super) fn hide_codes(&mut self, pages: &Range<u64>) -> Result<(), host::Error> {
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
}

/// Whether the guest's user may touch a page of code; nothing if the guest's page tables do not show
/// that code there.
fn code_privilege(m: &mut Machine, page: u64, code: &CodePage) -> Option<bool> {
    let found = look_up(m, page).filter(|found| found.offset == code.offset)?;
    let behind = |m: &mut Machine| look_up(m, (page + PAGE) & (END - 1)).map(|found| found.offset);
    (code.behind.is_none() || code.behind == behind(m)).then_some(found.user)
}

pub(super) fn code_holds(m: &mut Machine, page: u64, code: &CodePage, user: bool) -> bool {
    code_privilege(m, page, code).is_some_and(|now| now || !user)
}
