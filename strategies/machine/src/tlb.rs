//! A software translation look-aside buffer: linear pages to host addresses.
//!
//! It holds what the page walk found, apart for supervisor and user accesses, and may drop any
//! entry at any time. An entry's tags are the linear page where that kind of access needs no
//! closer look (permission given; for writes: dirty bit set, RAM, no code on the page), else
//! [`TlbEntry::NONE`]. Device pages are never entered.

use crate::LinearAddress;

/// Entries for each privilege.
pub const TLB_ENTRIES: usize = 1024;

/// One entry; the layout is fixed because generated code may read it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TlbEntry {
    /// The linear page address that may be read, or [`TlbEntry::NONE`].
    pub read: u64,
    /// The linear page address that may be written, or [`TlbEntry::NONE`].
    pub write: u64,
    /// The linear page address that may be executed, or [`TlbEntry::NONE`].
    pub execute: u64,
    /// Host address minus linear address, wrapping.
    pub addend: u64,
}

impl TlbEntry {
    /// A tag that no 32-bit address matches.
    pub const NONE: u64 = 1 << 32;
    const EMPTY: TlbEntry =
        TlbEntry { read: Self::NONE, write: Self::NONE, execute: Self::NONE, addend: 0 };
}

/// The translation look-aside buffer.
#[derive(Debug)]
pub struct Tlb {
    entries: [Box<[TlbEntry; TLB_ENTRIES]>; 2],
    /// A bit for each slot that may hold something.
    filled: [[u64; TLB_ENTRIES / 64]; 2],
    /// A bit for each 4 MiB of which a page was entered that is part of a large one.
    large: [u64; 16],
    generation: u64,
    bypassed: bool,
    forgotten: Forgotten,
}

/// What was forgotten since a window last asked ([`Tlb::take_forgotten`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forgotten {
    /// Everything.
    pub all: bool,
    /// Single pages, by an address in each; those of large pages go as a whole.
    pub pages: Vec<LinearAddress>,
}

/// Single pages that are remembered before they count as everything.
const FORGOTTEN_PAGES: usize = 32;

impl Default for Tlb {
    fn default() -> Tlb {
        let empty = || Box::new([TlbEntry::EMPTY; TLB_ENTRIES]);
        Tlb {
            entries: [empty(), empty()],
            filled: [[0; TLB_ENTRIES / 64]; 2],
            large: [0; 16],
            generation: 1,
            bypassed: false,
            forgotten: Forgotten::default(),
        }
    }
}

#[inline(always)]
fn slot(address: u32) -> usize {
    (address >> 12) as usize % TLB_ENTRIES
}

/// The slots whose bits are set.
fn slots(filled: &[u64; TLB_ENTRIES / 64]) -> impl Iterator<Item = usize> + '_ {
    filled.iter().enumerate().flat_map(|(word, &bits)| {
        let mut left = bits;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(word * 64 + bit as usize)
        })
    })
}

/// Whether `size` bytes at `address` lie in the page with this tag.
#[inline(always)]
fn hit(tag: u64, address: u32, size: u32) -> bool {
    let first = u64::from(address) ^ tag;
    let last = u64::from(address.wrapping_add(size - 1)) ^ tag;
    (first | last) < 4096
}

impl Tlb {
    /// The host address for a read of `size` bytes within one page, if it is cached.
    #[inline(always)]
    #[must_use]
    pub fn read(&self, user: bool, address: u32, size: u32) -> Option<*const u8> {
        let entry = &self.entries[usize::from(user)][slot(address)];
        hit(entry.read, address, size)
            .then(|| entry.addend.wrapping_add(u64::from(address)) as *const u8)
    }

    /// The host address for a write of `size` bytes within one page, if it is cached.
    #[inline(always)]
    #[must_use]
    pub fn write(&self, user: bool, address: u32, size: u32) -> Option<*mut u8> {
        let entry = &self.entries[usize::from(user)][slot(address)];
        hit(entry.write, address, size)
            .then(|| entry.addend.wrapping_add(u64::from(address)) as *mut u8)
    }

    /// The host address for fetching the byte at `address`, if it is cached.
    #[inline(always)]
    #[must_use]
    pub fn execute(&self, user: bool, address: u32) -> Option<*const u8> {
        let entry = &self.entries[usize::from(user)][slot(address)];
        hit(entry.execute, address, 1)
            .then(|| entry.addend.wrapping_add(u64::from(address)) as *const u8)
    }

    /// While bypassed nothing is cached, so that every access takes the slow path (data breakpoints
    /// and alignment checks live there).
    pub fn set_bypassed(&mut self, bypassed: bool) {
        if self.bypassed != bypassed {
            self.bypassed = bypassed;
            self.flush();
        }
    }

    /// Enters a page. `host` is the host address of the page's first byte.
    pub fn insert(&mut self, user: bool, address: LinearAddress, host: *mut u8, allow: Allow) {
        if self.bypassed {
            return;
        }
        let page = u64::from(address.0 & !0xfff);
        let tag = |allowed| if allowed { page } else { TlbEntry::NONE };
        let entry = TlbEntry {
            read: tag(allow.read),
            write: tag(allow.write),
            execute: tag(allow.execute),
            addend: (host as u64).wrapping_sub(page),
        };
        self.entries[usize::from(user)][slot(address.0)] = entry;
        self.filled[usize::from(user)][slot(address.0) / 64] |= 1 << (slot(address.0) % 64);
    }

