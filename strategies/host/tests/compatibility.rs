//! Native 32-bit code through the public interface: what goes in, what comes out, what ends it.

use host::compatibility::{CompatibilityMode, FLAT_DATA, NativeExit, NativeState, Selectors};
use host::int1;
use host::ldt::{LdtEntry, SegmentDescriptor, SegmentKind};
use host::low_memory::{LowMemory, Protection};
use machine::cpu::{Eflags, XMM0};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(2);
const HLT: u8 = 0xf4;
/// Where each test's data lie in its memory; the code is at its start.
const DATA: u32 = 0x1000;

/// Memory for one test, at an address that no other test has.
fn memory(code: &[u8]) -> LowMemory {
    static NEXT: AtomicU32 = AtomicU32::new(0x1000_0000);
    let address = NEXT.fetch_add(0x1_0000, Ordering::Relaxed);
    let mut memory = LowMemory::new(address, 0x3000).unwrap();
    memory.write(0, code);
    memory
}

fn state_at(memory: &LowMemory) -> NativeState {
    let mut state = NativeState { eip: memory.address(), ..NativeState::default() };
    state.registers[4] = memory.address() + 0x3000;
    state
}

fn run(state: &mut NativeState) -> NativeExit {
    let mut mode = CompatibilityMode::new().unwrap();
    // SAFETY: the tests' code touches their own low memory only.
    unsafe { mode.run_for(state, LIMIT) }.unwrap()
}

#[test]
fn a_privileged_instruction_ends_the_stay_at_its_address() {
    // mov eax, 0x12345678; cli
    let memory = memory(&[0xb8, 0x78, 0x56, 0x34, 0x12, 0xfa]);
    let mut state = state_at(&memory);
    let exit = run(&mut state);
    assert_eq!((exit.signal, exit.trap, exit.error_code), (libc::SIGSEGV, 13, 0));
    assert_eq!(exit.eip, memory.address() + 5);
    assert_eq!((state.eip, state.registers[0]), (exit.eip, 0x1234_5678));
}

#[test]
fn int1_is_no_single_step_and_is_where_the_host_was_found_to_name_it() {
    // data16 int1; int1; hlt
    let memory = memory(&[0x66, int1::INT1, int1::INT1, HLT]);
    let exit = run(&mut state_at(&memory));
    assert_eq!((exit.signal, exit.trap, exit.single_step), (libc::SIGTRAP, 1, false));
    let behind = if int1::is_named_itself() { 0 } else { 2 };
    assert_eq!(exit.eip, memory.address() + behind);
}

#[test]
fn all_registers_and_flags_go_in_and_come_out() {
    let memory = memory(&[HLT]);
    let wanted = Eflags::ARITHMETIC | Eflags::DF | Eflags::NT | Eflags::ID | Eflags::AC;
    for flags in [Eflags::empty(), wanted, Eflags::CF | Eflags::SF, Eflags::OF | Eflags::ZF] {
        let mut state = state_at(&memory);
        state.registers = std::array::from_fn(|i| 0x1111_1111 * (i as u32 + 8));
        state.eflags = flags.bits();
        let before = state.clone();
        run(&mut state);
        assert_eq!(state.registers, before.registers);
        assert_eq!(state.eflags & wanted.bits(), flags.bits());
        assert_eq!(state.selectors, Selectors::FLAT);
    }
}

#[test]
fn a_division_by_zero_is_a_sigfpe() {
    // xor ecx, ecx; div ecx
    let memory = memory(&[0x31, 0xc9, 0xf7, 0xf1]);
    let exit = run(&mut state_at(&memory));
    assert_eq!((exit.signal, exit.trap), (libc::SIGFPE, 0));
    assert_eq!(exit.eip, memory.address() + 2);
}

#[test]
fn traps_and_undefined_opcodes_have_their_vectors() {
    for (code, signal, trap, length) in [
        (&[0xccu8][..], libc::SIGTRAP, 3, 1),
        (&[0x0f, 0x0b], libc::SIGILL, 6, 0),
        (&[0xcd, 0x30], libc::SIGSEGV, 13, 0),
        // mov al, 127; inc al; into
        (&[0xb0, 0x7f, 0xfe, 0xc0, 0xce], libc::SIGSEGV, 4, 5),
    ] {
        let memory = memory(code);
        let exit = run(&mut state_at(&memory));
        assert_eq!((exit.signal, exit.trap), (signal, trap), "{code:02x?}");
        assert_eq!(exit.eip, memory.address() + length, "{code:02x?}");
    }
}

