//! Ctrl-C and its like, turned into a flag by a thread that waits for the signals, so that nothing
//! runs inside a signal handler.

use crate::process::Stop;

/// The signals that end the program in an orderly way.
const SIGNALS: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The status of a process that Ctrl-C ended.
pub const STATUS: u8 = 130;

/// From now on the signals raise the flag that this returns; a second one ends the process at once,
/// after `before_exit`. To be called before other threads are started: they inherit the mask.
pub fn watch(before_exit: impl Fn() + Send + 'static) -> Stop {
    let stop = Stop::default();
    let set = blocked_set();
    let raised = stop.clone();
    std::thread::spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to live values of the right types.
            let failed = unsafe { libc::sigwait(&raw const set, &raw mut signal) } != 0;
            if failed {
                return;
            }
            if raised.is_raised() {
                before_exit();
                std::process::exit(i32::from(STATUS));
            }
            raised.raise();
        }
    });
    stop
}

/// Blocks the signals in this thread, and so in those that it starts.
fn blocked_set() -> libc::sigset_t {
    // SAFETY: a signal set is plain data that sigemptyset initialises before it is read; the
    // signals are valid, and changing the calling thread's mask has no other precondition.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}
