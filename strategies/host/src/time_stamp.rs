//! RDTSC as an exit: PR_SET_TSC makes it raise SIGSEGV, on the whole thread.
//!
//! The monitor's own code may read the counter as well, within the C library's clocks. So the first
//! such read after a stay raises a signal too, whose handler makes the counter readable again; the
//! next stay takes it away again. Both are a system call that writes CR4, some 2 to 18 µs where a
//! hypervisor has a hand in it: what runs between stays had better read clocks by other means.

use crate::Error;
use crate::world_switch::SwitchArea;
use std::sync::atomic::Ordering;

/// Makes RDTSC raise SIGSEGV on this thread.
///
/// # Errors
/// When the host refuses.
pub(crate) fn take_away(area: &SwitchArea) -> Result<(), Error> {
    if area.tsc_traps.load(Ordering::Relaxed) {
        return Ok(());
    }
    // Known before the first signal can come.
    area.tsc_traps.store(true, Ordering::Relaxed);
    set(libc::PR_TSC_SIGSEGV).inspect_err(|_| area.tsc_traps.store(false, Ordering::Relaxed))
}

/// Makes RDTSC work again. Returns whether it did not. Safe in a signal handler.
pub(crate) fn give_back(area: &SwitchArea) -> bool {
    let trapped = area.tsc_traps.swap(false, Ordering::Relaxed);
    if trapped {
        // It worked the other way round.
        let _ = set(libc::PR_TSC_ENABLE);
    }
    trapped
}

fn set(state: libc::c_int) -> Result<(), Error> {
    // SAFETY: changes nothing but what RDTSC does on this thread.
    match unsafe { libc::prctl(libc::PR_SET_TSC, state, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(Error::last("PR_SET_TSC")),
    }
}
