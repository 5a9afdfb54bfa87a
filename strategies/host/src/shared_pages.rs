//! Pages that the monitor writes and guest code may see: a memory file with a view of the monitor's
//! own. What of it a window shows, where and with what rights, is the window's owner's business.

use crate::Error;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{self, NonNull};

/// A memory file, zeroed at first, that takes space only where it was written.
#[derive(Debug)]
pub struct SharedPages {
    file: File,
    view: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value and not to a thread.
unsafe impl Send for SharedPages {}

impl SharedPages {
    /// A file of `bytes`, a multiple of the page size.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn new(bytes: usize) -> Result<SharedPages, Error> {
        // SAFETY: the name is a C string; the descriptor is checked.
        let fd = unsafe { libc::memfd_create(c"ringside-code".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last("memfd_create"));
        }
        // SAFETY: a descriptor that was just made and that nobody else has.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes as u64).map_err(|source| Error::Host { what: "ftruncate", source })?;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, flags, file.as_raw_fd(), 0) };
        let failed = || Error::last("map code pages");
        if at == libc::MAP_FAILED {
            return Err(failed());
        }
        let view = NonNull::new(at.cast()).ok_or_else(failed)?;
        Ok(SharedPages { file, view, bytes })
    }

    /// The file, to be mapped elsewhere.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Copies in.
    ///
    /// # Panics
    /// When the range leaves the file.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.check(offset, data.len());
        // SAFETY: checked to lie within the mapping; what shows the same pages elsewhere is guest
        // code's, which does not run meanwhile.
        unsafe {
            ptr::copy_nonoverlapping(data.as_ptr(), self.view.as_ptr().add(offset), data.len());
        }
    }

    /// Copies out.
    ///
    /// # Panics
    /// When the range leaves the file.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        self.check(offset, data.len());
        // SAFETY: as in `write`.
        unsafe {
            ptr::copy_nonoverlapping(self.view.as_ptr().add(offset), data.as_mut_ptr(), data.len());
        }
    }

    fn check(&self, offset: usize, length: usize) {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{length:#x} bytes at {offset:#x} of {:#x}", self.bytes);
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, into which no reference was handed out.
        unsafe { libc::munmap(self.view.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut pages = SharedPages::new(8192).unwrap();
        pages.write(4094, &[1, 2, 3]);
        let mut data = [9; 4];
        pages.read(4093, &mut data);
        assert_eq!(data, [0, 1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "bytes at")]
    fn what_lies_behind_is_not_touched() {
        SharedPages::new(4096).unwrap().write(4095, &[0; 2]);
    }
}
