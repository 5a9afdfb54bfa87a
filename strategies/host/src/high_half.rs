//! Frames for stacks of 16 bits.
//!
//! IRETQ to a 16-bit stack segment loads SP only: bits 16 to 31 of ESP stay as they are in the RSP
//! that pointed to the frame. So a frame for such a stack is placed at an address with just those
//! bits (the kernel's espfix does the same for its own returns).

use crate::Error;
use crate::world_switch::InterruptFrame;
use std::ptr;

const PAGE: usize = 4096;
/// Where the frames are: 4 GiB of addresses that nothing else is mapped to by chance.
const BASE: usize = 0x6000_0000_0000;

/// A page whose address has chosen bits 16 to 31.
#[derive(Debug)]
pub(crate) struct HighHalf {
    page: *mut InterruptFrame,
    high: u32,
}

impl HighHalf {
    /// A place for frames with the upper half of `esp` in bits 16 to 31 of its address.
    ///
    /// # Errors
    /// When the host does not give that page.
    pub(crate) fn new(esp: u32) -> Result<HighHalf, Error> {
        let high = esp & 0xffff_0000;
        let address = ptr::without_provenance_mut(BASE | high as usize);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: replaces nothing.
        let page = unsafe { libc::mmap(address, PAGE, rights, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(Error::last("map a page for a 16-bit stack's frame"));
        }
        Ok(HighHalf { page: page.cast(), high })
    }

    /// Whether this place is for `esp`.
    pub(crate) fn serves(&self, esp: u32) -> bool {
        esp & 0xffff_0000 == self.high
    }

    /// Puts a frame there.
    pub(crate) fn place(&mut self, frame: InterruptFrame) -> *const InterruptFrame {
        // SAFETY: the page is this value's own, large enough and aligned.
        unsafe { self.page.write(frame) };
        self.page
    }
}

impl Drop for HighHalf {
    fn drop(&mut self) {
        // SAFETY: the page is this value's own; no frame on it is in use between stays.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
    }
}
