//! Where this host says that INT1 was: behind it, as for any trap, or at it.
//!
//! The CPU pushes the address behind INT1 (Intel SDM volume 2, "INT1"). Some hypervisors intercept the
//! exception and raise it again as a fault, so that the kernel and its signals name the
//! instruction itself. Where one INT1 follows another the bytes do not tell, so it is tried once.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Its encoding, prefixes aside.
pub const INT1: u8 = 0xf1;

static IS_AT_IT: AtomicBool = AtomicBool::new(false);

/// Whether signals name the address of INT1 and not the one behind it.
///
/// The first call has a handler for SIGTRAP while it looks: it comes before other handlers and before
/// guests.
#[must_use]
pub fn is_named_itself() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        try_it();
        IS_AT_IT.load(Ordering::Relaxed)
    })
}

fn try_it() {
    // SAFETY: all-zero bytes are a valid `sigaction`: no handler, no flags, an empty mask.
    let (mut action, mut earlier): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    action.sa_sigaction = note as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature of SA_SIGINFO, and only steps over the INT1 here, the one
    // instruction that raises the signal while it is in force. Whoever had the signal before has it again.
    unsafe {
        // A host that refuses a handler will refuse the next one, where that is reported.
        if libc::sigaction(libc::SIGTRAP, &raw const action, &raw mut earlier) == 0 {
            core::arch::asm!(".byte {int1}", int1 = const INT1);
            libc::sigaction(libc::SIGTRAP, &raw const earlier, ptr::null_mut());
        }
    }
}

/// Notes where the signal says it was raised.
unsafe extern "C" fn note(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the kernel's context, which is this handler's own; code can be read.
    unsafe {
        let rip = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        if *(*rip as *const u8) == INT1 {
            IS_AT_IT.store(true, Ordering::Relaxed);
            *rip += 1;
        }
    }
}
