//! Crossings: 32-bit code that goes back into the monitor by itself, with all its state.

use host::compatibility::{CompatibilityMode, FLAT_CODE, FLAT_DATA, NativeState, Selectors};
use host::crossing::{self, CODE_SELECTOR};
use host::ldt::{LdtEntry, SegmentDescriptor, SegmentKind};
use host::low_memory::{LowMemory, Protection};
use machine::cpu::{Eflags, XMM0};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(2);
const PADS: u32 = 0x1000;
const DATA: u32 = 0x2000;
/// Bytes of the far jump.
const JUMP: u32 = 7;

/// Memory with code that crosses with a number, and the pad for it, which code cannot change.
fn crossing_memory(before: &[u8], number: u32) -> LowMemory {
    static NEXT: AtomicU32 = AtomicU32::new(0x3000_0000);
    let address = NEXT.fetch_add(0x1_0000, Ordering::Relaxed);
    let mut memory = LowMemory::new(address, 0x3000).unwrap();
    let mut code = before.to_vec();
    code.push(0xea);
    code.extend((address + PADS).to_le_bytes());
    code.extend(CODE_SELECTOR.to_le_bytes());
    memory.write(0, &code);
    memory.write(PADS as usize, &crossing::pad(number));
    memory.protect(PADS as usize, 0x1000, Protection::Read).unwrap();
    memory
}

fn mode_for(memory: &LowMemory) -> CompatibilityMode {
    let mut mode = CompatibilityMode::new().unwrap();
    mode.allow_crossings(memory.address() + PADS..memory.address() + DATA);
    mode
}

/// A state in which every register has a value of its own, ESP among them.
fn full_state(memory: &LowMemory, flags: Eflags) -> NativeState {
    let mut state = NativeState { eip: memory.address(), ..NativeState::default() };
    state.registers = std::array::from_fn(|i| 0x1111_1111 * (i as u32 + 8));
    state.eflags = flags.bits();
    // MM0 and XMM1.
    state.fpu.area.0[32..42].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff]);
    state.fpu.area.0[XMM0 + 16..XMM0 + 32].copy_from_slice(&[0xa5; 16]);
    state.fpu.area.0[4] = 0x80;
    state.fpu.area.0[3] = 7 << 3;
    state
}

/// A data segment somewhere in `memory`.
fn data_segment(memory: &LowMemory) -> LdtEntry {
    LdtEntry::new(SegmentDescriptor {
        base: memory.address() + DATA,
        limit: 0xfff,
        kind: SegmentKind::Data,
        is_32bit: true,
    })
    .unwrap()
}

