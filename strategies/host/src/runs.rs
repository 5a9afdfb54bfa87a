//! Pages in runs: neighbours in a window that are neighbours in the memory file too, with the same
//! rights. A run is one mapping of the host's, which allows a process some 65,000 of them.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A page of the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Its offset in the guest's memory file.
    pub offset: u64,
    /// Whether it is mapped for writing.
    pub writable: bool,
    /// Whether the guest's user may touch it as it is mapped.
    pub user: bool,
}

impl Page {
    /// The page `distance` bytes further on in a run; backwards when it wraps.
    pub fn beyond(self, distance: u64) -> Page {
        Page { offset: self.offset.wrapping_add(distance), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: u64,
    /// The first page.
    page: Page,
}

/// What the window shows, by linear address.
#[derive(Debug, Default)]
pub struct Runs {
    runs: BTreeMap<u64, Run>,
}

impl Runs {
    /// Forgets all runs.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All runs, in ascending order, with the first page of each.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, Page)> + '_ {
        self.runs.iter().map(|(&start, run)| (start..run.end, run.page))
    }

    /// The runs that reach into a range, in ascending order, with the first page of each.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Page)> + '_ {
        let before = self.runs.range(..range.start).next_back();
        let before = before.filter(|(_, run)| run.end > range.start);
        let runs = before.into_iter().chain(self.runs.range(range));
        runs.map(|(&start, run)| (start..run.end, run.page))
    }

    /// The page at an address.
    pub fn get(&self, at: u64) -> Option<Page> {
        let (&start, run) = self.runs.range(..=at).next_back()?;
        (at < run.end).then(|| run.page.beyond((at - start) & !(PAGE - 1)))
    }

    /// The part of the gap around `at` that lies in `within`; empty if a page is there.
    pub fn gap(&self, at: u64, within: Range<u64>) -> Range<u64> {
        let before = self.runs.range(..=at).next_back().map_or(0, |(_, run)| run.end);
        let after = self.runs.range(at..).next().map_or(u64::MAX, |(&start, _)| start);
        within.start.max(before)..within.end.min(after)
    }

    /// The pages around `page`, within `bounds`, that could be mapped in one call with it as
    /// `found`: absent until now, and what `look_up` says of each continues the run.
    pub fn around(
        &self,
        page: u64,
        found: Page,
        bounds: Range<u64>,
        mut look_up: impl FnMut(u64) -> Option<Page>,
    ) -> Range<u64> {
        let below = self.gap(page.saturating_sub(1), bounds.start..page).start.min(page);
        let above = self.gap(page + PAGE, page + PAGE..bounds.end).end.max(page + PAGE);
        let mut fits = |at: u64| look_up(at) == Some(found.beyond(at.wrapping_sub(page)));
        let (mut start, mut end) = (page, page + PAGE);
        while start > below && fits(start - PAGE) {
            start -= PAGE;
        }
        while end < above && fits(end) {
            end += PAGE;
        }
        start..end
    }

    /// Enters pages in place of what is there; `page` is the first.
    pub fn insert(&mut self, pages: Range<u64>, page: Page) {
        self.remove(pages.clone());
        let (mut start, mut end, mut page) = (pages.start, pages.end, page);
        if let Some((&before, run)) = self.runs.range(..start).next_back()
            && run.end == start
            && run.page.beyond(start - before) == page
        {
            (start, page) = (before, run.page);
        }
        if let Some(run) = self.runs.get(&end).copied()
            && page.beyond(end - start) == run.page
        {
            self.runs.remove(&end);
            end = run.end;
        }
        self.runs.insert(start, Run { end, page });
    }

    /// Takes pages out. Returns whether any was there.
    pub fn remove(&mut self, pages: Range<u64>) -> bool {
        let mut any = false;
        while let Some((&start, &run)) = self.runs.range(..pages.end).next_back()
            && run.end > pages.start
        {
            any = true;
            self.runs.remove(&start);
            if run.end > pages.end {
                let page = run.page.beyond(pages.end - start);
                self.runs.insert(pages.end, Run { end: run.end, page });
            }
            if start < pages.start {
                self.runs.insert(start, Run { end: pages.start, page: run.page });
            }
        }
        any
    }
}

/// Joins ascending ranges that touch.
pub fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Page = Page { offset: 0x10_0000, writable: false, user: true };

    fn at(start: u64) -> Page {
        READ.beyond(start)
    }

    fn shown(runs: &Runs) -> Vec<(u64, u64)> {
        runs.iter().map(|(range, _)| (range.start, range.end)).collect()
    }

    #[test]
    fn neighbours_of_contiguous_memory_make_one_run() {
        let mut runs = Runs::default();
        runs.insert(0x3000..0x4000, at(0x3000));
        runs.insert(0x1000..0x2000, at(0x1000));
        runs.insert(0x2000..0x3000, at(0x2000));
        assert_eq!(shown(&runs), [(0x1000, 0x4000)]);
        assert_eq!(runs.get(0x3fff), Some(at(0x3000)));
        assert_eq!(runs.get(0x4000), None);
    }

    #[test]
    fn other_memory_or_rights_make_a_run_of_their_own() {
        let mut runs = Runs::default();
        runs.insert(0x1000..0x3000, at(0x1000));
        runs.insert(0x3000..0x4000, at(0x8000));
        runs.insert(0x4000..0x5000, Page { writable: true, ..at(0x9000) });
        assert_eq!(shown(&runs), [(0x1000, 0x3000), (0x3000, 0x4000), (0x4000, 0x5000)]);
    }

    #[test]
    fn what_is_taken_out_or_replaced_leaves_both_ends() {
        let mut runs = Runs::default();
        runs.insert(0x1000..0x9000, at(0x1000));
        assert!(runs.remove(0x3000..0x4000));
        assert!(!runs.remove(0x3000..0x4000));
        let written = Page { writable: true, ..at(0x6000) };
        runs.insert(0x6000..0x7000, written);
        assert_eq!(
            shown(&runs),
            [(0x1000, 0x3000), (0x4000, 0x6000), (0x6000, 0x7000), (0x7000, 0x9000)]
        );
        assert_eq!(runs.get(0x6000), Some(written));
        assert_eq!(runs.get(0x7000), Some(at(0x7000)));
        assert!(runs.remove(0..0x1_0000));
        assert_eq!(runs.len(), 0);
    }

    #[test]
    fn runs_that_reach_into_a_range_are_found() {
        let mut runs = Runs::default();
        runs.insert(0x1000..0x4000, at(0x1000));
        runs.insert(0x8000..0x9000, at(0x20000));
        let found = |range| runs.within(range).map(|(run, _)| run.start).collect::<Vec<_>>();
        assert_eq!(found(0x2000..0x8000), [0x1000]);
        assert_eq!(found(0x3000..0x8001), [0x1000, 0x8000]);
        assert!(found(0x4000..0x8000).is_empty());
    }

    #[test]
    fn gaps_end_at_the_next_runs() {
        let mut runs = Runs::default();
        runs.insert(0x1000..0x2000, at(0x1000));
        runs.insert(0x8000..0x9000, at(0x8000));
        assert_eq!(runs.gap(0x4000, 0x3000..0x1_0000), 0x3000..0x8000);
        assert_eq!(runs.gap(0x4000, 0..0x5000), 0x2000..0x5000);
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        let ranges = [0x1000..0x2000, 0x2000..0x4000, 0x8000..0x9000];
        assert_eq!(joined(ranges.into_iter()), [0x1000..0x4000, 0x8000..0x9000]);
    }
}
