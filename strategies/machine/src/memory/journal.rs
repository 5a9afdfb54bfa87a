//! What pages held before they were written, so that a stretch of a run can be looked at and undone.
//!
//! The journal sees what is written through [`Memory::write`] and through entries of the TLB that
//! allow writes, which is how the emulator writes. Engines that map the memory's file write past it.

use super::{Memory, PAGE, PageKind};
use crate::{Machine, PhysicalAddress};
use std::collections::BTreeMap;

/// The bytes of one page.
pub type Page = [u8; PAGE as usize];

/// The pages that were written since [`Machine::begin_journal`], as they were before.
#[derive(Default)]
pub(super) struct Journal {
    pages: BTreeMap<u64, Box<Page>>,
    /// Pages of earlier stretches, to be used again.
    spare: Vec<Box<Page>>,
}

/// Spare pages that are kept.
const MOST_SPARE: usize = 1024;

impl Journal {
    fn clear(&mut self) {
        while let Some((_, page)) = self.pages.pop_first() {
            if self.spare.len() < MOST_SPARE {
                self.spare.push(page);
            }
        }
    }
}

impl Memory {
    /// Whether there is a journal: then [`Memory::keep_page`] wants to be called before writes.
    #[inline]
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Keeps the pages that `length` bytes at `address` lie in.
    #[inline]
    pub(super) fn keep_range(&mut self, address: PhysicalAddress, length: usize) {
        if self.has_journal() && length > 0 {
            let last = address.0.saturating_add(length as u64 - 1);
            (address.page()..=last / PAGE)
                .for_each(|page| self.keep_page(PhysicalAddress(page * PAGE)));
        }
    }

    /// Keeps the page that holds `address` as it is, if there is a journal: it is about to be
    /// written.
    #[cold]
    pub fn keep_page(&mut self, address: PhysicalAddress) {
        let (PageKind::Ram(offset) | PageKind::Rom(offset)) = self.page_kind(address) else {
            return;
        };
        let start = PhysicalAddress(address.0 & !(PAGE - 1));
        let mut page = match &mut self.journal {
            Some(journal) if !journal.pages.contains_key(&offset) => {
                journal.spare.pop().unwrap_or_else(|| Box::new([0; PAGE as usize]))
            }
            _ => return,
        };
        self.read(start, &mut page[..]);
        if let Some(journal) = &mut self.journal {
            journal.pages.insert(start.0, page);
        }
    }

    /// The pages in the journal with their addresses, as they were before, in ascending order.
    pub fn kept_pages(&self) -> impl Iterator<Item = (PhysicalAddress, &Page)> {
        let pages = self.journal.iter().flat_map(|journal| &journal.pages);
        pages.map(|(&address, page)| (PhysicalAddress(address), &**page))
    }

    /// The page that begins at `address` as it is now, if that is memory.
    #[must_use]
    pub fn page(&self, address: PhysicalAddress) -> Option<Page> {
        let mut page = [0; PAGE as usize];
        self.read(address, &mut page).then_some(page)
    }
}

impl Machine {
    /// Begins a journal of the pages that are written from now on, in place of the one before.
    pub fn begin_journal(&mut self) {
        self.memory.journal.get_or_insert_default().clear();
        // The first write to each page has to take the way that the journal sees.
        self.tlb.withhold_all_writes();
    }

    /// Ends the journal.
    pub fn end_journal(&mut self) {
        self.memory.journal = None;
    }

    /// Writes the pages in the journal back as they were, and begins it anew. The CPU is the caller's
    /// business.
    pub fn undo_writes(&mut self) {
        let Some(journal) = self.memory.journal.take() else { return };
        for (&address, page) in &journal.pages {
            self.memory.write(PhysicalAddress(address), &page[..]);
        }
        self.memory.journal = Some(journal);
        self.tlb.flush();
        self.begin_journal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MachineConfig;

    const SOMEWHERE: PhysicalAddress = PhysicalAddress(0x10_2ffe);

    fn machine() -> Machine {
        Machine::new(&MachineConfig { memory_bytes: 2 << 20, ..MachineConfig::default() }).unwrap()
    }

    #[test]
    fn what_was_written_is_undone() {
        let mut machine = machine();
        machine.memory.write(SOMEWHERE, &[1, 2, 3, 4]);
        machine.begin_journal();
        machine.memory.write(SOMEWHERE, &[9; 4]);
        machine.memory.write(SOMEWHERE, &[8; 4]);
        let kept: Vec<u64> = machine.memory.kept_pages().map(|(address, _)| address.0).collect();
        assert_eq!(kept, [0x10_2000, 0x10_3000]);
        machine.undo_writes();
        assert_eq!(machine.memory.read_u32(SOMEWHERE), 0x0403_0201);
        assert_eq!(machine.memory.kept_pages().count(), 0);
    }

    #[test]
    fn a_new_journal_begins_empty_and_without_cached_permissions() {
        let mut machine = machine();
        machine.begin_journal();
        machine.memory.write(SOMEWHERE, &[1]);
        let mut page = [0u8; 4096];
        let allow = crate::tlb::Allow { read: true, write: true, execute: true };
        let address = crate::LinearAddress(0x5000);
        machine.tlb.insert(false, address, page.as_mut_ptr(), allow);
        let before = machine.tlb.generation();
        machine.begin_journal();
        assert_eq!(machine.memory.kept_pages().count(), 0);
        assert_eq!(machine.tlb.write(false, 0x5000, 4), None);
        assert!(machine.tlb.read(false, 0x5000, 4).is_some());
        assert_eq!(machine.tlb.generation(), before);
    }

    #[test]
    fn without_a_journal_nothing_is_kept() {
        let mut machine = machine();
        machine.memory.write(SOMEWHERE, &[1]);
        assert_eq!(machine.memory.kept_pages().count(), 0);
        machine.undo_writes();
        assert_eq!(machine.memory.read_u32(SOMEWHERE), 1);
    }
}
