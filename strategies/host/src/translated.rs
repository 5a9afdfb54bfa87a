//! Signals as exits of translated code.
//!
//! Translated code is 64-bit code in a range of addresses that is known, and every fault in it is
//! meant: a page that the window does not show yet, a division by zero, a poll that a timer made
//! fail. The handler notes what happened and lets the signal return to the code's own exit stub,
//! with all registers as they were; what the fault means is decided outside the handler. A signal
//! from anywhere else goes to whoever handled it before.

use crate::{Error, signals};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The signals that translated code can raise.
const FAULTS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// Bytes of the alternate stack: an AVX-512 frame has some 3 KiB.
const STACK_BYTES: usize = 64 << 10;

/// What handled each of [`FAULTS`] before.
static EARLIER: OnceLock<[libc::sigaction; FAULTS.len()]> = OnceLock::new();
static INSTALLING: Mutex<()> = Mutex::new(());

thread_local! {
    /// This thread's translated code. Constant initialization and no destructor: an access is a
    /// plain load, as a signal handler needs it.
    static REGION: Cell<*const Region> = const { Cell::new(ptr::null()) };
}

/// In place of a vector: a kick has broken a repeated string instruction off, between two of its
/// iterations.
pub const KICK: u32 = 1 << 8;

/// What makes an address of the user's half one of neither half.
const NOT_CANONICAL: i64 = 1 << 56;

/// What the handler saw.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Fault {
    /// Where in the translated code.
    pub host_rip: u64,
    /// The address of a page fault; 0 for one that is not canonical.
    pub address: u64,
    /// The exception's vector, or [`KICK`].
    pub trap: u32,
    /// Its error code.
    pub error_code: u32,
}

/// Where translated code lies, and what becomes of its faults.
#[derive(Clone, Debug)]
pub struct Region {
    /// The addresses of translated code.
    pub code: Range<u64>,
    /// From here on in it R15 is what polls read by; what lies before it leads in and out.
    pub polling: u64,
    /// Where a fault goes on, with all registers unchanged.
    pub exit: u64,
    /// What the handler fills in before that.
    pub fault: *mut Fault,
    /// The guard below the stack of return addresses: who runs into it starts again at the top.
    pub stack_guard: Range<u64>,
    /// That top.
    pub stack_top: u64,
}

/// A thread that is set up for a region. Dropping it undoes that, so it must not leave its thread.
#[derive(Debug)]
pub struct TranslatedCode {
    _region: Box<Region>,
    outer: *const Region,
    _stack: Vec<u8>,
    earlier_stack: libc::stack_t,
}

impl TranslatedCode {
    /// Sets up the calling thread.
    ///
    /// # Errors
    /// When the host refuses.
    ///
    /// # Safety
    /// `region.fault` must stay valid for writes until the value is dropped, `region.exit` must be
    /// code that can be reached from any place of `region.code` with any registers, and that code
    /// must not be running Rust code's frames: its stack pointer is its own.
    pub unsafe fn new(region: Region) -> Result<TranslatedCode, Error> {
        install()?;
        let mut stack = vec![0; STACK_BYTES];
        let new =
            libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        let mut earlier_stack = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: the stack lives as long as the value; the call fills in the earlier one.
        let earlier_stack = unsafe {
            if libc::sigaltstack(&new, earlier_stack.as_mut_ptr()) != 0 {
                return Err(Error::last("sigaltstack"));
            }
            earlier_stack.assume_init()
        };
        let region = Box::new(region);
        let outer = REGION.replace(&raw const *region);
        Ok(TranslatedCode { _region: region, outer, _stack: stack, earlier_stack })
    }
}

impl Drop for TranslatedCode {
    fn drop(&mut self) {
        REGION.set(self.outer);
        // SAFETY: restores what this thread had.
        unsafe { libc::sigaltstack(&self.earlier_stack, ptr::null_mut()) };
    }
}

