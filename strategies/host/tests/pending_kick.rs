//! A kick that comes together with another signal. The handlers are the process's: a test alone.

use host::compatibility::CompatibilityMode;
use host::kick::Kick;
use std::time::{Duration, Instant};
use std::{mem, ptr};

/// The kernel makes a frame for each of several pending signals before any handler runs: that of the
/// timer, which has the higher number, interrupts the other's handler at its first instruction.
#[test]
fn a_kick_right_behind_another_signal_sets_its_flags() {
    // SAFETY: nobody else uses this signal in this process; what handles it now is behind the switch's.
    unsafe { libc::signal(libc::SIGTRAP, libc::SIG_IGN) };
    let mode = CompatibilityMode::new().unwrap();
    let mut flags = [0u8; 2];
    let [first, second] = &mut flags;
    // SAFETY: both outlive the kick.
    let mut kick = unsafe { Kick::among_native_stays(first, second) }.unwrap();
    // SAFETY: all-zero bytes are a valid set, and all pointers are to live locals of the right types.
    unsafe {
        let mut both: libc::sigset_t = mem::zeroed();
        libc::sigaddset(&raw mut both, libc::SIGTRAP);
        libc::sigaddset(&raw mut both, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const both, ptr::null_mut());
        let now = Instant::now();
        kick.arm(now, now + Duration::from_micros(100));
        std::thread::sleep(Duration::from_millis(5));
        libc::raise(libc::SIGTRAP);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const both, ptr::null_mut());
    }
    drop(kick);
    assert!(mode.is_kicked());
    assert_eq!(flags, [1, 1]);
    mode.forget_kick();
    assert!(!mode.is_kicked());
}
