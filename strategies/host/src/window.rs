//! The window at linear address 0: the guest's address space where its own code can reach it.
//!
//! A reservation of everything below 4 GiB in which guest pages are mapped from the guest's memfd.
//! It begins without access, so that every first touch is a fault; which pages to map, and with
//! what rights, is the caller's business. There is one such place in a process, so there is at most
//! one window at a time.

use crate::Error;
use crate::low_memory::Protection;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: u64 = 4096;
const END: u64 = 1 << 32;

/// Where the reservation may begin: at 0 with the right to map there, else above the kernel's
/// customary values of `vm.mmap_min_addr`.
const STARTS: [u64; 3] = [0, 4096, 65536];

static TAKEN: AtomicBool = AtomicBool::new(false);

/// All linear addresses below 4 GiB, but for the first few where the host forbids those.
#[derive(Debug)]
pub struct LowWindow {
    start: u64,
}

impl LowWindow {
    /// Reserves the addresses.
    ///
    /// # Errors
    /// When another window exists in this process, something else is mapped there, or the host
    /// refuses.
    pub fn new() -> Result<LowWindow, Error> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy);
        }
        let reserved = STARTS.iter().find(|&&start| reserve(start).is_ok());
        match reserved {
            Some(&start) => Ok(LowWindow { start }),
            None => {
                TAKEN.store(false, Ordering::Release);
                Err(Error::last("reserve the addresses below 4 GiB"))
            }
        }
    }

    /// The first address that can be mapped: 0, or what the host allows to those without rights.
    #[must_use]
    pub fn start(&self) -> u32 {
        self.start as u32
    }

    /// Maps `pages` of the window (linear addresses, page-aligned) to `file` from `offset` on.
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
        self.map_with(pages, (file, offset), protection, libc::MAP_POPULATE)
    }

    /// As [`LowWindow::map`], for ranges of which few pages will be touched.
    ///
    /// # Errors
    /// As [`LowWindow::map`].
    pub fn map_lazily(
        &mut self,
        pages: &Range<u64>,
        file: &File,
        offset: u64,
        protection: Protection,
    ) -> Result<(), Error> {
        self.map_with(pages, (file, offset), protection, 0)
    }

    fn map_with(
        &mut self,
        pages: &Range<u64>,
        (file, offset): (&File, u64),
        protection: Protection,
        populate: libc::c_int,
    ) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | populate;
        // SAFETY: replaces part of this value's own reservation, into which no reference points.
        let mapped = unsafe {
            libc::mmap(address, length, protection.flags(), flags, file.as_raw_fd(), offset as i64)
        };
        if mapped == libc::MAP_FAILED { Err(Error::last("map guest memory")) } else { Ok(()) }
    }

    /// Changes the rights to pages that are mapped.
    ///
    /// # Errors
    /// As [`LowWindow::map`].
    pub fn protect(&mut self, pages: &Range<u64>, protection: Protection) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        // SAFETY: changes part of this value's own reservation, into which no reference points.
        match unsafe { libc::mprotect(address, length, protection.flags()) } {
            0 => Ok(()),
            _ => Err(Error::last("protect guest memory")),
        }
    }

    /// Makes pages inaccessible again.
    ///
    /// # Errors
    /// As [`LowWindow::map`].
    pub fn unmap(&mut self, pages: &Range<u64>) -> Result<(), Error> {
        let (address, length) = self.check(pages)?;
        blank(address, length, libc::MAP_FIXED)
    }

    fn check(&self, pages: &Range<u64>) -> Result<(*mut libc::c_void, usize), Error> {
        let aligned = pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE);
        if !aligned || pages.start < self.start || pages.end > END || pages.is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a range of the window");
            return Err(Error::Host { what: "map guest memory", source });
        }
        Ok((ptr::without_provenance_mut(pages.start as usize), (pages.end - pages.start) as usize))
    }
}

impl Drop for LowWindow {
    fn drop(&mut self) {
        // SAFETY: this value's own reservation, into which no reference points.
        unsafe {
            let start = ptr::without_provenance_mut(self.start as usize);
            libc::munmap(start, (END - self.start) as usize);
        }
        TAKEN.store(false, Ordering::Release);
    }
}

fn reserve(start: u64) -> Result<(), Error> {
    let address = ptr::without_provenance_mut(start as usize);
    blank(address, (END - start) as usize, libc::MAP_FIXED_NOREPLACE)
}

/// Maps inaccessible memory that takes no space.
fn blank(address: *mut libc::c_void, length: usize, fixed: libc::c_int) -> Result<(), Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    // SAFETY: with MAP_FIXED_NOREPLACE nothing is replaced; with MAP_FIXED `LowWindow::check` has
    // found the range to be the window's own.
    let mapped = unsafe { libc::mmap(address, length, libc::PROT_NONE, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(Error::last("reserve addresses")) } else { Ok(()) }
}
