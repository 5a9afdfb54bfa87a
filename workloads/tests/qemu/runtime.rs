//! The runtime itself: what it sets up, what it prints, and that nothing it promises is missing.

use crate::emulator::{is_installed, run};
use workloads::protocol::{Fault, Transcript};
use workloads::runtime::prelude::*;

const MEMORY: u64 = layout::MEMORY as u64;

/// Runs a guest with `setup` that does what `body` emits and reports EAX as its result.
fn run_guest(
    setup: Setup,
    body: impl FnOnce(&mut Guest),
) -> Option<(Option<i32>, Transcript<usize>)> {
    if !is_installed() {
        return None;
    }
    let mut guest = Guest::boot("test", setup);
    body(&mut guest);
    Some(run(&guest.finish(0).unwrap(), MEMORY))
}

/// The result that such a guest reports.
fn result_of(setup: Setup, body: impl FnOnce(&mut Guest), expected: u32) {
    let Some((status, transcript)) = run_guest(setup, body) else { return };
    assert_eq!((status, transcript.result), (Some(1), Some(expected)), "{transcript:?}");
}

#[test]
fn an_unexpected_exception_is_reported_with_its_address_and_ends_the_guest() {
    let mut address = 0;
    let ran = run_guest(Setup::USUAL, |g| {
        address = g.here();
        x86!(g ; ud2);
    });
    let Some((status, transcript)) = ran else { return };
    let fault = Fault { vector: 6, error_code: 0, eip: address, cr2: 0 };
    assert_eq!((status, transcript.fault), (Some(3), Some(fault)));
    assert_eq!(transcript.result, None);
}

#[test]
fn a_page_fault_is_reported_with_its_error_code_and_address() {
    let ran = run_guest(Setup::USUAL, |g| {
        g.ring3(|g| x86!(g ; mov DWORD [0x7FFF_FFF0], 0));
    });
    let Some((_, transcript)) = ran else { return };
    let fault = transcript.fault.unwrap();
    assert_eq!((fault.vector, fault.error_code, fault.cr2), (14, 6, 0x7FFF_FFF0));
}

#[test]
fn probes_say_what_was_seen_and_what_was_expected() {
    let ran = run_guest(Setup::default(), |g| {
        x86!(g ; mov eax, 0xABC);
        g.probe("right", 0xABC);
        g.probe("different", 0x123);
    });
    let Some((_, transcript)) = ran else { return };
    let differences: Vec<_> = transcript.probes.iter().map(|probe| probe.difference).collect();
    assert_eq!(differences, [None, Some((0xABC, 0x123))]);
    assert_eq!(transcript.result, Some(0xABC), "probes change no register");
}

#[test]
fn ring_3_has_privilege_3_and_registers_pass_through() {
    let body = |g: &mut Guest| {
        x86!(g ; mov ebx, 0x100);
        g.ring3(|g| x86!(g ; mov eax, cs ; and eax, 3 ; add ebx, eax));
        x86!(g ; mov eax, cs ; and eax, 3 ; add eax, ebx);
    };
    for paging in [Paging::Off, Paging::USUAL, Paging::Large { mib: 16, user: true }] {
        result_of(Setup { paging, sse: false }, body, 0x103);
    }
}

#[test]
fn pages_without_the_user_bit_are_closed_to_ring_3() {
    for paging in [Paging::Small { mib: 16, user: false }, Paging::Large { mib: 16, user: false }] {
        let ran = run_guest(Setup { paging, sse: false }, |g| g.ring3(|_| {}));
        let Some((_, transcript)) = ran else { return };
        let fault = transcript.fault.unwrap();
        assert_eq!((fault.vector, fault.error_code), (14, 5));
    }
}

#[test]
fn the_bitmap_of_the_tss_denies_ring_3_every_port() {
    let ran = run_guest(Setup::USUAL, |g| g.ring3(|g| g.console_byte(b'x')));
    let Some((_, transcript)) = ran else { return };
    assert_eq!(transcript.fault.map(|fault| fault.vector), Some(13));
}

#[test]
fn data_is_where_it_was_promised_and_apart_from_the_code() {
    let body = |g: &mut Guest| {
        let data = g.data(&0x5EED_u32.to_le_bytes());
        assert!(data >> 12 != g.here() >> 12);
        x86!(g ; mov eax, [data as i32]);
    };
    result_of(Setup::USUAL, body, 0x5EED);
}

#[test]
fn the_timer_interrupts_ring_3() {
    let body = |g: &mut Guest| {
        g.count_ticks();
        g.set_up_pics(1 << 0);
        g.start_pit(1000);
        g.ring3_with(layout::EFLAGS_IF, layout::USER_STACK, |g| {
            x86!(g ; wait: ; cmp DWORD [layout::TICKS as i32], 3 ; jb <wait);
        });
        x86!(g ; mov eax, 1);
    };
    result_of(Setup::USUAL, body, 1);
}

#[test]
fn what_does_not_fit_is_an_error_and_not_a_broken_image() {
    let mut guest = Guest::boot("big", Setup::default());
    guest.data(&vec![0; 1 << 20]);
    assert!(guest.finish(0).is_err());
    let mut guest = Guest::boot("long", Setup::default());
    let code = &mut guest;
    x86!(code ; .bytes vec![0x90u8; 1 << 20]);
    assert!(guest.finish(0).is_err());
}
