//! 32-bit code on the real CPU, in compatibility mode at CPL 3, inside this 64-bit process.
//!
//! [`CompatibilityMode::run`] loads a [`NativeState`], executes from there until something traps,
//! and brings the state back. Whatever interrupts the guest comes as a signal, and so as a
//! [`NativeExit`]: a fault, a software interrupt, a system call, the watchdog. Code of the caller's
//! own may leave by a [`crossing`](crate::crossing) instead. What to make of an exit is the caller's
//! business, and so is what lies in memory below 4 GiB (see [`low_memory`](crate::low_memory)).
//!
//! Nothing here keeps hostile code from loading the host's own selectors and so becoming 64-bit
//! code in this process: only code that has been looked at, or a process without rights, may run
//! this way.

use crate::Error;
use crate::high_half::HighHalf;
use crate::sandbox::record;
use crate::thread_setup::ThreadSetup;
use crate::time_stamp;
use crate::watchdog::Watchdog;
use crate::world_switch::{self, DataSelectors, InterruptFrame, SignalReport, SwitchArea};
use machine::cpu::{Eflags, Fpu, FxArea, register};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The host's flat 32-bit code segment (Linux: `__USER32_CS`).
pub const FLAT_CODE: u16 = 0x23;
/// The host's flat data segment (Linux: `__USER_DS`).
pub const FLAT_DATA: u16 = 0x2b;

/// Offset of MXCSR_MASK in the FXSAVE area.
const MXCSR_MASK: usize = 28;
/// MXCSR_MASK where the CPU leaves it 0 (Intel SDM volume 1, 11.6.6).
const DEFAULT_MXCSR_MASK: u32 = 0xffbf;

/// The flags that go in. IF and IOPL are the host's (IRET at CPL 3 keeps them), VM cannot be had.
const LOADED_FLAGS: Eflags = Eflags::ARITHMETIC
    .union(Eflags::TF)
    .union(Eflags::DF)
    .union(Eflags::NT)
    .union(Eflags::RF)
    .union(Eflags::AC)
    .union(Eflags::ID);

/// Segment selectors. All must be loadable at CPL 3: null, one of the host's, or an
/// [`LdtEntry`](crate::ldt::LdtEntry)'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selectors {
    /// Code; its descriptor says whether the code is of 16 or 32 bits.
    pub cs: u16,
    /// Stack.
    pub ss: u16,
    /// Data.
    pub ds: u16,
    /// Data.
    pub es: u16,
    /// Data.
    pub fs: u16,
    /// Data.
    pub gs: u16,
}

impl Selectors {
    /// Flat segments; FS and GS are null.
    pub const FLAT: Selectors =
        Selectors { cs: FLAT_CODE, ss: FLAT_DATA, ds: FLAT_DATA, es: FLAT_DATA, fs: 0, gs: 0 };
}

/// What a 32-bit program sees of the CPU, its floating-point state aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntegerState {
    /// General registers in encoding order.
    pub registers: [u32; 8],
    /// The instruction pointer.
    pub eip: u32,
    /// EFLAGS. Only what CPL 3 can change is loaded; all of it comes back.
    pub eflags: u32,
    /// Segment selectors.
    pub selectors: Selectors,
    /// Whether the stack segment is of 16 bits: only SP is its pointer then.
    pub has_16bit_stack: bool,
}

/// What a 32-bit program sees of the CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NativeState {
    /// General registers in encoding order.
    pub registers: [u32; 8],
    /// The instruction pointer.
    pub eip: u32,
    /// EFLAGS. Only what CPL 3 can change is loaded; all of it comes back.
    pub eflags: u32,
    /// Segment selectors, with a stack of 32 bits.
    pub selectors: Selectors,
    /// x87, MMX and SSE state. Reserved bits of MXCSR are dropped; as the CPU and the kernel do, a
    /// stay may lose the x87 opcode and the x87 instruction and data pointers.
    pub fpu: Fpu,
}

impl Default for NativeState {
    /// Zeroed registers, flat segments, and the x87 and SSE state after power-up and FNINIT.
    fn default() -> NativeState {
        NativeState {
            registers: [0; 8],
            eip: 0,
            eflags: Eflags::FIXED.bits(),
            selectors: Selectors::FLAT,
            fpu: Fpu::default(),
        }
    }
}

