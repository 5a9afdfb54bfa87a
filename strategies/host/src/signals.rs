//! Signals as exits: what the handlers do once [`ways_out`](crate::ways_out) has made it safe to run
//! Rust code.
//!
//! A signal that interrupts guest code only has its state copied; what it means is decided outside
//! the handler. A signal that interrupts host code goes to whoever handled it before, except our
//! own timer's. Handlers are installed once and stay.

use crate::Error;
use crate::dispatch;
use crate::int1;
use crate::kick;
use crate::sandbox::escape;
use crate::time_stamp;
use crate::translated;
use crate::ways_out;
use crate::world_switch::{DataSelectors, HOST_CODE, SignalReport, SwitchArea};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The signals that end a stay in the guest. All others are blocked while a thread is set up for
/// compatibility mode: their handlers know nothing of its stack and segments.
pub(crate) const EXITS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGSYS,
    libc::SIGALRM,
];

/// The bytes of an FXSAVE area that hold state; the kernel uses what is behind them.
const FXSAVE_STATE: usize = 416;

/// What handled each of [`EXITS`] before.
static EARLIER: OnceLock<[libc::sigaction; EXITS.len()]> = OnceLock::new();
static INSTALLING: Mutex<()> = Mutex::new(());

/// Its address marks the timer signals that are ours.
static TIMER_MARK: u8 = 0;

thread_local! {
    /// This thread's area, while it is set up.
    static AREA: Cell<*mut SwitchArea> = const { Cell::new(ptr::null_mut()) };
}

/// The mark that a timer's signals carry.
pub(crate) fn timer_mark() -> *mut libc::c_void {
    (&raw const TIMER_MARK).cast_mut().cast()
}

/// Names the area that kicks on this thread go to; returns the earlier one.
pub(crate) fn set_area(area: *mut SwitchArea) -> *mut SwitchArea {
    AREA.replace(area)
}

/// Installs the handlers, the first time.
///
/// # Errors
/// When the host refuses.
pub(crate) fn install() -> Result<(), Error> {
    // Theirs are to be behind these: these alone can run whatever the guest did to FS and GS.
    translated::install()?;
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if EARLIER.get().is_some() {
        return Ok(());
    }
    // SAFETY: all-zero bytes are a valid `sigaction`: no handler, no flags, an empty mask.
    let mut earlier: [libc::sigaction; EXITS.len()] = unsafe { std::mem::zeroed() };
    for (signal, slot) in EXITS.iter().zip(&mut earlier) {
        // SAFETY: only asks for the present handler.
        if unsafe { libc::sigaction(*signal, ptr::null(), slot) } != 0 {
            return Err(Error::last("sigaction"));
        }
    }
    // Before the handlers are in place: it has one of its own.
    let _ = int1::is_named_itself();
    // Known before the first handler can run.
    let _ = EARLIER.set(earlier);
    // SAFETY: as above; the fields that matter are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ways_out::signal_entry as *const () as usize;
    // No signal is blocked in the handler, for a stay ends without a return from it.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    for signal in EXITS {
        // SAFETY: the handler has the signature of SA_SIGINFO and forwards what is not its own.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(Error::last("sigaction"));
        }
    }
    Ok(())
}

/// A signal that came while `area`'s guest, or the window into it, was executing. The handler does
/// not return from the signal.
///
/// # Safety
/// Called by `ringside_signal_entry` only, with the kernel's arguments and the thread's area.
pub(crate) unsafe extern "C" fn guest_signal(
    signal: libc::c_int,
    info: *const libc::siginfo_t,
    context: *const libc::ucontext_t,
    area: *mut SwitchArea,
) {
    // SAFETY: the kernel's frame and record, and the thread's area: `enter` has left the latter to the
    // assembly, so there is no other reference to it, and the frame is this handler's own.
    let (area, context, code) = unsafe { (&mut *area, &*context, (*info).si_code) };
    let saved = &context.uc_mcontext.gregs;
    let segments = saved[libc::REG_CSGSFS as usize] as u64;
    let from_guest = segments as u16 != HOST_CODE;
    area.report = SignalReport {
        signal,
        trap: saved[libc::REG_TRAPNO as usize] as u32,
        error_code: saved[libc::REG_ERR as usize] as u32,
        address: saved[libc::REG_CR2 as usize] as u32,
        single_step: signal == libc::SIGTRAP && code == libc::TRAP_TRACE,
        from_guest,
        ..SignalReport::default()
    };
    if from_guest {
        copy_guest_state(area, saved, segments);
    }
    // SAFETY: the kernel's frame has the floating-point state at the signal, in FXSAVE's form, and
    // the area's is where `enter` has loaded the guest's from.
    unsafe {
        let from = context.uc_mcontext.fpregs.cast::<u8>();
        ptr::copy_nonoverlapping(from, (*area.fpu).0.as_mut_ptr(), FXSAVE_STATE);
    }
}

