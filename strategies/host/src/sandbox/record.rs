//! The crash record: what is known of a guest when its process is dead.
//!
//! A file of one page, shared with the parent, into which the monitor notes where it enters native
//! guest code, and its signal handler that 64-bit code has been found below 4 GiB: the guest has left
//! compatibility mode. A process that is killed then leaves an address behind. The parent must
//! take what it reads for a guest's word: it is a number to be shown, no more.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The page, as both sides see it.
#[derive(Debug)]
#[repr(C)]
struct Page {
    /// Where the guest escaped to, if it did.
    escaped_to: AtomicU64,
    /// The signal with which that was noticed; 0 if it did not.
    signal: AtomicU32,
    /// Whether native code was entered at all.
    entered: AtomicU32,
    /// Where it was entered last.
    eip: AtomicU32,
}

const BYTES: usize = size_of::<Page>();

/// The page of a process that nobody asks.
static NOBODYS: Page = Page {
    escaped_to: AtomicU64::new(0),
    signal: AtomicU32::new(0),
    entered: AtomicU32::new(0),
    eip: AtomicU32::new(0),
};

/// The page of this process. Never null; what it points to lives for ever.
static PAGE: AtomicPtr<Page> = AtomicPtr::new((&raw const NOBODYS).cast_mut());

/// What a dead process left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CrashRecord {
    /// The EIP at which native guest code was last entered.
    pub entered: Option<u32>,
    /// The 64-bit code that the guest had become.
    pub escape: Option<Escape>,
}

/// A guest that was found in 64-bit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Escape {
    /// Where it was.
    pub rip: u64,
    /// The signal with which it was noticed.
    pub signal: i32,
}

impl CrashRecord {
    /// Makes `file` the record of this process, until its end.
    ///
    /// # Errors
    /// When the file cannot be written or mapped.
    pub fn keep_in(file: &File) -> io::Result<()> {
        file.write_all_at(&[0; BYTES], 0)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, of a file that has these bytes.
        let page = unsafe {
            libc::mmap(ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        PAGE.store(page.cast(), Ordering::Release);
        Ok(())
    }

    /// Reads what a process that is gone left in `file`; nothing if it never came to that.
    #[must_use]
    pub fn read(file: &File) -> CrashRecord {
        let mut bytes = [0; BYTES];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return CrashRecord::default();
        }
        let [low, high, signal, entered, eip, _] = words(&bytes);
        let rip = u64::from(high) << 32 | u64::from(low);
        CrashRecord {
            entered: (entered != 0).then_some(eip),
            escape: (signal != 0).then_some(Escape { rip, signal: signal as i32 }),
        }
    }
}

fn words(bytes: &[u8; BYTES]) -> [u32; BYTES / 4] {
    let mut words = [0; BYTES / 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

fn page() -> &'static Page {
    // SAFETY: points to `NOBODYS` or to a mapping that is never removed, made of atomics.
    unsafe { &*PAGE.load(Ordering::Acquire) }
}

/// Notes that native guest code is about to be entered at `eip`.
pub(crate) fn entering(eip: u32) {
    let page = page();
    page.eip.store(eip, Ordering::Relaxed);
    page.entered.store(1, Ordering::Relaxed);
}

/// Notes that guest code was found in 64-bit mode. For signal handlers: touches nothing but the page.
pub(crate) fn escaped(signal: libc::c_int, rip: u64) {
    let page = page();
    page.escaped_to.store(rip, Ordering::Relaxed);
    page.signal.store(signal as u32, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_noted_is_read_by_another_through_the_file() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(CrashRecord::read(&file), CrashRecord::default());
        CrashRecord::keep_in(&file).unwrap();
        assert_eq!(CrashRecord::read(&file), CrashRecord::default());
        entering(0x10_1234);
        let entered = CrashRecord { entered: Some(0x10_1234), escape: None };
        assert_eq!(CrashRecord::read(&file), entered);
        escaped(libc::SIGILL, 0xfedc_ba98);
        let escape = Some(Escape { rip: 0xfedc_ba98, signal: libc::SIGILL });
        assert_eq!(CrashRecord::read(&file), CrashRecord { escape, ..entered });
    }
}
