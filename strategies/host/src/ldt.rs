//! Descriptors in the host's local descriptor table (Intel SDM volume 3, 3.5.1; modify_ldt(2)).
//!
//! The table belongs to the process, so entries are handed out under one lock. The kernel accepts
//! only code and data segments with DPL 3: neither gates nor 64-bit code can be had this way.

use crate::Error;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Entries in a full table.
const ENTRIES: usize = 8192;
/// The entry that is handed out first. Guests that have an LDT use its beginning: their selectors
/// find nothing in the host's table, and so are noticed.
const FIRST: usize = 1024;
/// modify_ldt's function "write an entry".
const WRITE: libc::c_int = 0x11;

/// Which entries are taken, a bit each.
static TAKEN: Mutex<[u64; ENTRIES / 64]> = Mutex::new([0; ENTRIES / 64]);

/// What a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Data that may be read and written.
    Data,
    /// Data that may only be read.
    ReadOnlyData,
    /// Expand-down data that may be read and written.
    ExpandDown,
    /// Code that may be executed and read.
    Code,
    /// Code that may only be executed.
    ExecuteOnlyCode,
}

/// A segment with DPL 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentDescriptor {
    /// Linear address of the first byte.
    pub base: u32,
    /// Last valid offset, in bytes. Above 1 MiB the low 12 bits count as ones.
    pub limit: u32,
    /// What it holds.
    pub kind: SegmentKind,
    /// D/B: 32-bit code, stack or upper bound.
    pub is_32bit: bool,
}

impl SegmentDescriptor {
    /// The `user_desc` of asm/ldt.h.
    fn encode(self, entry: u32) -> [u32; 4] {
        let in_pages = self.limit > 0xf_ffff;
        let limit = if in_pages { self.limit >> 12 } else { self.limit };
        let (contents, restricted) = match self.kind {
            SegmentKind::Data => (0, 0),
            SegmentKind::ReadOnlyData => (0, 1),
            SegmentKind::ExpandDown => (1, 0),
            SegmentKind::Code => (2, 0),
            SegmentKind::ExecuteOnlyCode => (2, 1),
        };
        let flags = u32::from(self.is_32bit)
            | contents << 1
            | restricted << 3
            | u32::from(in_pages) << 4
            | 1 << 6;
        [entry, self.base, limit, flags]
    }
}

/// An entry of the LDT that is given back on drop.
///
/// No thread may run with its selector after that; the kernel does not check registers that are
/// loaded, but refuses to return to them.
#[derive(Debug)]
pub struct LdtEntry {
    index: u32,
}

impl LdtEntry {
    /// Takes a free entry and writes `descriptor` to it.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    pub fn new(descriptor: SegmentDescriptor) -> Result<LdtEntry, Error> {
        let entry = LdtEntry { index: take()? };
        entry.write(descriptor)?;
        Ok(entry)
    }

    /// Replaces the descriptor. Registers that are loaded keep the old one until they are reloaded.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write(&self, descriptor: SegmentDescriptor) -> Result<(), Error> {
        modify_ldt(descriptor.encode(self.index))
    }

    /// The selector that names this entry, with RPL 3.
    #[must_use]
    pub fn selector(&self) -> u16 {
        (self.index << 3 | 7) as u16
    }
}

impl Drop for LdtEntry {
    fn drop(&mut self) {
        // The kernel's form of "empty": not present, read-only, nothing else.
        let emptied = modify_ldt([self.index, 0, 0, 1 << 3 | 1 << 5]);
        debug_assert!(emptied.is_ok(), "{emptied:?}");
        give_back(self.index);
    }
}

fn take() -> Result<u32, Error> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut words = (FIRST / 64..ENTRIES / 64).chain(0..FIRST / 64);
    let word = words.find(|&word| taken[word] != u64::MAX).ok_or(Error::LdtFull)?;
    let bit = taken[word].trailing_ones();
    taken[word] |= 1 << bit;
    Ok(word as u32 * 64 + bit)
}

fn give_back(index: u32) {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    taken[index as usize / 64] &= !(1 << (index % 64));
}

fn modify_ldt(descriptor: [u32; 4]) -> Result<(), Error> {
    // SAFETY: the kernel reads 16 bytes from a live array. Rust code uses no LDT segment, so no
    // descriptor written here can affect it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_modify_ldt,
            WRITE,
            descriptor.as_ptr(),
            std::mem::size_of_val(&descriptor),
        )
    };
    // The kernel returns 32 bits here, so the C library does not see that it is negative.
    match result as i32 {
        0 => Ok(()),
        -1 => Err(Error::last("modify_ldt")),
        error => Err(Error::Host {
            what: "modify_ldt",
            source: io::Error::from_raw_os_error(error.wrapping_neg()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: SegmentKind) -> SegmentDescriptor {
        SegmentDescriptor { base: 0x1234, limit: 0xffff, kind, is_32bit: true }
    }

    /// What LSL makes of a selector: its limit, or nothing.
    fn segment_limit(selector: u16) -> Option<u32> {
        let limit: u32;
        let valid: u8;
        // SAFETY: LSL only reads a descriptor.
        unsafe {
            core::arch::asm!(
                "lsl {limit:e}, {selector:e}", "setz {valid}",
                selector = in(reg) u32::from(selector),
                limit = lateout(reg) limit,
                valid = lateout(reg_byte) valid,
                options(nomem, nostack),
            );
        }
        (valid != 0).then_some(limit)
    }

    #[test]
    fn an_entry_exists_until_it_is_dropped() {
        let entry = LdtEntry::new(descriptor(SegmentKind::Data)).unwrap();
        let selector = entry.selector();
        assert_eq!(segment_limit(selector), Some(0xffff));
        drop(entry);
        assert_ne!(segment_limit(selector), Some(0xffff));
    }

    #[test]
    fn entries_are_distinct_and_can_be_rewritten() {
        let first = LdtEntry::new(descriptor(SegmentKind::Code)).unwrap();
        let second = LdtEntry::new(descriptor(SegmentKind::ExpandDown)).unwrap();
        assert_ne!(first.selector(), second.selector());
        first
            .write(SegmentDescriptor { limit: 0x12_3fff, ..descriptor(SegmentKind::Code) })
            .unwrap();
        assert_eq!(segment_limit(first.selector()), Some(0x12_3fff));
    }

    #[test]
    fn a_refusal_carries_the_kernels_reason() {
        // An entry past the end of any table.
        let Err(Error::Host { source, .. }) = modify_ldt([1 << 20, 0, 0, 1]) else {
            panic!("accepted");
        };
        assert_eq!(source.raw_os_error(), Some(libc::EINVAL));
    }
}
