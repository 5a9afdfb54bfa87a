//! Guest-physical memory: RAM and ROM on one memfd.
//!
//! The file can be mapped into address windows and handed to KVM, so that all strategies see the
//! same pages. Its first part is RAM from physical address 0; behind it lies the ROM image, if any,
//! shown below 4 GiB. Within RAM the VGA hole (0xA0000 to 0xBFFFF) belongs to a device, and 0xF0000
//! to 0xFFFFF is read-only for the guest.

mod journal;

pub use journal::Page;

use crate::{Error, PhysicalAddress};
use journal::Journal;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::File;
use std::sync::Arc;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Where the VGA hole begins.
pub const VGA_START: u64 = 0xa_0000;
/// Where the VGA hole ends (exclusive).
pub const VGA_END: u64 = 0xc_0000;
/// Where the read-only part of the first MiB begins.
pub const LOW_ROM_START: u64 = 0xf_0000;
/// Where it ends (exclusive).
pub const LOW_ROM_END: u64 = 0x10_0000;
/// The largest RAM: the last GiB is left to ROM and devices.
pub const MAX_RAM: u64 = 3 << 30;

const PAGE: u64 = crate::address::PAGE_SIZE as u64;
const FOUR_GIB: u64 = 1 << 32;

/// What lies at a physical page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Readable and writable memory, at this offset of the file.
    Ram(u64),
    /// Memory that the guest cannot write, at this offset of the file.
    Rom(u64),
    /// Device memory: every access goes to the bus. Unclaimed addresses read all ones.
    Device,
}

/// A write by the guest to a page that was watched for code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeWrite {
    /// Where it began.
    pub address: PhysicalAddress,
    /// Bytes written, within one page.
    pub length: u32,
}

/// Guest-physical memory.
pub struct Memory {
    guest: GuestMemoryMmap<()>,
    file: Arc<File>,
    base: *mut u8,
    ram_bytes: u64,
    rom_bytes: u64,
    watched: Vec<u64>,
    code_writes: Vec<CodeWrite>,
    executing: std::ops::Range<u64>,
    code_owner: u64,
    journal: Option<Journal>,
}