#[test]
fn a_page_fault_tells_its_address_and_kind() {
    // mov [ebx], eax
    let mut memory = memory(&[0x89, 0x03]);
    memory.protect(DATA as usize, 0x1000, Protection::Read).unwrap();
    let mut state = state_at(&memory);
    state.registers[3] = memory.address() + DATA + 4;
    let exit = run(&mut state);
    assert_eq!((exit.signal, exit.trap, exit.error_code), (libc::SIGSEGV, 14, 7));
    assert_eq!((exit.address, exit.eip), (memory.address() + DATA + 4, memory.address()));
}

#[test]
fn floating_point_state_goes_in_and_comes_out() {
    // fld1; addps xmm1, xmm0; hlt
    let memory = memory(&[0xd9, 0xe8, 0x0f, 0x58, 0xc8, HLT]);
    let mut state = state_at(&memory);
    let (one, two) = (1.0f32.to_le_bytes(), 2.0f32.to_le_bytes());
    state.fpu.area.0[XMM0..XMM0 + 4].copy_from_slice(&one);
    state.fpu.area.0[XMM0 + 16..XMM0 + 20].copy_from_slice(&two);
    // Truncation, and a reserved bit that must not bring the monitor down.
    state.fpu.set_mxcsr(0x7f80 | 1 << 30);
    run(&mut state);
    assert_eq!(state.fpu.area.0[XMM0 + 16..XMM0 + 20], 3.0f32.to_le_bytes());
    assert_eq!(state.fpu.mxcsr(), 0x7f80);
    // One register in use, TOP is 7, and it holds 1.0.
    assert_eq!(state.fpu.area.0[4], 0x80);
    assert_eq!(state.fpu.area.0[3] >> 3 & 7, 7);
    assert_eq!(state.fpu.area.0[32..42], [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    // The host's own arithmetic is what it was.
    assert_eq!(std::hint::black_box(1.0f64) / 3.0, 0.333_333_333_333_333_3);
}

#[test]
fn state_that_became_the_initial_one_comes_out_as_such() {
    // fninit; xorps xmm0, xmm0; ldmxcsr [ebx]; hlt: the host may not save what is initial.
    let mut memory = memory(&[0xdb, 0xe3, 0x0f, 0x57, 0xc0, 0x0f, 0xae, 0x13, HLT]);
    memory.write(DATA as usize, &0x1f80u32.to_le_bytes());
    let mut state = state_at(&memory);
    state.registers[3] = memory.address() + DATA;
    state.fpu.area.0[..8].copy_from_slice(&[0x7e, 2, 0, 0x38, 0xff, 0, 0, 0]);
    state.fpu.area.0[32..42].fill(0x77);
    state.fpu.area.0[XMM0..XMM0 + 16].fill(0x55);
    state.fpu.set_mxcsr(0x7f80);
    let registers = state.fpu.area.0[32..42].to_vec();
    run(&mut state);
    assert_eq!(state.fpu.area.0[..5], [0x7f, 3, 0, 0, 0]);
    // FNINIT leaves the registers; with TOP 0, not 7, the first is the last.
    assert_eq!(state.fpu.area.0[144..154], registers);
    assert_eq!(state.fpu.area.0[XMM0..XMM0 + 16], [0; 16]);
    assert_eq!(state.fpu.mxcsr(), 0x1f80);
}

#[test]
fn unmasked_floating_point_exceptions_are_exits() {
    // fldz; fdiv st0, st0; fwait
    let memory = memory(&[0xd9, 0xee, 0xd8, 0xf0, 0x9b]);
    let mut state = state_at(&memory);
    state.fpu.area.0[0] = 0x7e;
    let exit = run(&mut state);
    assert_eq!((exit.signal, exit.trap), (libc::SIGFPE, 16));
    assert_eq!(exit.eip, memory.address() + 4);
}

#[test]
fn an_endless_loop_is_ended_by_the_watchdog() {
    let memory = memory(&[0xeb, 0xfe]);
    let mut state = state_at(&memory);
    let mut mode = CompatibilityMode::new().unwrap();
    for limit in [Duration::ZERO, Duration::from_millis(2)] {
        // SAFETY: the loop touches nothing.
        let exit = unsafe { mode.run_for(&mut state, limit) }.unwrap();
        assert_eq!(exit.signal, libc::SIGALRM);
        assert_eq!(exit.eip, memory.address());
    }
}

#[test]
fn the_trap_flag_steps_one_instruction() {
    // inc eax; inc eax
    let memory = memory(&[0x40, 0x40]);
    let mut state = state_at(&memory);
    for step in 1..=2 {
        state.eflags |= Eflags::TF.bits();
        let exit = run(&mut state);
        assert_eq!((exit.signal, exit.trap), (libc::SIGTRAP, 1));
        assert_eq!((state.registers[0], exit.eip), (step, memory.address() + step));
    }
}

#[test]
fn system_calls_do_not_reach_the_host() {
    // mov eax, 1 (exit); int 0x80
    let memory = memory(&[0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let exit = run(&mut state_at(&memory));
    assert_eq!(exit.signal, libc::SIGSYS);
    assert_eq!(exit.eip, memory.address() + 7);
}

#[test]
fn segments_have_bases_limits_and_sizes() {
    // In 16-bit code: mov ax, [0x10]; mov bx, [0x20]
    let mut memory = memory(&[0xa1, 0x10, 0, 0x8b, 0x1e, 0x20, 0]);
    memory.write(DATA as usize + 0x10, &[0x34, 0x12]);
    let segment = |base, limit, kind, is_32bit| {
        LdtEntry::new(SegmentDescriptor { base, limit, kind, is_32bit }).unwrap()
    };
    let code = segment(memory.address(), 0xfff, SegmentKind::Code, false);
    let data = segment(memory.address() + DATA, 0x20, SegmentKind::Data, true);
    let mut state = state_at(&memory);
    state.eip = 0;
    state.selectors.cs = code.selector();
    state.selectors.ds = data.selector();
    let exit = run(&mut state);
    assert_eq!(state.registers[0], 0x1234);
    assert_eq!((exit.signal, exit.trap, exit.eip), (libc::SIGSEGV, 13, 3));
    assert_eq!(state.selectors.ds, data.selector());
}

#[test]
fn fs_and_gs_are_the_guests_inside_and_the_hosts_outside() {
    thread_local!(static HERE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    HERE.set(42);
    // mov eax, fs:[0]; push 0x2b; pop gs; hlt
    let mut memory = memory(&[0x64, 0xa1, 0, 0, 0, 0, 0x6a, 0x2b, 0x0f, 0xa9, HLT]);
    memory.write(DATA as usize, &[1, 2, 3, 4]);
    let data = LdtEntry::new(SegmentDescriptor {
        base: memory.address() + DATA,
        limit: 0xfff,
        kind: SegmentKind::ReadOnlyData,
        is_32bit: true,
    })
    .unwrap();
    let mut state = state_at(&memory);
    state.selectors.fs = data.selector();
    run(&mut state);
    assert_eq!(state.registers[0], 0x0403_0201);
    assert_eq!((state.selectors.fs, state.selectors.gs), (data.selector(), FLAT_DATA));
    assert_eq!(HERE.get(), 42);
}

#[test]
fn a_selector_that_the_cpu_refuses_is_an_error_and_changes_nothing() {
    let memory = memory(&[HLT]);
    for (cs, fs) in [(0x10, 0), (0x23, 0x10)] {
        let mut state = state_at(&memory);
        (state.selectors.cs, state.selectors.fs) = (cs, fs);
        let before = state.clone();
        let mut mode = CompatibilityMode::new().unwrap();
        // SAFETY: nothing runs.
        let error = unsafe { mode.run(&mut state) }.unwrap_err();
        assert!(matches!(error, host::Error::EntryRefused { trap: 13, code: 0x10 }), "{error}");
        assert_eq!(state, before);
    }
}

#[test]
fn a_thread_has_one_at_a_time() {
    let first = CompatibilityMode::new().unwrap();
    assert!(matches!(CompatibilityMode::new(), Err(host::Error::Busy)));
    drop(first);
    assert!(CompatibilityMode::new().is_ok());
}

#[test]
fn threads_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // loop: loop loop; hlt
                let memory = memory(&[0xe2, 0xfe, HLT]);
                let mut mode = CompatibilityMode::new().unwrap();
                for round in 0..500 {
                    let mut state = state_at(&memory);
                    state.registers[1] = 1000 + round;
                    // SAFETY: the loop touches nothing.
                    let exit = unsafe { mode.run_for(&mut state, LIMIT) }.unwrap();
                    assert_eq!((exit.trap, state.registers[1]), (13, 0));
                }
            });
        }
    });
}

#[test]
fn kicks_at_any_moment_lose_nothing() {
    // loop: inc eax; jmp loop. Limits of some hundred nanoseconds hit the way in as well.
    let memory = memory(&[0x40, 0xeb, 0xfd]);
    let mut mode = CompatibilityMode::new().unwrap();
    let mut state = state_at(&memory);
    for round in 0..3000 {
        state.registers[3] = round;
        // SAFETY: the loop touches nothing.
        let exit =
            unsafe { mode.run_for(&mut state, Duration::from_nanos(1 + 7 * u64::from(round))) };
        assert_eq!(exit.unwrap().signal, libc::SIGALRM);
        assert!((memory.address()..memory.address() + 2).contains(&state.eip));
        assert_eq!(state.registers[3], round);
    }
}