/// Why native code was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NativeExit {
    /// The signal: SIGSEGV, SIGILL, SIGFPE, SIGTRAP or SIGBUS for an exception, SIGSYS for a
    /// system call, SIGALRM for the watchdog.
    pub signal: i32,
    /// The exception's vector (Intel SDM volume 3, table 6-1); without meaning for SIGSYS and
    /// SIGALRM.
    pub trap: u8,
    /// The exception's error code; for a page fault with the host's bits: bit 4 tells a fetch.
    pub error_code: u32,
    /// The linear address of a page fault (CR2); without meaning otherwise.
    pub address: u32,
    /// Whether EFLAGS.TF is what raised vector 1, and not INT1.
    pub single_step: bool,
    /// Where the code was left: at the faulting instruction, or after a trapping one; without
    /// meaning for a crossing.
    pub eip: u32,
    /// Which [`crossing`](crate::crossing) the code has taken, where it was not a signal that ended
    /// the stay; `signal` is 0 then. EIP and CS of the state are what they were on entry, for the far
    /// jump has replaced the code's own.
    pub crossing: Option<u32>,
}

/// This thread's right to run 32-bit code natively.
///
/// While it lives, the thread takes signals on a stack of its own and blocks all but those that are
/// exits, and system calls from below 4 GiB raise SIGSYS. It costs some microseconds to make:
/// keep it for a run of the guest, not for longer.
pub struct CompatibilityMode {
    // Dropped in this order: the thread lets go of the area before that is freed.
    watchdog: Watchdog,
    _setup: ThreadSetup,
    area: Box<SwitchArea>,
    traps_time_stamps: bool,
    high_half: Option<HighHalf>,
}

impl Drop for CompatibilityMode {
    fn drop(&mut self) {
        time_stamp::give_back(&self.area);
    }
}

impl CompatibilityMode {
    /// Sets up the calling thread.
    ///
    /// # Errors
    /// When this thread has one already, or the host lacks or refuses something.
    pub fn new() -> Result<CompatibilityMode, Error> {
        let mut area = SwitchArea::new();
        let setup = ThreadSetup::new(&mut area)?;
        let watchdog = Watchdog::new()?;
        Ok(CompatibilityMode {
            watchdog,
            _setup: setup,
            area,
            traps_time_stamps: false,
            high_half: None,
        })
    }

    /// From now on RDTSC in native code is an exit: SIGSEGV with trap 13.
    pub fn trap_time_stamps(&mut self) {
        self.traps_time_stamps = true;
    }

    /// Says where [`pads`](crate::crossing::pad) are: 64-bit code at these linear addresses is the
    /// monitor's, so that a signal there is no sign of an escaped guest.
    pub fn allow_crossings(&mut self, pads: Range<u32>) {
        self.area.pads = [pads.start, pads.end];
    }

    /// Runs from `state` until something traps.
    ///
    /// # Errors
    /// When the CPU refuses a selector; `state` is unchanged then.
    ///
    /// # Safety
    /// The code that runs, and whatever it comes to jump to, may read and write memory below 4 GiB
    /// only where no Rust reference points, and must not leave 32-bit mode (a far transfer to
    /// one of the host's 64-bit code selectors).
    pub unsafe fn run(&mut self, state: &mut NativeState) -> Result<NativeExit, Error> {
        let mut integer = IntegerState {
            registers: state.registers,
            eip: state.eip,
            eflags: state.eflags,
            selectors: state.selectors,
            has_16bit_stack: false,
        };
        // SAFETY: the caller's promise is the same.
        let exit = unsafe { self.run_with(&mut integer, &mut state.fpu) };
        state.registers = integer.registers;
        state.eip = integer.eip;
        state.eflags = integer.eflags;
        state.selectors = integer.selectors;
        exit
    }