// SAFETY: `base` points into the mapping that `guest` owns, which is not tied to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// `ram_bytes` of zeroed RAM, and `rom` shown read-only so that it ends at 4 GiB. The last
    /// 64 KiB of the ROM also appear at 0xF0000, as on a PC.
    ///
    /// # Errors
    /// When a size makes no sense or the host gives no memory.
    pub fn new(ram_bytes: u64, rom: &[u8]) -> Result<Memory, Error> {
        let memory = Memory::blank(ram_bytes, (rom.len() as u64).next_multiple_of(PAGE))?;
        memory.place_rom(rom)?;
        Ok(memory)
    }

    /// Zeroed RAM and a zeroed ROM, of whole pages.
    pub(crate) fn blank(ram_bytes: u64, rom_bytes: u64) -> Result<Memory, Error> {
        if !ram_bytes.is_multiple_of(PAGE) || !(1 << 20..=MAX_RAM).contains(&ram_bytes) {
            return Err(Error::MemorySize { bytes: ram_bytes });
        }
        let host = |error: &dyn std::fmt::Display| Error::HostMemory(error.to_string());
        let file = memfd_create("ringside-guest", MemfdFlags::CLOEXEC).map_err(|e| host(&e))?;
        ftruncate(&file, ram_bytes + rom_bytes).map_err(|e| host(&e))?;
        let file = Arc::new(File::from(file));
        let mut ranges = vec![(
            GuestAddress(0),
            ram_bytes as usize,
            Some(FileOffset::from_arc(file.clone(), 0)),
        )];
        if rom_bytes > 0 {
            let offset = FileOffset::from_arc(file.clone(), ram_bytes);
            ranges.push((GuestAddress(FOUR_GIB - rom_bytes), rom_bytes as usize, Some(offset)));
        }
        let guest = GuestMemoryMmap::from_ranges_with_files(&ranges).map_err(|e| host(&e))?;
        let base = guest.get_host_address(GuestAddress(0)).map_err(|e| host(&e))?;
        let pages = (ram_bytes / PAGE) as usize;
        Ok(Memory {
            guest,
            file,
            base,
            ram_bytes,
            rom_bytes,
            watched: vec![0; pages.div_ceil(64)],
            code_writes: Vec::new(),
            executing: 0..0,
            code_owner: 0,
            journal: None,
        })
    }

    fn place_rom(&self, rom: &[u8]) -> Result<(), Error> {
        use vm_memory::Bytes;
        let host = |error: vm_memory::GuestMemoryError| Error::HostMemory(error.to_string());
        if rom.is_empty() {
            return Ok(());
        }
        let start = GuestAddress(FOUR_GIB - rom.len() as u64);
        self.guest.write_slice(rom, start).map_err(host)?;
        let tail = &rom[rom.len().saturating_sub(0x1_0000)..];
        let low = GuestAddress(LOW_ROM_END - tail.len() as u64);
        self.guest.write_slice(tail, low).map_err(host)
    }

    /// Bytes of RAM, the holes in it included.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Bytes of ROM, in whole pages.
    pub(crate) fn rom_bytes(&self) -> u64 {
        self.rom_bytes
    }

    /// Bytes of the file: RAM, then ROM.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.ram_bytes + self.rom_bytes
    }

    /// The physical address of what lies at an offset of the file.
    pub(crate) fn address_of(&self, offset: u64) -> PhysicalAddress {
        if offset < self.ram_bytes {
            PhysicalAddress(offset)
        } else {
            PhysicalAddress(FOUR_GIB - self.rom_bytes + (offset - self.ram_bytes))
        }
    }

    /// The same memory as rust-vmm's crates see it, read-only parts included.
    #[must_use]
    pub fn guest(&self) -> &GuestMemoryMmap<()> {
        &self.guest
    }

    /// The memfd that holds RAM and then ROM.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The host address of physical address 0. RAM is contiguous from there.
    #[inline]
    #[must_use]
    pub fn host_base(&self) -> *mut u8 {
        self.base
    }

    /// The memory areas that are not device memory: start, length in bytes, offset in the file,
    /// whether the guest may write it. In ascending order, without overlap.
    #[must_use]
    pub fn areas(&self) -> Vec<(PhysicalAddress, u64, u64, bool)> {
        let mut areas = vec![(PhysicalAddress(0), VGA_START, 0, true)];
        areas.push((PhysicalAddress(VGA_END), LOW_ROM_START - VGA_END, VGA_END, true));
        areas.push((PhysicalAddress(LOW_ROM_START), 0x1_0000, LOW_ROM_START, false));
        if self.ram_bytes > LOW_ROM_END {
            let length = self.ram_bytes - LOW_ROM_END;
            areas.push((PhysicalAddress(LOW_ROM_END), length, LOW_ROM_END, true));
        }
        if self.rom_bytes > 0 {
            let start = PhysicalAddress(FOUR_GIB - self.rom_bytes);
            areas.push((start, self.rom_bytes, self.ram_bytes, false));
        }
        areas
    }

    /// What lies at the page that holds `address`; offsets in the file are those of the page.
    #[inline]
    #[must_use]
    pub fn page_kind(&self, address: PhysicalAddress) -> PageKind {
        let page = address.0 & !(PAGE - 1);
        if page < self.ram_bytes {
            match page {
                VGA_START..VGA_END => PageKind::Device,
                LOW_ROM_START..LOW_ROM_END => PageKind::Rom(page),
                _ => PageKind::Ram(page),
            }
        } else if (FOUR_GIB - self.rom_bytes..FOUR_GIB).contains(&page) {
            PageKind::Rom(page - (FOUR_GIB - self.rom_bytes) + self.ram_bytes)
        } else {
            PageKind::Device
        }
    }

    /// The host address of a page that is RAM or ROM.
    #[must_use]
    pub fn host_page(&self, address: PhysicalAddress) -> Option<*mut u8> {
        match self.page_kind(address) {
            PageKind::Ram(offset) => Some(self.base.wrapping_add(offset as usize)),
            PageKind::Rom(_) => {
                let page = GuestAddress(address.0 & !(PAGE - 1));
                self.guest.get_host_address(page).ok()
            }
            PageKind::Device => None,
        }
    }

    /// Whether the page of RAM at `address` has the same contents in another memory that has it, too.
    #[must_use]
    pub fn has_page_of(&self, other: &Memory, address: PhysicalAddress) -> bool {
        let kinds = [self, other].map(|memory| memory.page_kind(address));
        let [PageKind::Ram(mine), PageKind::Ram(theirs)] = kinds else { return false };
        let [mine, theirs] = [(self, mine), (other, theirs)].map(|(memory, offset)| {
            let start = memory.base.wrapping_add(offset as usize);
            // SAFETY: a page of guest memory, in which nothing is written while the machines of both
            // are borrowed.
            unsafe { std::slice::from_raw_parts(start, PAGE as usize) }
        });
        mine == theirs
    }

    /// Reads RAM or ROM. False, and `data` left alone, when any of it is elsewhere.
    pub fn read(&self, address: PhysicalAddress, data: &mut [u8]) -> bool {
        self.for_each_page(address, data.len(), |host, at, length| {
            // SAFETY: `host` has `length` bytes within one page of guest memory, and `data` has
            // them at `at`; only this thread runs the guest while the machine is borrowed.
            unsafe { std::ptr::copy_nonoverlapping(host, data[at..].as_mut_ptr(), length) };
        })
    }

    /// Writes RAM or ROM on the host's behalf (loading, DMA): read-only pages are written as well.
    /// False, and nothing written, when any of it is elsewhere.
    pub fn write(&mut self, address: PhysicalAddress, data: &[u8]) -> bool {
        self.keep_range(address, data.len());
        let done = self.for_each_page(address, data.len(), |host, at, length| {
            // SAFETY: as in `read`.
            unsafe { std::ptr::copy_nonoverlapping(data[at..].as_ptr(), host, length) };
        });
        if done {
            self.note_writes(address, data.len());
        }
        done
    }

    fn for_each_page(
        &self,
        address: PhysicalAddress,
        length: usize,
        mut copy: impl FnMut(*mut u8, usize, usize),
    ) -> bool {
        let pieces = || {
            let mut at = 0;
            std::iter::from_fn(move || {
                let here = PhysicalAddress(address.0.wrapping_add(at as u64));
                let piece = (length - at).min((PAGE - (here.0 & (PAGE - 1))) as usize);
                let result = (piece > 0).then_some((here, at, piece));
                at += piece;
                result
            })
        };
        if !pieces().all(|(here, ..)| self.page_kind(here) != PageKind::Device) {
            return false;
        }
        for (here, at, piece) in pieces() {
            let Some(page) = self.host_page(here) else { return false };
            copy(page.wrapping_add(here.page_offset() as usize), at, piece);
        }
        true
    }

    fn note_writes(&mut self, address: PhysicalAddress, length: usize) {
        let end = address.0 + length as u64;
        let mut here = address.0;
        while here < end {
            let next = ((here & !(PAGE - 1)) + PAGE).min(end);
            self.note_write(PhysicalAddress(here), (next - here) as u32);
            here = next;
        }
    }

    /// Reads a little-endian doubleword, as a page walk does; all ones where there is no memory.
    #[must_use]
    pub fn read_u32(&self, address: PhysicalAddress) -> u32 {
        u32::from_le_bytes(self.read_entry(address))
    }

    /// Reads a little-endian quadword; all ones where there is no memory.
    #[must_use]
    pub fn read_u64(&self, address: PhysicalAddress) -> u64 {
        u64::from_le_bytes(self.read_entry(address))
    }

    #[inline]
    fn read_entry<const BYTES: usize>(&self, address: PhysicalAddress) -> [u8; BYTES] {
        let within = address.page_offset() as usize;
        match self.page_kind(address) {
            PageKind::Ram(page) if within + BYTES <= PAGE as usize => {
                // SAFETY: RAM is mapped from `base` on, this page of it at offset `page`, and the
                // bytes do not leave the page; only this thread runs the guest meanwhile.
                unsafe { self.base.add(page as usize + within).cast::<[u8; BYTES]>().read() }
            }
            _ => {
                let mut bytes = [0xff; BYTES];
                self.read(address, &mut bytes);
                bytes
            }
        }
    }

    /// Makes `owner` (any number but 0) the one whose decoded code is watched. False when it was not
    /// so before: what it has decoded may have changed unseen, and is to be dropped.
    pub fn own_code(&mut self, owner: u64) -> bool {
        if self.code_owner == owner {
            return true;
        }
        self.forget_code();
        self.code_owner = owner;
        false
    }

    /// Ends every watch: from now on nobody's decoded code holds.
    pub fn forget_code(&mut self) {
        self.watched.fill(0);
        self.code_writes.clear();
        self.code_owner = 0;
    }

    /// Starts to watch a page of RAM because code from it was decoded, translated or patched.
    /// True when it was not watched before: cached permissions to write it are to be withdrawn.
    pub fn watch_code(&mut self, page: PhysicalAddress) -> bool {
        let (word, bit) = Self::watch_bit(page);
        match self.watched.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    /// Ends the watch over a page.
    pub fn unwatch_code(&mut self, page: PhysicalAddress) {
        let (word, bit) = Self::watch_bit(page);
        if let Some(bits) = self.watched.get_mut(word) {
            *bits &= !bit;
        }
    }

    /// Whether writes to the page that holds `address` are watched.
    #[inline]
    #[must_use]
    pub fn is_watched(&self, address: PhysicalAddress) -> bool {
        let (word, bit) = Self::watch_bit(address);
        self.watched.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn watch_bit(address: PhysicalAddress) -> (usize, u64) {
        let page = address.page();
        ((page / 64) as usize, 1 << (page % 64))
    }

    /// Notes a write of `length` bytes within one page; kept only if the page is watched.
    #[inline]
    pub fn note_write(&mut self, address: PhysicalAddress, length: u32) {
        if self.is_watched(address) {
            self.code_writes.push(CodeWrite { address, length });
        }
    }

    /// Notes all watched pages as written: for engines that do not see what the guest writes.
    pub fn note_all_watched(&mut self) {
        self.code_writes.clear();
        for (word, &bits) in (0u64..).zip(&self.watched) {
            for bit in (0..64).filter(|bit| bits & 1 << bit != 0) {
                let address = PhysicalAddress((word * 64 + bit) * PAGE);
                self.code_writes.push(CodeWrite { address, length: PAGE as u32 });
            }
        }
    }

    /// Whether watched pages were written since the last [`Memory::take_code_writes`].
    #[inline]
    #[must_use]
    pub fn code_was_written(&self) -> bool {
        !self.code_writes.is_empty()
    }

    /// Says which physical bytes are being executed from a decoded copy.
    #[inline]
    pub fn set_executing(&mut self, bytes: std::ops::Range<u64>) {
        self.executing = bytes;
    }

    /// Whether any of these bytes is being executed from a decoded copy.
    #[inline]
    #[must_use]
    pub fn is_executing(&self, address: PhysicalAddress, length: u32) -> bool {
        address.0 < self.executing.end && self.executing.start < address.0 + u64::from(length)
    }

    /// Takes the writes to watched pages, oldest first.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        std::mem::take(&mut self.code_writes)
    }

    /// As [`Memory::take_code_writes`], into memory that is there already.
    pub fn exchange_code_writes(&mut self, writes: &mut Vec<CodeWrite>) {
        writes.clear();
        std::mem::swap(&mut self.code_writes, writes);
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory {{ ram: {:#x}, rom: {:#x} }}", self.ram_bytes, self.rom_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_appears_at_both_of_its_places() {
        let rom: Vec<u8> = (0..0x2_0000u32).map(|i| (i >> 8) as u8).collect();
        let memory = Memory::new(2 << 20, &rom).unwrap();
        let mut high = [0; 16];
        assert!(memory.read(PhysicalAddress(0xffff_fff0), &mut high));
        assert_eq!(high, rom[0x1_fff0..]);
        let mut low = [0; 16];
        assert!(memory.read(PhysicalAddress(0xf_fff0), &mut low));
        assert_eq!(low, high);
        assert!(matches!(memory.page_kind(PhysicalAddress(0xffff_f000)), PageKind::Rom(_)));
        assert!(matches!(memory.page_kind(PhysicalAddress(0xf_f000)), PageKind::Rom(0xf_f000)));
    }

    #[test]
    fn the_vga_hole_and_absent_memory_are_devices() {
        let memory = Memory::new(1 << 20, &[]).unwrap();
        assert_eq!(memory.page_kind(PhysicalAddress(0xb_8000)), PageKind::Device);
        assert_eq!(memory.page_kind(PhysicalAddress(1 << 20)), PageKind::Device);
        assert_eq!(memory.page_kind(PhysicalAddress(1 << 36)), PageKind::Device);
        assert!(!memory.read(PhysicalAddress(0x9_fffe), &mut [0; 4]));
        assert_eq!(memory.read_u32(PhysicalAddress(0x9_fffe)), u32::MAX);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for bytes in [0, 4096, (1 << 20) + 1, 4 << 30] {
            assert!(matches!(Memory::new(bytes, &[]), Err(Error::MemorySize { .. })), "{bytes}");
        }
    }

    #[test]
    fn writes_to_watched_pages_are_noted_page_by_page() {
        let mut memory = Memory::new(1 << 20, &[]).unwrap();
        assert!(memory.watch_code(PhysicalAddress(0x2000)));
        assert!(!memory.watch_code(PhysicalAddress(0x2fff)));
        assert!(memory.write(PhysicalAddress(0x1ffe), &[1; 4]));
        let write = CodeWrite { address: PhysicalAddress(0x2000), length: 2 };
        assert_eq!(memory.take_code_writes(), [write]);
        memory.note_all_watched();
        let whole = CodeWrite { address: PhysicalAddress(0x2000), length: 4096 };
        assert_eq!(memory.take_code_writes(), [whole]);
        memory.unwatch_code(PhysicalAddress(0x2000));
        assert!(memory.write(PhysicalAddress(0x2000), &[1; 4]));
        assert!(!memory.code_was_written());
    }
}
