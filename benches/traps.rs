//! One trap and its emulation, CLI under trap-and-emulate, against what the host takes for a signal
//! alone: the same instruction in 32-bit code, and a handler that only steps over it. Beside them a
//! crossing, the way into the monitor without a signal.
//!
//! The first two are measured in turns, in one process, and the ratio of the medians is printed; criterion's
//! figures of each follow.

use benches::{endless, guest};
use criterion::{Criterion, Throughput, criterion_group};
use host::compatibility::{CompatibilityMode, IntegerState, NativeState, Selectors};
use host::crossing::{self, CODE_SELECTOR};
use host::low_memory::LowMemory;
use machine::cpu::{Eflags, Fpu, register};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use strategy::{ExitKind, Limit, Strategy};
use trap_and_emulate::TrapAndEmulate;

const CLI: u8 = 0xfa;
/// Where the code of the bare signals is.
const CODE: u32 = 0x1000_0000;
/// Where the crossing's pad is, from there.
const PAD: u32 = 0x100;
/// 1: cli; dec ecx; jnz 1b; hlt
const LOOP: [u8; 5] = [CLI, 0x49, 0x75, 0xfc, 0xf4];

/// Samples of each, and the traps in one: so many that mapping the guest's pages when a run begins
/// is a hundredth of it.
const SAMPLES: u64 = 25;
const TRAPS: u64 = 20_000;

/// What handles a signal that is not CLI's.
static EARLIER: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::ucontext_t);

/// Steps over a CLI. Thread-local storage is out of reach here: FS is the 32-bit code's.
extern "C" fn step_over(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the kernel's frame; the code at RIP was just executed.
    unsafe {
        let rip = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        if *ptr::with_exposed_provenance::<u8>(*rip as usize) == CLI {
            *rip += 1;
            return;
        }
        let earlier: Handler = std::mem::transmute(EARLIER.load(Ordering::Relaxed));
        earlier(signal, info, context);
    }
}

/// While it lives, [`step_over`] handles SIGSEGV.
struct Minimal(libc::sigaction);

impl Minimal {
    fn install() -> Minimal {
        let mut earlier = MaybeUninit::uninit();
        // SAFETY: an all-zero `sigaction` is valid; the handler has SA_SIGINFO's type.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = step_over as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, earlier.as_mut_ptr()), 0);
            let earlier: libc::sigaction = earlier.assume_init();
            EARLIER.store(earlier.sa_sigaction, Ordering::Relaxed);
            Minimal(earlier)
        }
    }
}

impl Drop for Minimal {
    fn drop(&mut self) {
        // SAFETY: restores what was there.
        unsafe { libc::sigaction(libc::SIGSEGV, &self.0, ptr::null_mut()) };
    }
}

/// The time of so many signals and nothing else.
fn bare_signals(wanted: u64) -> Duration {
    let mut mode = CompatibilityMode::new().expect("native code runs here");
    let mut memory = LowMemory::new(CODE, 4096).expect("memory below 4 GiB");
    memory.write(0, &LOOP);
    let mut state = NativeState { eip: CODE, ..NativeState::default() };
    let made = wanted.clamp(TRAPS, u32::MAX.into());
    state.registers[register::ECX] = made as u32;
    let _minimal = Minimal::install();
    let start = Instant::now();
    // SAFETY: the loop touches no memory and stays in 32-bit mode.
    unsafe { mode.run(&mut state) }.expect("the loop is entered");
    let spent = start.elapsed();
    assert_eq!(state.registers[register::ECX], 0, "it ended elsewhere: {:#x}", state.eip);
    spent.mul_f64(wanted as f64 / made as f64)
}

/// The time of so many traps with their emulation, in a guest that does nothing else; more are made
/// than asked for, so that beginning a run is no part of it.
fn emulated_traps(wanted: u64) -> Duration {
    let mut machine = guest(&endless(&[CLI]));
    let mut strategy = TrapAndEmulate::new();
    let slice = |instructions| Limit { instructions: Some(instructions), deadline: None };
    // The guest's pages are mapped before the clock runs.
    strategy.run(&mut machine, &slice(1)).expect("the strategy runs");
    let first = strategy.exits().get(ExitKind::Privileged);
    let start = Instant::now();
    loop {
        strategy.run(&mut machine, &slice(wanted.max(TRAPS) * 10_000)).expect("the strategy runs");
        let made = strategy.exits().get(ExitKind::Privileged) - first;
        if made >= wanted.max(TRAPS) {
            return start.elapsed().mul_f64(wanted as f64 / made as f64);
        }
    }
}

/// The time of so many crossings, each entered and left with the whole state.
fn crossings(wanted: u64) -> Duration {
    let mut mode = CompatibilityMode::new().expect("native code runs here");
    let mut memory = LowMemory::new(CODE, 4096).expect("memory below 4 GiB");
    let mut code = vec![0xea];
    code.extend((CODE + PAD).to_le_bytes());
    code.extend(CODE_SELECTOR.to_le_bytes());
    memory.write(0, &code);
    memory.write(PAD as usize, &crossing::pad(1));
    mode.allow_crossings(CODE + PAD..CODE + PAD + crossing::PAD_BYTES as u32);
    let mut state = IntegerState {
        registers: [0; 8],
        eip: CODE,
        eflags: Eflags::FIXED.bits(),
        selectors: Selectors::FLAT,
        has_16bit_stack: false,
    };
    let mut fpu = Fpu::default();
    let start = Instant::now();
    for _ in 0..wanted {
        // SAFETY: the code only crosses.
        let exit = unsafe { mode.run_with(&mut state, &mut fpu) }.expect("the code is entered");
        assert_eq!(exit.crossing, Some(1));
    }
    start.elapsed()
}

/// Microseconds a trap, the median of the samples.
fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_secs_f64() * 1e6 / TRAPS as f64
}

fn print_ratio() {
    let (mut bare, mut emulated) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        bare.push(bare_signals(TRAPS));
        emulated.push(emulated_traps(TRAPS));
    }
    let (bare, emulated) = (median(bare), median(emulated));
    println!(
        "a trap and its emulation {emulated:.3} µs, a bare signal {bare:.3} µs: ratio {:.2}",
        emulated / bare
    );
}

fn traps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trap");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare signal", |bencher| bencher.iter_custom(bare_signals));
    group.bench_function("CLI emulated", |bencher| bencher.iter_custom(emulated_traps));
    group.bench_function("crossing", |bencher| bencher.iter_custom(crossings));
    group.finish();
}

criterion_group!(all, traps);

fn main() {
    if let strategy::Support::Missing(reason) = trap_and_emulate::support() {
        return println!("not measured: {reason}");
    }
    print_ratio();
    all();
    Criterion::default().configure_from_args().final_summary();
}
