//! Memory below 4 GiB, at an address of the caller's choice: what 32-bit code can reach.

use crate::Error;
use std::ptr::{self, NonNull};

const PAGE: usize = 4096;

/// What code may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Nothing: a touch is a page fault.
    None,
    /// Read and execute.
    Read,
    /// Read, write and execute: IA-32 paging without NX knows no other kind.
    Write,
    /// Read; a fetch is a page fault.
    ReadData,
    /// Read and write; a fetch is a page fault.
    WriteData,
    /// Execute; where the CPU has protection keys (PKU), a read or a write is a page fault.
    Execute,
}

impl Protection {
    pub(crate) fn flags(self) -> libc::c_int {
        match self {
            Protection::None => libc::PROT_NONE,
            Protection::Read => libc::PROT_READ | libc::PROT_EXEC,
            Protection::Write => libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            Protection::ReadData => libc::PROT_READ,
            Protection::WriteData => libc::PROT_READ | libc::PROT_WRITE,
            Protection::Execute => libc::PROT_EXEC,
        }
    }
}

/// Zeroed private pages below 4 GiB. The host may always read and write them through
/// [`LowMemory::read`] and [`LowMemory::write`], whatever their protection says to 32-bit code:
/// the same pages are mapped a second time for that.
#[derive(Debug)]
pub struct LowMemory {
    low: NonNull<u8>,
    alias: NonNull<u8>,
    length: usize,
}

// SAFETY: the mappings belong to this value and not to a thread.
unsafe impl Send for LowMemory {}

impl LowMemory {
    /// Maps `length` bytes at `address`, both multiples of the page size, writable at first.
    ///
    /// # Errors
    /// When something is mapped there already, the range is not within 4 GiB, or the host
    /// forbids it (`vm.mmap_min_addr`).
    pub fn new(address: u32, length: usize) -> Result<LowMemory, Error> {
        let invalid = |why: &str| Error::Host {
            what: "map memory below 4 GiB",
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, why),
        };
        if !(address as usize).is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) || length == 0 {
            return Err(invalid("address or length is not a multiple of the page size"));
        }
        if address == 0 || u64::from(address) + length as u64 > 1 << 32 {
            return Err(invalid("the range does not lie between 0 and 4 GiB"));
        }
        let alias = map_shared(length)?;
        // SAFETY: an old size of 0 maps the shared pages a second time (mremap(2)), elsewhere.
        let low = unsafe { map_again(alias, address as usize, length) };
        let low = low.inspect_err(|_| {
            // SAFETY: the mapping made above, to which no pointer was handed out.
            unsafe { libc::munmap(alias.as_ptr().cast(), length) };
        })?;
        Ok(LowMemory { low, alias, length })
    }

    /// Changes what 32-bit code may do with a range of pages.
    ///
    /// # Errors
    /// When the range leaves the mapping or is not made of pages, or the host refuses.
    pub fn protect(
        &mut self,
        offset: usize,
        length: usize,
        protection: Protection,
    ) -> Result<(), Error> {
        self.check(offset, length);
        // SAFETY: the range lies in the low mapping, which no Rust reference points into.
        let result = unsafe {
            libc::mprotect(self.low.as_ptr().add(offset).cast(), length, protection.flags())
        };
        if result == 0 { Ok(()) } else { Err(Error::last("mprotect")) }
    }

    /// Copies out.
    ///
    /// # Panics
    /// When the range leaves the mapping.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        self.check(offset, data.len());
        // SAFETY: checked to lie within the alias, which is always readable.
        unsafe {
            ptr::copy_nonoverlapping(
                self.alias.as_ptr().add(offset),
                data.as_mut_ptr(),
                data.len(),
            );
        }
    }

    /// Copies in.
    ///
    /// # Panics
    /// When the range leaves the mapping.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.check(offset, data.len());
        // SAFETY: checked to lie within the alias, which is always writable.
        unsafe {
            ptr::copy_nonoverlapping(data.as_ptr(), self.alias.as_ptr().add(offset), data.len());
        }
    }

    /// The first byte's linear address.
    #[must_use]
    pub fn address(&self) -> u32 {
        self.low.as_ptr() as usize as u32
    }

    fn check(&self, offset: usize, length: usize) {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        assert!(inside, "{length:#x} bytes at {offset:#x} of {:#x}", self.length);
    }
}

impl Drop for LowMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings are this value's own, and no reference into them was handed out.
        unsafe {
            libc::munmap(self.low.as_ptr().cast(), self.length);
            libc::munmap(self.alias.as_ptr().cast(), self.length);
        }
    }
}

fn map_shared(length: usize) -> Result<NonNull<u8>, Error> {
    let flags = libc::MAP_ANONYMOUS | libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), length, Protection::Write.flags(), flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Error::last("mmap")) } else { non_null(at, "mmap") }
}

/// # Safety
/// `pages` must be a shared mapping of `length` bytes.
unsafe fn map_again(
    pages: NonNull<u8>,
    address: usize,
    length: usize,
) -> Result<NonNull<u8>, Error> {
    // mremap's MREMAP_FIXED would replace what is there: reserve the place first.
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: FIXED_NOREPLACE replaces nothing.
    let place =
        unsafe { libc::mmap(address as *mut libc::c_void, length, libc::PROT_NONE, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(Error::last("map memory below 4 GiB"));
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the target is the reservation just made.
    let at = unsafe { libc::mremap(pages.as_ptr().cast(), 0, length, flags, place) };
    if at == libc::MAP_FAILED {
        let error = Error::last("map memory below 4 GiB a second time");
        // SAFETY: the reservation is still this function's own.
        unsafe { libc::munmap(place, length) };
        return Err(error);
    }
    // The pages exist already; entering them in the page tables now makes every later fault one
    // of protection and not of absence.
    // SAFETY: populating changes no contents.
    unsafe { libc::madvise(at, length, libc::MADV_POPULATE_WRITE) };
    non_null(at, "mremap")
}

fn non_null(at: *mut libc::c_void, what: &'static str) -> Result<NonNull<u8>, Error> {
    NonNull::new(at.cast()).ok_or_else(|| Error::last(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_not_mapped_over() {
        let mut memory = LowMemory::new(0x5000_0000, 0x2000).unwrap();
        memory.write(0xfff, &[1, 2]);
        assert!(LowMemory::new(0x5000_1000, 0x1000).is_err());
        let mut data = [0; 3];
        memory.read(0xffe, &mut data);
        assert_eq!(data, [0, 1, 2]);
    }

    #[test]
    fn protected_pages_stay_open_to_the_host() {
        let mut memory = LowMemory::new(0x5001_0000, 0x1000).unwrap();
        memory.protect(0, 0x1000, Protection::None).unwrap();
        memory.write(0, &[7]);
        let mut data = [0];
        memory.read(0, &mut data);
        assert_eq!(data, [7]);
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for (address, length) in
            [(0, 0x1000), (0x5002_0001, 0x1000), (0x5002_0000, 1), (0xffff_f000, 0x2000)]
        {
            assert!(LowMemory::new(address, length).is_err());
        }
    }
}