    /// Notes that the pages around `address` are entered as parts of a large one: forgetting one of
    /// them is then to forget all.
    #[inline]
    pub fn note_large_page(&mut self, address: LinearAddress) {
        let region = address.0 >> 22;
        self.large[(region / 64) as usize] |= 1 << (region % 64);
    }

    fn is_part_of_large_page(&self, address: LinearAddress) -> bool {
        let region = address.0 >> 22;
        self.large[(region / 64) as usize] & 1 << (region % 64) != 0
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.forgotten.all = true;
        self.large = [0; 16];
        self.generation += 1;
        for (entries, filled) in self.entries.iter_mut().zip(&mut self.filled) {
            for index in slots(filled) {
                entries[index] = TlbEntry::EMPTY;
            }
            *filled = [0; TLB_ENTRIES / 64];
        }
    }

    /// Forgets the page that holds `address`, however large it is.
    pub fn flush_page(&mut self, address: LinearAddress) {
        if self.forgotten.pages.len() < FORGOTTEN_PAGES {
            self.forgotten.pages.push(address);
        } else {
            self.forgotten.all = true;
        }
        if self.is_part_of_large_page(address) {
            return self.flush();
        }
        self.generation += 1;
        for entries in &mut self.entries {
            entries[slot(address.0)] = TlbEntry::EMPTY;
        }
    }

    /// Withdraws the permission to write the page at host address `host` (it now holds code).
    pub fn withhold_writes(&mut self, host: *mut u8) {
        for (entries, filled) in self.entries.iter_mut().zip(&self.filled) {
            for index in slots(filled) {
                let entry = &mut entries[index];
                if entry.write != TlbEntry::NONE
                    && entry.addend.wrapping_add(entry.write) == host as u64
                {
                    entry.write = TlbEntry::NONE;
                }
            }
        }
    }

    /// Withdraws the permission to write from all pages: what is to see each page's next write takes
    /// the slow path then.
    pub fn withhold_all_writes(&mut self) {
        for (entries, filled) in self.entries.iter_mut().zip(&self.filled) {
            for index in slots(filled) {
                entries[index].write = TlbEntry::NONE;
            }
        }
    }

    /// What was forgotten since the last call: whoever keeps translations of its own (an address
    /// window) has to forget it as well.
    pub fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    /// What was forgotten since the last call of [`Tlb::take_forgotten`] or its like.
    #[must_use]
    pub fn forgotten(&self) -> &Forgotten {
        &self.forgotten
    }

    /// As [`Tlb::take_forgotten`], into memory that is there already.
    pub fn exchange_forgotten(&mut self, forgotten: &mut Forgotten) {
        forgotten.all = false;
        forgotten.pages.clear();
        std::mem::swap(&mut self.forgotten, forgotten);
    }

    /// Grows whenever something is forgotten: caches that rest on translations compare it.
    #[inline(always)]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Which accesses an entry allows without a closer look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allow {
    /// Reads.
    pub read: bool,
    /// Writes: the dirty bit is set, and the page is RAM without code.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allow = Allow { read: true, write: true, execute: true };

    #[test]
    fn accesses_that_leave_the_page_miss() {
        let mut page = [0u8; 4096];
        let mut tlb = Tlb::default();
        tlb.insert(false, LinearAddress(0xffff_f123), page.as_mut_ptr(), ALL);
        assert_eq!(tlb.read(false, 0xffff_fffc, 4), Some(page[0xffc..].as_ptr()));
        assert_eq!(tlb.read(false, 0xffff_fffd, 4), None);
        assert_eq!(tlb.read(true, 0xffff_fffc, 4), None);
    }

    #[test]
    fn a_flush_forgets_and_grows_the_generation() {
        let mut page = [0u8; 4096];
        let mut tlb = Tlb::default();
        tlb.insert(true, LinearAddress(0x1000), page.as_mut_ptr(), ALL);
        let before = tlb.generation();
        tlb.flush();
        assert!(tlb.generation() > before);
        assert_eq!(tlb.execute(true, 0x1000), None);
    }

    #[test]
    fn a_large_page_is_forgotten_as_a_whole() {
        let mut page = [0u8; 4096];
        let mut tlb = Tlb::default();
        tlb.insert(false, LinearAddress(0x40_1000), page.as_mut_ptr(), ALL);
        tlb.note_large_page(LinearAddress(0x40_1000));
        tlb.flush_page(LinearAddress(0x80_0000));
        assert!(tlb.read(false, 0x40_1000, 4).is_some());
        tlb.flush_page(LinearAddress(0x7f_f000));
        assert_eq!(tlb.read(false, 0x40_1000, 4), None);
    }

    #[test]
    fn a_page_with_code_loses_only_its_write_permission() {
        let mut page = [0u8; 4096];
        let mut tlb = Tlb::default();
        tlb.insert(true, LinearAddress(0x1000), page.as_mut_ptr(), ALL);
        tlb.withhold_writes(page.as_mut_ptr());
        assert_eq!(tlb.write(true, 0x1000, 4), None);
        assert_eq!(tlb.read(true, 0x1000, 4), Some(page.as_ptr()));
    }
}
