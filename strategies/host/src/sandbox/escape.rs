//! A guest that has become 64-bit code, noticed by the signal handler.
//!
//! The monitor's own code lies above 4 GiB, and guest code below runs in compatibility mode: 64-bit
//! code below 4 GiB is a guest that has loaded one of the host's selectors. From then on nothing in
//! this process can be relied on, so it ends, by the signal that told. The watchdog's signal tells as
//! well: such a guest is found out within a glance's time even if it only spins.

use super::record;
use crate::world_switch::HOST_CODE;
use std::ptr;

/// The addresses that are the guest's.
const GUEST_END: u64 = 1 << 32;

/// Whether `signal` came while an escaped guest was executing; the process ends then, as soon as the
/// handler returns.
///
/// Reads no thread-local storage: FS is the guest's.
///
/// # Safety
/// Within a signal handler, with the kernel's context.
pub(crate) unsafe fn is_noticed(signal: libc::c_int, context: *const libc::ucontext_t) -> bool {
    // SAFETY: the kernel's frame.
    let saved = unsafe { &(*context).uc_mcontext.gregs };
    let code = saved[libc::REG_CSGSFS as usize] as u16;
    let rip = saved[libc::REG_RIP as usize] as u64;
    let escaped = code == HOST_CODE && rip < GUEST_END;
    if escaped {
        record::escaped(signal, rip);
        end_by(signal);
    }
    escaped
}

/// Sends this thread a signal with its default action, which all that end a stay have in common: the
/// process ends.
fn end_by(signal: libc::c_int) {
    /// The kernel's `sigaction`: handler, flags, restorer, mask. All zero is the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    let mask_bytes = size_of::<u64>();
    // SAFETY: valid arguments. The calls are the kernel's own: the C library's `sigaction` looks for
    // its canary in thread-local storage. A signal that is blocked in the handler arrives behind it.
    unsafe {
        let (action, nowhere) = (DEFAULT.as_ptr(), ptr::null_mut::<u64>());
        libc::syscall(libc::SYS_rt_sigaction, signal, action, nowhere, mask_bytes);
        let (process, thread) = (libc::syscall(libc::SYS_getpid), libc::syscall(libc::SYS_gettid));
        libc::syscall(libc::SYS_tgkill, process, thread, signal);
    }
}
