//! The code cache's memory: one executable mapping, filled from its start until it is full and then
//! emptied as a whole.

use host::Error;
use std::ops::Range;
use std::ptr::{self, NonNull};

/// Units begin with a line of the host's cache: what is jumped to near a line's end takes two to be
/// fetched, and a loop there took up to twice as long (measured on Zen 4).
const ALIGNMENT: usize = 64;
/// Bytes of the cache.
const BYTES: usize = 64 << 20;
/// Bytes of the stack of return addresses: 32,768 of them, with a guard below.
const STACK: usize = 256 << 10;
const GUARD: usize = 4096;
/// Sentinels above the stack's top.
const SENTINELS: usize = 64;

/// Executable memory and the stack of return addresses.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    code: NonNull<u8>,
    stack: NonNull<u8>,
    used: usize,
    /// Behind the fixed parts.
    first: usize,
}

// SAFETY: the mappings belong to this value and not to a thread.
unsafe impl Send for CodeMemory {}

fn map(length: usize, protection: libc::c_int) -> Result<NonNull<u8>, Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    let failed =
        || Error::Host { what: "map a code cache", source: std::io::Error::last_os_error() };
    if at == libc::MAP_FAILED { Err(failed()) } else { NonNull::new(at.cast()).ok_or_else(failed) }
}

impl CodeMemory {
    pub(crate) fn new() -> Result<CodeMemory, Error> {
        let code = map(BYTES, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
        let stack = map(STACK, libc::PROT_READ | libc::PROT_WRITE).inspect_err(|_| {
            // SAFETY: the mapping just made.
            unsafe { libc::munmap(code.as_ptr().cast(), BYTES) };
        })?;
        // SAFETY: the first page of the mapping just made.
        unsafe { libc::mprotect(stack.as_ptr().cast(), GUARD, libc::PROT_NONE) };
        Ok(CodeMemory { code, stack, used: 0, first: 0 })
    }

    /// The addresses of all code.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = self.code.as_ptr().addr() as u64;
        start..start + BYTES as u64
    }

    /// Where the next code will lie.
    pub(crate) fn next(&self) -> u64 {
        self.range().start + self.used as u64
    }

    /// Enters code that was made for [`CodeMemory::next`]; false when it is full.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.used + bytes.len() > BYTES {
            return false;
        }
        // SAFETY: checked to lie within the mapping, in a part that no code runs in now.
        unsafe {
            let to = self.code.as_ptr().add(self.used);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.used = (self.used + bytes.len()).next_multiple_of(ALIGNMENT);
        true
    }

    /// Keeps what is there as the fixed parts.
    pub(crate) fn keep(&mut self) {
        self.first = self.used;
    }

    /// Empties all but the fixed parts.
    pub(crate) fn clear(&mut self) {
        self.used = self.first;
    }

    /// Replaces bytes of code that is there.
    ///
    /// # Panics
    /// When they are not within the code.
    pub(crate) fn patch(&mut self, at: u64, bytes: &[u8]) {
        let offset = (at - self.range().start) as usize;
        assert!(offset + bytes.len() <= self.used, "a patch outside of the code");
        // SAFETY: checked to lie within code that no other thread runs, and this one not now.
        unsafe {
            let to = self.code.as_ptr().add(offset);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// The guard below the stack of return addresses.
    pub(crate) fn stack_guard(&self) -> Range<u64> {
        let start = self.stack.as_ptr().addr() as u64;
        start..start + GUARD as u64
    }

    /// The top of that stack: the first sentinel, to be returned to without a call.
    pub(crate) fn stack_top(&self) -> u64 {
        self.stack.as_ptr().addr() as u64 + (STACK - 8 * SENTINELS) as u64
    }

    /// Fills in what a return without its call goes to.
    pub(crate) fn set_sentinel(&mut self, target: u64) {
        // SAFETY: the last words of the stack's mapping.
        unsafe {
            let top = self.stack.as_ptr().add(STACK - 8 * SENTINELS).cast::<u64>();
            for index in 0..SENTINELS {
                top.add(index).write(target);
            }
        }
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings are this value's own, and no code runs in them.
        unsafe {
            libc::munmap(self.code.as_ptr().cast(), BYTES);
            libc::munmap(self.stack.as_ptr().cast(), STACK);
        }
    }
}
