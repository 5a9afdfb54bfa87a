//! Windows anywhere in the host's address space: 4 GiB in which guest pages are shown, with guard
//! pages on both sides.
//!
//! Translated code reaches its guest's memory through one of them and nothing else: 32-bit
//! addresses plus the window's base cannot leave it by more than an operand's size, and the guard
//! pages are never mapped. The base is a multiple of 4 GiB, so that the low half of a host address
//! in the window is the guest's linear address. Which pages to show is the caller's business.

use crate::Error;
use crate::low_memory::Protection;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

const PAGE: u64 = 4096;
/// Bytes of a window.
pub const WINDOW_BYTES: u64 = 1 << 32;
/// Bytes of inaccessible memory on each side.
const GUARD: usize = 1 << 16;

/// Pages above which a mapping's page tables are not filled in advance.
const POPULATED: u64 = 64;

/// A window of 4 GiB; nothing is shown in it at first.
#[derive(Debug)]
pub struct AddressWindow {
    base: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value and not to a thread.
unsafe impl Send for AddressWindow {}

impl AddressWindow {
    /// Reserves the addresses.
    ///
    /// # Errors
    /// When the host refuses, as it does past a limit on address space (RLIMIT_AS).
    pub fn new() -> Result<AddressWindow, Error> {
        let window = WINDOW_BYTES as usize;
        let whole = 2 * window + 2 * GUARD;
        let start = blank(ptr::null_mut(), whole, 0)?.as_ptr();
        let base = start.map_addr(|address| (address + GUARD).next_multiple_of(window));
        let before = base.addr() - GUARD - start.addr();
        let after = whole - before - window - 2 * GUARD;
        // SAFETY: the two ends of the reservation just made, outside of what is kept.
        unsafe {
            if before > 0 {
                libc::munmap(start.cast(), before);
            }
            if after > 0 {
                libc::munmap(base.add(window + GUARD).cast(), after);
            }
        }
        let base = NonNull::new(base).ok_or_else(|| Error::last("reserve addresses"))?;
        Ok(AddressWindow { base })
    }

    /// The host address that shows linear address 0: a multiple of 4 GiB.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Shows `pages` (linear addresses, page-aligned) of `file` from `offset` on; never executable.
    ///
    /// # Errors
    /// When the range is not the window's, or the host refuses, as it does past
    /// `vm.max_map_count` mappings.
    pub fn map(
        &mut self,
        pages: &Range<u64>,
        file: &File,
        offset: u64,
        protection: Protection,
    ) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        let populate =
            if (pages.end - pages.start) / PAGE <= POPULATED { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | populate;
        let fd = file.as_raw_fd();
        // SAFETY: replaces part of this value's own reservation, into which no reference points.
        let mapped =
            unsafe { libc::mmap(address, length, data(protection), flags, fd, offset as i64) };
        if mapped == libc::MAP_FAILED { Err(Error::last("map guest memory")) } else { Ok(()) }
    }

    /// Changes the rights to pages that are shown.
    ///
    /// # Errors
    /// As [`AddressWindow::map`].
    pub fn protect(&mut self, pages: &Range<u64>, protection: Protection) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        // SAFETY: changes part of this value's own reservation, into which no reference points.
        match unsafe { libc::mprotect(address, length, data(protection)) } {
            0 => Ok(()),
            _ => Err(Error::last("protect guest memory")),
        }
    }

    /// Makes pages inaccessible again.
    ///
    /// # Errors
    /// As [`AddressWindow::map`].
    pub fn unmap(&mut self, pages: &Range<u64>) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        blank(address, length, libc::MAP_FIXED).map(|_| ())
    }

    fn check(&self, pages: &Range<u64>) -> Result<(*mut libc::c_void, usize), Error> {
        let aligned = pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE);
        if !aligned || pages.end > WINDOW_BYTES || pages.is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a range of the window");
            return Err(Error::Host { what: "map guest memory", source });
        }
        // SAFETY: checked to lie within the reservation.
        let address = unsafe { self.base.as_ptr().add(pages.start as usize) };
        Ok((address.cast(), (pages.end - pages.start) as usize))
    }
}

impl Drop for AddressWindow {
    fn drop(&mut self) {
        // SAFETY: this value's own reservation, into which no reference points.
        unsafe {
            let start = self.base.as_ptr().sub(GUARD);
            libc::munmap(start.cast(), WINDOW_BYTES as usize + 2 * GUARD);
        }
    }
}

/// Data access alone: what the window shows is never run.
fn data(protection: Protection) -> libc::c_int {
    protection.flags() & !libc::PROT_EXEC
}

/// Maps inaccessible memory that takes no space.
fn blank(
    address: *mut libc::c_void,
    length: usize,
    fixed: libc::c_int,
) -> Result<NonNull<u8>, Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    // SAFETY: without MAP_FIXED nothing is replaced; with it `AddressWindow::check` has found the
    // range to be the window's own.
    let mapped = unsafe { libc::mmap(address, length, libc::PROT_NONE, flags, -1, 0) };
    let refused = || Error::last("reserve addresses");
    if mapped == libc::MAP_FAILED {
        return Err(refused());
    }
    NonNull::new(mapped.cast()).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn pages_of_a_file_are_shown_at_their_linear_address() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE).unwrap();
        file.write_all_at(b"ringside", PAGE).unwrap();
        let mut window = AddressWindow::new().unwrap();
        assert!(window.base().is_multiple_of(WINDOW_BYTES));
        let last = WINDOW_BYTES - PAGE..WINDOW_BYTES;
        window.map(&last, &file, PAGE, Protection::Read).unwrap();
        let shown = (window.base() + last.start) as usize as *const [u8; 8];
        // SAFETY: mapped above, readable.
        assert_eq!(unsafe { shown.read() }, *b"ringside");
        window.protect(&last, Protection::None).unwrap();
        window.unmap(&last).unwrap();
    }

    #[test]
    fn what_is_not_the_windows_is_refused() {
        let mut window = AddressWindow::new().unwrap();
        for range in [WINDOW_BYTES..WINDOW_BYTES + PAGE, 1..PAGE, PAGE..PAGE] {
            assert!(window.unmap(&range).is_err(), "{range:?}");
        }
    }
}
