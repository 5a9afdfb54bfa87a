//! A timer of one thread, whose signal ends a stay in the guest (timer_create(2)).

use crate::{Error, signals};
use std::ptr;
use std::time::Duration;

/// A timer that signals the thread that made it. Real time, so that a guest waiting for a page of
/// its memory is bounded as well.
pub(crate) struct Watchdog {
    timer: libc::timer_t,
}

impl Watchdog {
    /// A timer for the calling thread, not armed.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new() -> Result<Watchdog, Error> {
        // SAFETY: all-zero bytes are a valid `sigevent`, and `gettid` has no preconditions.
        let (mut event, thread) = unsafe { (std::mem::zeroed::<libc::sigevent>(), libc::gettid()) };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = thread;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_value = libc::sigval { sival_ptr: signals::timer_mark() };
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to live values.
        match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } {
            0 => Ok(Watchdog { timer }),
            _ => Err(Error::last("timer_create")),
        }
    }

    /// Makes the timer fire once, after `time`; disarms it for zero.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn arm(&self, time: Duration) -> Result<(), Error> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let value = libc::timespec { tv_sec: seconds, tv_nsec: i64::from(time.subsec_nanos()) };
        let setting = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the timer is this value's own.
        match unsafe { libc::timer_settime(self.timer, 0, &setting, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(Error::last("timer_settime")),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own.
        unsafe { libc::timer_delete(self.timer) };
    }
}
