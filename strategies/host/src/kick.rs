//! Interrupting a thread that is blocked in a system call which runs a guest.
//!
//! A [`Kick`] is a timer of the thread that made it. When it fires, a signal interrupts the
//! system call, and its handler sets a byte that the caller names: whoever was still on the way
//! into the call finds the byte set and does not block. For KVM the byte is `immediate_exit` in
//! the page shared with the kernel, which KVM_RUN looks at after the last moment at which a signal
//! could be missed. What the guest is interrupted for is the caller's business.

use crate::{signals, translated};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

thread_local! {
    /// The byte that the handler sets. Constant initialization and no destructor: an access is a
    /// plain load, as a signal handler needs it.
    static FLAG: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// A second one.
    static SECOND: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The signal, one that nothing else in the process uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

extern "C" fn on_kick(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's frame, which is the handler's own.
    unsafe { raise(context.cast()) };
}

/// Sets the bytes that this thread's kicks set, and breaks off what would not look at them for long.
///
/// # Safety
/// Within a signal handler, with the kernel's context.
pub(crate) unsafe fn raise(context: *mut libc::ucontext_t) {
    // SAFETY: as promised.
    unsafe { translated::break_string_off(context) };
    // SAFETY: as promised.
    unsafe { fail_polls(context) };
}

/// Sets the bytes and lets polls fail, and leaves the instruction alone that the signal came to.
///
/// # Safety
/// As [`raise`].
pub(crate) unsafe fn fail_polls(context: *mut libc::ucontext_t) {
    // SAFETY: as promised.
    unsafe { translated::fail_polls(context) };
    for flag in [FLAG.get(), SECOND.get()] {
        if !flag.is_null() {
            // SAFETY: `Kick::new` had the promise that the byte stays valid, and the pointer is
            // taken back before that promise ends. Others reach the byte only through the kernel.
            unsafe { AtomicU8::from_ptr(flag) }.store(1, Ordering::Relaxed);
        }
    }
}

/// A timer that interrupts the thread it was made on. Only one at a time does so; an inner one
/// takes over from an outer one while it exists.
#[derive(Debug)]
pub struct Kick {
    timer: libc::timer_t,
    fires_at: Option<Instant>,
    outer_flags: [*mut u8; 2],
    /// The timer sends its signal to one thread, so it stays there.
    not_send: PhantomData<*mut ()>,
}

impl Kick {
    /// A timer, not yet armed, that sets `flag` to 1 when it interrupts this thread.
    ///
    /// # Errors
    /// When the host refuses the signal handler or the timer.
    ///
    /// # Safety
    /// `flag` must stay valid for writes until the value is dropped; meanwhile it may be accessed
    /// from this thread and by the kernel only.
    pub unsafe fn new(flag: *mut u8) -> io::Result<Kick> {
        // SAFETY: by this function's own contract.
        unsafe { Kick::with_two_flags(flag, ptr::null_mut()) }
    }

    /// The same with a second byte, set to 1 as well unless it is null.
    ///
    /// # Errors
    /// As [`Kick::new`].
    ///
    /// # Safety
    /// As [`Kick::new`], for both.
    pub unsafe fn with_two_flags(flag: *mut u8, second: *mut u8) -> io::Result<Kick> {
        install_handler()?;
        Kick::with_timer(create_timer(signal(), ptr::null_mut())?, flag, second)
    }

    /// The same by the signal that ends stays in native code: for a thread that is set up for
    /// [compatibility mode](crate::compatibility::CompatibilityMode), where no other signal arrives.
    ///
    /// # Errors
    /// As [`Kick::new`].
    ///
    /// # Safety
    /// As [`Kick::new`], for both.
    pub unsafe fn among_native_stays(flag: *mut u8, second: *mut u8) -> io::Result<Kick> {
        let timer = create_timer(libc::SIGALRM, signals::timer_mark())?;
        Kick::with_timer(timer, flag, second)
    }

    fn with_timer(timer: libc::timer_t, flag: *mut u8, second: *mut u8) -> io::Result<Kick> {
        let outer_flags = [FLAG.replace(flag), SECOND.replace(second)];
        Ok(Kick { timer, fires_at: None, outer_flags, not_send: PhantomData })
    }

    /// Interrupts the thread at `at` or, if it was armed so, before. `now` is the present moment,
    /// which the caller usually knows already.
    pub fn arm(&mut self, now: Instant, at: Instant) {
        if self.fires_at.is_some_and(|armed| now < armed && armed <= at) {
            return;
        }
        // A timer of zero is one that is switched off.
        let delay = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        self.set_timer(delay);
        self.fires_at = Some(at);
    }

    /// Interrupts the thread no more, until it is armed again: for who sleeps by other means.
    pub fn disarm(&mut self) {
        if self.fires_at.take().is_some() {
            self.set_timer(Duration::ZERO);
        }
    }

    /// Zero switches the timer off.
    fn set_timer(&self, delay: Duration) {
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: delay.subsec_nanos().into(),
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the timer is this value's own, and the specification outlives the call. It can
        // only fail for a wrong timer or an invalid time, and neither is possible here.
        unsafe { libc::timer_settime(self.timer, 0, &spec, ptr::null_mut()) };
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        FLAG.set(self.outer_flags[0]);
        SECOND.set(self.outer_flags[1]);
        // SAFETY: the timer is this value's own and not used after.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Installs the handler, once in the process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: an all-zero `sigaction` is a valid one with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_kick as *const () as usize;
        // Device models write files on this thread: those calls are restarted. KVM_RUN is not.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: the handler only does what is safe in a signal handler: plain and atomic stores.
        match unsafe { libc::sigaction(signal(), &action, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// Creates a timer that signals this thread, and lets the signal through here.
fn create_timer(signal: libc::c_int, mark: *mut libc::c_void) -> io::Result<libc::timer_t> {
    // SAFETY: all-zero values are valid for these plain structures.
    let (mut event, mut set): (libc::sigevent, libc::sigset_t) = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value = libc::sigval { sival_ptr: mark };
    // SAFETY: gettid has no preconditions.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer = ptr::null_mut();
    // SAFETY: all pointers are to live locals of the right types.
    unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
        if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks in a call that is not restarted after a signal; true when one interrupted it.
    fn is_interrupted(limit: Duration) -> bool {
        let milliseconds = i32::try_from(limit.as_millis()).unwrap();
        // SAFETY: poll without descriptors only waits.
        unsafe { libc::poll(ptr::null_mut(), 0, milliseconds) == -1 }
    }

    #[test]
    fn a_blocked_thread_is_interrupted_and_its_flag_set() {
        let mut flag = 0u8;
        // SAFETY: `flag` outlives the kick.
        let mut kick = unsafe { Kick::new(&raw mut flag) }.unwrap();
        let start = Instant::now();
        kick.arm(start, start + Duration::from_millis(5));
        assert!(is_interrupted(Duration::from_secs(10)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        drop(kick);
        assert_eq!(flag, 1);
    }

    #[test]
    fn an_earlier_time_replaces_a_later_one_and_not_the_other_way_round() {
        let mut flag = 0u8;
        // SAFETY: `flag` outlives the kick.
        let mut kick = unsafe { Kick::new(&raw mut flag) }.unwrap();
        let start = Instant::now();
        kick.arm(start, start + Duration::from_secs(100));
        kick.arm(start, start + Duration::from_millis(5));
        kick.arm(start, start + Duration::from_secs(100));
        assert!(is_interrupted(Duration::from_secs(10)));
        let now = Instant::now();
        kick.arm(now, now + Duration::from_millis(5));
        assert!(is_interrupted(Duration::from_secs(10)));
    }

    #[test]
    fn a_disarmed_kick_waits_until_it_is_armed_again() {
        let mut flag = 0u8;
        // SAFETY: `flag` outlives the kick.
        let mut kick = unsafe { Kick::new(&raw mut flag) }.unwrap();
        let now = Instant::now();
        kick.arm(now, now + Duration::from_millis(20));
        kick.disarm();
        assert!(!is_interrupted(Duration::from_millis(60)));
        let now = Instant::now();
        kick.arm(now, now + Duration::from_millis(5));
        assert!(is_interrupted(Duration::from_secs(10)));
    }

    #[test]
    fn a_dropped_kick_leaves_the_thread_alone() {
        let mut flag = 0u8;
        // SAFETY: `flag` outlives the kick.
        let mut kick = unsafe { Kick::new(&raw mut flag) }.unwrap();
        let now = Instant::now();
        kick.arm(now, now + Duration::from_millis(20));
        drop(kick);
        assert!(!is_interrupted(Duration::from_millis(60)));
        assert_eq!(flag, 0);
    }
}
