//! Following the guest when it flushes.

use super::code::code_holds;
use super::{BETWEEN_SEARCHES, END, Shadow, look_up};
use crate::tables::Changes;
use host::runs::{PAGE, Page, joined};
use machine::Machine;
use machine::tlb::Forgotten;
use std::ops::Range;

impl Shadow {
    /// Follows what the guest flushed since the last call.
    pub(crate) fn follow_flushes(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let forgotten = m.tlb.take_forgotten();
        self.follow(m, &forgotten)
    }

    /// Follows that.
    pub(crate) fn follow(
        &mut self,
        m: &mut Machine,
        forgotten: &Forgotten,
    ) -> Result<(), host::Error> {
        if forgotten.all {
            return self.revalidate(m);
        }
        for address in &forgotten.pages {
            let page = u64::from(address.0) & !(PAGE - 1);
            self.unmap(page..page + PAGE)?;
        }
        Ok(())
    }

    /// Unmaps the pages that the guest's page tables no longer map so.
    pub(super) fn revalidate(&mut self, m: &mut Machine) -> Result<(), host::Error> {
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
    pub(super) fn remember_all(&mut self, m: &Machine) {
        for (run, _) in self.shown.iter() {
            self.tables.remember(m, &run);
        }
        for (&page, (code, _)) in &self.codes {
            self.tables.remember(m, &code.pages(page));
        }
    }

    /// Finds the pages within `doubtful` that are not to be shown any more as they are.
    pub(super) fn find_changed(
        &self,
        m: &mut Machine,
        doubtful: &Range<u64>,
        changed: &mut Vec<Range<u64>>,
    ) {
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
