//! Executable memory for stubs: one host function for each distinct instruction.
//!
//! Stubs are never freed. The forms of x87, MMX, SSE and SSE2 instructions are finite once memory
//! and general-register operands are replaced (under half a million, most of them immediates of
//! shuffles), so that no guest can fill the arena.

use memmap2::{Mmap, MmapMut, MmapOptions};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Address space for all stubs; the host gives memory only for what is written.
const BYTES: usize = 64 << 20;

/// A stub: its offset in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stub(pub(crate) u32);

struct Arena {
    writable: MmapMut,
    used: usize,
    known: HashMap<Vec<u8>, Stub>,
}

static EXECUTABLE: OnceLock<Option<(Mmap, Mutex<Arena>)>> = OnceLock::new();

fn arena() -> Option<&'static (Mmap, Mutex<Arena>)> {
    EXECUTABLE.get_or_init(|| map().ok()).as_ref()
}

/// Makes the arena now: a process that is about to be confined could not later.
pub fn prepare() {
    // What needs a stub and finds no arena says so.
    let _ = arena();
}

/// The same memory twice: writable and executable, so that no page ever is both.
fn map() -> std::io::Result<(Mmap, Mutex<Arena>)> {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    let file = File::from(memfd_create("ringside-stubs", MemfdFlags::CLOEXEC)?);
    ftruncate(&file, BYTES as u64)?;
    let mut options = MmapOptions::new();
    options.len(BYTES);
    // SAFETY: nobody else has the file, so that the mappings change only as this module writes.
    let executable = unsafe { options.map_exec(&file)? };
    // SAFETY: as above; stubs that were handed out are never written again.
    let writable = unsafe { options.map_mut(&file)? };
    Ok((executable, Mutex::new(Arena { writable, used: 0, known: HashMap::new() })))
}

/// The stub with this code, new or as it was made before. Nothing when the host gives no executable
/// memory.
pub(crate) fn stub(code: &[u8]) -> Option<Stub> {
    let mut arena = arena()?.1.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&stub) = arena.known.get(code) {
        return Some(stub);
    }
    let start = arena.used.next_multiple_of(16);
    let end = start + code.len();
    arena.writable.get_mut(start..end)?.copy_from_slice(code);
    arena.used = end;
    let stub = Stub(start as u32);
    arena.known.insert(code.to_vec(), stub);
    Some(stub)
}

/// The host address of a stub.
#[inline]
pub(crate) fn address(stub: Stub) -> *const u8 {
    // A stub exists only if the arena does.
    arena().map_or(std::ptr::null(), |(executable, _)| {
        executable.as_ptr().wrapping_add(stub.0 as usize)
    })
}