#[test]
fn a_crossing_brings_all_registers_flags_and_selectors() {
    thread_local!(static HERE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    HERE.set(42);
    let memory = crossing_memory(&[], 0x8765_4321);
    let [data, stack] = [data_segment(&memory), data_segment(&memory)];
    let wanted = Eflags::ARITHMETIC | Eflags::DF | Eflags::NT | Eflags::ID | Eflags::AC;
    let mut mode = mode_for(&memory);
    for flags in [Eflags::empty(), wanted, Eflags::CF | Eflags::AC, Eflags::DF | Eflags::ZF] {
        let mut state = full_state(&memory, flags);
        state.selectors = Selectors {
            cs: FLAT_CODE,
            ss: stack.selector(),
            ds: data.selector(),
            es: FLAT_DATA,
            fs: data.selector(),
            gs: stack.selector(),
        };
        let before = state.clone();
        // SAFETY: the code only crosses.
        let exit = unsafe { mode.run_for(&mut state, LIMIT) }.unwrap();
        assert_eq!((exit.crossing, exit.signal), (Some(0x8765_4321), 0));
        assert_eq!(state.registers, before.registers);
        assert_eq!(state.eflags & wanted.bits(), flags.bits());
        assert_eq!((state.selectors, state.eip), (before.selectors, before.eip));
        assert_eq!(state.fpu.area.0[28..], before.fpu.area.0[28..]);
        assert_eq!(state.fpu.area.0[..6], before.fpu.area.0[..6]);
        // The host's thread-local storage and arithmetic are what they were.
        assert_eq!(HERE.get(), 42);
        assert_eq!(std::hint::black_box(1.0f64) / 3.0, 0.333_333_333_333_333_3);
    }
}

#[test]
fn what_the_code_did_before_it_crossed_is_seen() {
    // inc eax; push 0x2b; pop fs; pcmpeqb mm0, mm0; addps xmm1, xmm1
    let code = [0x40, 0x6a, 0x2b, 0x0f, 0xa1, 0x0f, 0x74, 0xc0, 0x0f, 0x58, 0xc9];
    let memory = crossing_memory(&code, 1);
    let mut state = full_state(&memory, Eflags::empty());
    state.registers[4] = memory.address() + DATA + 0x100;
    state.fpu.area.0[XMM0 + 16..XMM0 + 20].copy_from_slice(&1.5f32.to_le_bytes());
    let before = state.clone();
    // SAFETY: the code touches its own memory only.
    let exit = unsafe { mode_for(&memory).run_for(&mut state, LIMIT) }.unwrap();
    assert_eq!(exit.crossing, Some(1));
    assert_eq!(state.registers[0], before.registers[0] + 1);
    assert_eq!(state.registers[4], before.registers[4]);
    assert_eq!((state.selectors.fs, state.selectors.gs), (FLAT_DATA, 0));
    assert_eq!(state.fpu.area.0[32..40], [0xff; 8]);
    assert_eq!(state.fpu.area.0[XMM0 + 16..XMM0 + 20], 3.0f32.to_le_bytes());
}

#[test]
fn timers_at_any_moment_lose_neither_the_crossing_nor_themselves() {
    let memory = crossing_memory(&[], 3);
    let data = data_segment(&memory);
    let flags = Eflags::DF | Eflags::AC | Eflags::CF;
    let mut mode = mode_for(&memory);
    let mut crossings = 0;
    let mut state = full_state(&memory, flags);
    (state.selectors.fs, state.selectors.gs) = (data.selector(), data.selector());
    let before = state.clone();
    for round in 0..4000 {
        mode.set_timer(Duration::from_nanos(1 + 13 * (round % 1000))).unwrap();
        // Until the timer has ended a stay, or was found to have fired outside one.
        loop {
            // SAFETY: the code only crosses.
            let exit = unsafe { mode.run(&mut state) }.unwrap();
            assert_eq!(state.registers, before.registers);
            assert_eq!(state.selectors, before.selectors);
            assert_eq!(state.eflags & flags.bits(), flags.bits());
            assert_eq!(state.fpu.area.0[28..], before.fpu.area.0[28..]);
            assert_eq!(state.eip, memory.address());
            if exit.crossing != Some(3) {
                assert_eq!((exit.signal, exit.crossing), (libc::SIGALRM, None));
                break;
            }
            crossings += 1;
        }
        mode.clear_timer().unwrap();
    }
    assert!(crossings > 1000, "{crossings}");
}

#[test]
fn a_crossing_that_is_single_stepped_keeps_the_trap_flag() {
    // nop
    let memory = crossing_memory(&[0x90], 4);
    let mut mode = mode_for(&memory);
    let mut state = full_state(&memory, Eflags::TF);
    // SAFETY: the code only crosses.
    let exit = unsafe { mode.run_for(&mut state, LIMIT) }.unwrap();
    assert_eq!((exit.signal, exit.eip), (libc::SIGTRAP, memory.address() + 1));
    state.eflags |= Eflags::TF.bits();
    // SAFETY: as above.
    let exit = unsafe { mode.run_for(&mut state, LIMIT) }.unwrap();
    assert_eq!(exit.crossing, Some(4));
    assert_ne!(state.eflags & Eflags::TF.bits(), 0);
}

#[test]
fn the_guest_goes_on_behind_its_crossing() {
    // The first crossing's number is 5; then dec ecx; jnz to the start; hlt.
    let mut memory = crossing_memory(&[], 5);
    memory.write(JUMP as usize, &[0x49, 0x75, 0xf6, 0xf4]);
    let mut mode = mode_for(&memory);
    let mut state = full_state(&memory, Eflags::empty());
    state.registers[1] = 1000;
    let mut crossings = 0;
    loop {
        // SAFETY: the code only crosses and counts.
        let exit = unsafe { mode.run_for(&mut state, LIMIT) }.unwrap();
        if exit.crossing.is_none() {
            assert_eq!((exit.trap, exit.eip), (13, memory.address() + JUMP + 3));
            break;
        }
        crossings += 1;
        state.eip = memory.address() + JUMP;
    }
    assert_eq!((crossings, state.registers[1]), (1000, 0));
}
