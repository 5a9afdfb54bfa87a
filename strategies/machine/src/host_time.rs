//! The host's monotonic clock, read with the time-stamp counter or without.
//!
//! The C library reads the clock by RDTSC, without a system call. A thread on which RDTSC raises a
//! signal, because a guest's own code is to be noticed that executes it, asks the kernel instead:
//! some 0.3 µs, where switching the counter on and off again takes ten times that and more.

use crate::clock::Nanos;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

thread_local! {
    /// How many [`WithoutTsc`] this thread has.
    static WITHOUT: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread reads the clock by system calls.
#[derive(Debug)]
pub struct WithoutTsc {
    /// Of one thread.
    not_send: PhantomData<*mut ()>,
}

impl WithoutTsc {
    /// To be made while the counter can still be read.
    #[must_use]
    pub fn new() -> WithoutTsc {
        origin();
        WITHOUT.set(WITHOUT.get() + 1);
        WithoutTsc { not_send: PhantomData }
    }
}

impl Default for WithoutTsc {
    fn default() -> WithoutTsc {
        WithoutTsc::new()
    }
}

impl Drop for WithoutTsc {
    fn drop(&mut self) {
        WITHOUT.set(WITHOUT.get() - 1);
    }
}

/// Nanoseconds of the host's monotonic clock.
#[must_use]
pub fn nanos() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the structure is a live local.
    unsafe {
        if WITHOUT.get() == 0 {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        } else {
            libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut time);
        }
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds that this thread has run on a processor.
#[must_use]
pub fn processor_nanos() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the structure is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets this thread, and those that it makes, wake from a sleep when it ends: the kernel lets others
/// sleep on for 50 µs, to wake several at once, and a guest in HLT waits for less than that.
pub fn sleep_exactly() {
    // SAFETY: changes nothing but the thread's timer slack, to the smallest there is: a nanosecond.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize) };
}

/// This moment, as [`Instant::now`] has it but for some ten nanoseconds.
#[must_use]
pub fn instant() -> Instant {
    if WITHOUT.get() == 0 {
        return Instant::now();
    }
    let (instant, moment) = origin();
    instant + Duration::from_nanos(nanos().saturating_sub(moment))
}

/// One moment by both names.
fn origin() -> (Instant, Nanos) {
    static ORIGIN: OnceLock<(Instant, Nanos)> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        // The thread may be interrupted between the two: the pair that took least time is the best.
        let pairs = (0..8).map(|_| {
            let (before, instant, after) = (nanos(), Instant::now(), nanos());
            (after - before, instant, before)
        });
        let best = pairs.min_by_key(|pair| pair.0);
        best.map_or_else(|| (Instant::now(), nanos()), |(_, instant, moment)| (instant, moment))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_show_the_same_clock() {
        let (first, start) = (nanos(), Instant::now());
        let guard = WithoutTsc::new();
        let (second, middle) = (nanos(), instant());
        drop(guard);
        let (third, end) = (nanos(), Instant::now());
        assert!(first <= second && second <= third);
        let slack = Duration::from_micros(100);
        assert!(start <= middle + slack && middle <= end + slack);
    }

    #[test]
    fn a_thread_that_sleeps_does_not_run() {
        let (begun, start) = (processor_nanos(), nanos());
        std::thread::sleep(Duration::from_millis(20));
        assert!(processor_nanos() - begun < nanos() - start);
        while processor_nanos() == begun {}
    }

    #[test]
    fn the_guard_of_one_thread_does_not_concern_another() {
        let _guard = WithoutTsc::new();
        assert_eq!(WITHOUT.get(), 1);
        std::thread::spawn(|| assert_eq!(WITHOUT.get(), 0)).join().unwrap();
    }
}