    /// As [`run`](Self::run), with the floating-point state where it is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub unsafe fn run_with(
        &mut self,
        state: &mut IntegerState,
        fpu: &mut Fpu,
    ) -> Result<NativeExit, Error> {
        self.load(state, fpu)?;
        if self.traps_time_stamps {
            time_stamp::take_away(&self.area)?;
        }
        // SAFETY: `ThreadSetup` has installed the handlers, the stack and the bases; `load` has
        // set the frame and cleared reserved MXCSR bits; the caller answers for the code.
        unsafe { world_switch::enter(&raw mut *self.area) };
        // What FXSAVE says of the host is no state of the guest's.
        fpu.area.0[MXCSR_MASK..MXCSR_MASK + 4].fill(0);
        if self.area.report.signal == 0 && !self.area.report.crossed {
            // Kicked before it was entered: the timer had fired since the last stay.
            self.area.kicked.store(0, Ordering::Relaxed);
            self.area.report.signal = libc::SIGALRM;
        }
        self.exit(state)
    }

    /// As [`run`](Self::run), for about `limit` at most: then the exit is SIGALRM.
    ///
    /// # Errors
    /// As [`run`](Self::run), or when the host refuses the timer.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub unsafe fn run_for(
        &mut self,
        state: &mut NativeState,
        limit: Duration,
    ) -> Result<NativeExit, Error> {
        self.set_timer(limit)?;
        // SAFETY: the caller's promise is the same.
        let exit = unsafe { self.run(state) };
        self.clear_timer()?;
        exit
    }

    /// Lets a timer end the stay, or the next one, `time` from now, in place of what was set before;
    /// the exit is SIGALRM. What has fired already ends the next stay all the same.
    ///
    /// # Errors
    /// When the host refuses the timer.
    pub fn set_timer(&mut self, time: Duration) -> Result<(), Error> {
        self.watchdog.arm(time.max(Duration::from_nanos(1)))
    }

    /// Ends a series of stays: stops the timer (if it has fired since the last stay, that is
    /// forgotten), and lets the monitor read time stamps without a signal.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn clear_timer(&mut self) -> Result<(), Error> {
        self.watchdog.arm(Duration::ZERO)?;
        self.forget_kick();
        time_stamp::give_back(&self.area);
        Ok(())
    }

    /// Whether the timer has fired and ended no stay yet.
    #[must_use]
    pub fn is_kicked(&self) -> bool {
        self.area.kicked.load(Ordering::Relaxed) != 0
    }

    /// Forgets a timer's signal that has ended no stay yet: for who has just looked at what it came for.
    pub fn forget_kick(&self) {
        self.area.kicked.store(0, Ordering::Relaxed);
    }

    fn load(&mut self, state: &IntegerState, fpu: &mut Fpu) -> Result<(), Error> {
        let area = &mut *self.area;
        let Selectors { cs, ss, ds, es, fs, gs } = state.selectors;
        // FXRSTOR raises #GP for a reserved bit, and that would be the monitor's.
        fpu.set_mxcsr(fpu.mxcsr() & host_mxcsr_mask());
        area.fpu = &raw mut fpu.area;
        area.registers = state.registers;
        area.frame = InterruptFrame {
            rip: state.eip.into(),
            cs: cs.into(),
            rflags: (state.eflags & LOADED_FLAGS.bits() | Eflags::FIXED.bits()).into(),
            rsp: state.registers[register::ESP].into(),
            ss: ss.into(),
        };
        area.selectors =
            DataSelectors { ds: ds.into(), es: es.into(), fs: fs.into(), gs: gs.into() };
        area.report = SignalReport::default();
        area.put_off_flags = 0;
        record::entering(state.eip);
        area.entry_frame = &raw const area.frame;
        if state.has_16bit_stack {
            let esp = state.registers[register::ESP];
            if !self.high_half.as_ref().is_some_and(|place| place.serves(esp)) {
                self.high_half = None;
                self.high_half = Some(HighHalf::new(esp)?);
            }
            if let Some(place) = &mut self.high_half {
                area.entry_frame = place.place(area.frame);
            }
        }
        Ok(())
    }

    fn exit(&self, state: &mut IntegerState) -> Result<NativeExit, Error> {
        let area = &*self.area;
        let report = area.report;
        let trap = report.trap as u8;
        if report.from_guest || report.crossed {
            let DataSelectors { ds, es, fs, gs } = area.selectors;
            state.registers = area.registers;
            state.eflags = area.frame.rflags as u32;
            let [ss, ds, es, fs, gs] = [area.frame.ss as u32, ds, es, fs, gs].map(|s| s as u16);
            state.selectors = Selectors { cs: state.selectors.cs, ss, ds, es, fs, gs };
        }
        if report.from_guest {
            state.eip = area.frame.rip as u32;
            state.selectors.cs = area.frame.cs as u16;
        } else if !report.crossed && report.signal != libc::SIGALRM {
            return Err(Error::EntryRefused { trap, code: report.error_code });
        }
        Ok(NativeExit {
            signal: report.signal,
            trap,
            error_code: report.error_code,
            address: report.address,
            single_step: report.single_step,
            eip: state.eip,
            crossing: report.crossed.then_some(report.crossing),
        })
    }
}

/// The bits of MXCSR that exist (Intel SDM volume 1, 11.6.6).
fn host_mxcsr_mask() -> u32 {
    static MASK: OnceLock<u32> = OnceLock::new();
    *MASK.get_or_init(|| {
        let mut area = FxArea([0; 512]);
        // SAFETY: the area has FXSAVE's size and alignment.
        unsafe { core::arch::x86_64::_fxsave(area.0.as_mut_ptr()) };
        let bytes = [0, 1, 2, 3].map(|at| area.0[MXCSR_MASK + at]);
        match u32::from_le_bytes(bytes) {
            0 => DEFAULT_MXCSR_MASK,
            mask => mask,
        }
    })
}