/// Installs the handlers, the first time. They come before those for compatibility mode, which
/// forward to them.
///
/// # Errors
/// When the host refuses.
pub(crate) fn install() -> Result<(), Error> {
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if EARLIER.get().is_some() {
        return Ok(());
    }
    // SAFETY: all-zero bytes are a valid `sigaction`: no handler, no flags, an empty mask.
    let mut earlier: [libc::sigaction; FAULTS.len()] = unsafe { std::mem::zeroed() };
    for (signal, slot) in FAULTS.iter().zip(&mut earlier) {
        // SAFETY: only asks for the present handler.
        if unsafe { libc::sigaction(*signal, ptr::null(), slot) } != 0 {
            return Err(Error::last("sigaction"));
        }
    }
    // Known before the first handler can run.
    let _ = EARLIER.set(earlier);
    // SAFETY: as above; the fields that matter are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in FAULTS {
        // SAFETY: the handler has the signature of SA_SIGINFO and forwards what is not its own.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(Error::last("sigaction"));
        }
    }
    Ok(())
}

/// Lets translated code that a signal found at a repeated string instruction go on at its exit: left
/// alone, that would go on for as long as its counter says. Safe in a signal handler.
///
/// # Safety
/// Within a signal handler, with the kernel's context.
pub(crate) unsafe fn break_string_off(context: *mut libc::ucontext_t) {
    // SAFETY: the kernel's frame, and a region that is set for as long as it lives.
    let (saved, region) = unsafe { (&mut (*context).uc_mcontext.gregs, REGION.get().as_ref()) };
    let rip = saved[libc::REG_RIP as usize] as u64;
    let Some(region) = region.filter(|region| region.code.contains(&rip)) else { return };
    // SAFETY: within the code, whose last bytes are no instruction that is executed.
    let code = unsafe { (rip as usize as *const [u8; 3]).read_unaligned() };
    if !repeats(code) {
        return;
    }
    let fault = Fault { host_rip: rip, address: 0, trap: KICK, error_code: 0 };
    // SAFETY: as in `on_fault`.
    unsafe { region.fault.write(fault) };
    saved[libc::REG_RIP as usize] = region.exit as i64;
}

/// Makes the next poll fail of the code that a signal came to, if that is translated: then R15 is no
/// address any more. Safe in a signal handler.
///
/// # Safety
/// Within a signal handler, with the kernel's context.
pub(crate) unsafe fn fail_polls(context: *mut libc::ucontext_t) {
    // SAFETY: the kernel's frame, and a region that is set for as long as it lives.
    let (saved, region) = unsafe { (&mut (*context).uc_mcontext.gregs, REGION.get().as_ref()) };
    let rip = saved[libc::REG_RIP as usize] as u64;
    if region.is_some_and(|region| (region.polling..region.code.end).contains(&rip)) {
        saved[libc::REG_R15 as usize] |= NOT_CANONICAL;
    }
}

/// Whether these bytes begin a repeated string instruction on memory, as the translator writes it.
fn repeats(code: [u8; 3]) -> bool {
    let [prefix, second, third] = code;
    let opcode = if second == 0x66 { third } else { second };
    matches!(prefix, 0xf2 | 0xf3) && matches!(opcode, 0xa4..=0xa7 | 0xaa..=0xaf)
}

/// The handler.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let region = REGION.get();
    // SAFETY: the kernel's frame, which is the handler's own.
    let saved = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = saved[libc::REG_RIP as usize] as u64;
    // SAFETY: set for as long as the region lives.
    let Some(region) = unsafe { region.as_ref() }.filter(|region| region.code.contains(&rip))
    else {
        let index = FAULTS.iter().position(|&fault| fault == signal);
        if let Some(action) = index.and_then(|index| EARLIER.get().map(|all| all[index])) {
            // SAFETY: passed on as received.
            unsafe { signals::forward_to(&action, signal, info, context) };
        }
        return;
    };
    let address = saved[libc::REG_CR2 as usize] as u64;
    let trap = saved[libc::REG_TRAPNO as usize] as u32;
    const PAGE_FAULT: u32 = 14;
    if trap == PAGE_FAULT && region.stack_guard.contains(&address) {
        saved[libc::REG_RSP as usize] = region.stack_top as i64;
        // A kick that came right behind this signal did not find translated code.
        saved[libc::REG_R15 as usize] |= NOT_CANONICAL;
        return;
    }
    let fault = Fault {
        host_rip: rip,
        address: if trap == PAGE_FAULT { address } else { 0 },
        trap,
        error_code: saved[libc::REG_ERR as usize] as u32,
    };
    // SAFETY: valid by the promise to `TranslatedCode::new`; nobody else uses it while translated
    // code runs.
    unsafe { region.fault.write(fault) };
    saved[libc::REG_RIP as usize] = region.exit as i64;
}