fn copy_guest_state(area: &mut SwitchArea, saved: &[i64; 23], segments: u64) {
    /// Where the kernel's frame has the general registers, in encoding order.
    const PLACES: [libc::c_int; 8] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
    ];
    for (register, place) in area.registers.iter_mut().zip(PLACES) {
        *register = saved[place as usize] as u32;
    }
    area.frame.rip = u64::from(saved[libc::REG_RIP as usize] as u32);
    area.frame.rsp = u64::from(saved[libc::REG_RSP as usize] as u32);
    area.frame.rflags = u64::from(saved[libc::REG_EFL as usize] as u32);
    area.frame.cs = segments & 0xffff;
    area.frame.ss = segments >> 48;
    // A selector is stored with 16 bits; the rest of the field is never written.
    let DataSelectors { ds, es, fs, gs } = area.selectors_at_signal;
    area.selectors = DataSelectors { ds, es, fs, gs };
}

/// A signal that came while host code was executing.
///
/// # Safety
/// Called by `ringside_signal_entry` only, with the kernel's arguments.
pub(crate) unsafe extern "C" fn host_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // First, for what follows reads thread-local storage, which an escaped guest has taken away.
    // SAFETY: the kernel's context.
    if unsafe { escape::is_noticed(signal, context.cast()) } {
        return;
    }
    // SAFETY: the kernel's siginfo; the value is there in timer signals, which the code tells.
    let is_ours = unsafe {
        signal == libc::SIGALRM
            && (*info).si_code == libc::SI_TIMER
            && (*info).si_value().sival_ptr == timer_mark()
    };
    let area = AREA.get();
    // SAFETY: set for as long as the area lives, to this thread's area; what is used is atomic.
    if !area.is_null() && unsafe { (*area).kicked.load(Ordering::Relaxed) } != 0 {
        // The timer's signal that came right behind this one, at the handler's first instruction,
        // could only leave its mark.
        // SAFETY: the kernel's context.
        unsafe { kick::fail_polls(context.cast()) };
    }
    // SAFETY: as above.
    if signal == libc::SIGSEGV && !area.is_null() && unsafe { time_stamp::give_back(&*area) } {
        // The monitor read the time-stamp counter, or was about to: it may now.
        return;
    }
    // SAFETY: the kernel's arguments.
    if signal == libc::SIGSYS && unsafe { dispatch::is_made_again(info, context.cast()) } {
        return;
    }
    if !is_ours {
        // SAFETY: passed on as received.
        unsafe { forward(signal, info, context) };
        return;
    }
    if !area.is_null() {
        // SAFETY: set for as long as the area lives, to this thread's area.
        unsafe { (*area).kicked.store(1, Ordering::Relaxed) };
    }
    // SAFETY: the kernel's context.
    unsafe { kick::raise(context.cast()) };
}

/// Gives a signal to whoever handled it before.
///
/// # Safety
/// With the kernel's arguments, within a handler.
unsafe fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let earlier = EXITS
        .iter()
        .position(|&exit| exit == signal)
        .and_then(|index| EARLIER.get().map(|all| all[index]));
    if let Some(action) = earlier {
        // SAFETY: passed on as received.
        unsafe { forward_to(&action, signal, info, context) };
    }
}

/// Gives a signal to `action`.
///
/// # Safety
/// With the kernel's arguments, within a handler; `action` must be one that was in force before.
pub(crate) unsafe fn forward_to(
    action: &libc::sigaction,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    match action.sa_sigaction {
        libc::SIG_IGN => {}
        libc::SIG_DFL => {
            // Let the default happen: a fault occurs again, anything else is sent again and
            // arrives when the handler returns.
            // SAFETY: restores an action that was valid before; raising a signal is always allowed.
            unsafe {
                libc::sigaction(signal, action, ptr::null_mut());
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler =
                unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: SA_SIGINFO says that the handler has this type.
            unsafe { std::mem::transmute::<usize, Handler>(handler)(signal, info, context) };
        }
        handler => {
            // SAFETY: without SA_SIGINFO a handler takes the signal's number alone.
            unsafe {
                std::mem::transmute::<usize, unsafe extern "C" fn(libc::c_int)>(handler)(signal);
            }
        }
    }
}

/// The signal mask that was in force before [`block_others`].
pub(crate) struct EarlierMask(libc::sigset_t);

/// Blocks all signals on this thread but [`EXITS`].
///
/// # Errors
/// When the host refuses.
pub(crate) fn block_others() -> Result<EarlierMask, Error> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    let mut earlier = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initializes the mask, `pthread_sigmask` the earlier one.
    unsafe {
        libc::sigfillset(mask.as_mut_ptr());
        for signal in EXITS {
            libc::sigdelset(mask.as_mut_ptr(), signal);
        }
        if libc::pthread_sigmask(libc::SIG_SETMASK, mask.as_ptr(), earlier.as_mut_ptr()) != 0 {
            return Err(Error::last("pthread_sigmask"));
        }
        Ok(EarlierMask(earlier.assume_init()))
    }
}

impl Drop for EarlierMask {
    fn drop(&mut self) {
        // SAFETY: restores a mask that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
