//! Interrupts from outside: into loops without exits, into HLT, and time stamps.

use crate::guest::{Guest, MORE_CODE, gate};
use machine::cpu::{Cr4, register};
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

guest_code! {
    // PICs at 0x20, only IRQ 0; the PIT at 1 kHz; 100 ticks into a loop.
    loops: ".code32",
        "mov al, 0x11", "out 0x20, al", "mov al, 0x20", "out 0x21, al", "mov al, 4", "out 0x21, al",
        "mov al, 1", "out 0x21, al", "mov al, 0xfe", "out 0x21, al",
        "mov al, 0x34", "out 0x43, al", "mov al, 0xa9", "out 0x40, al", "mov al, 4", "out 0x40, al",
        "xor ecx, ecx", "sti",
        "2:", "inc ebx", "cmp ecx, 100", "jb 2b", "mov al, 1", "out 0xf4, al";
    halts: ".code32",
        "mov al, 0x11", "out 0x20, al", "mov al, 0x20", "out 0x21, al", "mov al, 4", "out 0x21, al",
        "mov al, 1", "out 0x21, al", "mov al, 0xfe", "out 0x21, al",
        "mov al, 0x34", "out 0x43, al", "mov al, 0xa9", "out 0x40, al", "mov al, 4", "out 0x40, al",
        "xor ecx, ecx",
        "2:", "sti", "hlt", "cmp ecx, 20", "jb 2b", "mov al, 1", "out 0xf4, al";
    tick: ".code32", "inc ecx", "push eax", "mov al, 0x20", "out 0x20, al", "pop eax", "iretd";
    endless: ".code32", "2:", "inc ebx", "jmp 2b";
    reads_time_stamps: ".code32",
        "mov ecx, 100", "rdtsc", "mov esi, eax", "2:", "rdtsc", "cmp eax, esi", "jb 3f",
        "mov esi, eax", "loop 2b", "mov al, 1", "out 0xf4, al",
        "3:", "mov al, 0", "out 0xf4, al";
}

fn guest(code: &[u8]) -> Guest {
    let mut guest = Guest::with(code);
    guest.set_gate(0x20, gate(MORE_CODE, 0x8e));
    guest.write(MORE_CODE, tick());
    guest
}

#[test]
fn timer_interrupts_reach_a_loop_without_exits() {
    let mut guest = guest(loops());
    let start = Instant::now();
    assert_eq!(guest.exits(), 1);
    // At 1 kHz they are 100 ms; a host that has other work may take its time.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(guest.get(register::EBX) > 1000);
}

#[test]
fn halt_ends_with_the_next_interrupt() {
    let mut guest = guest(halts());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::ECX), 20);
}

#[test]
fn a_deadline_ends_an_endless_loop() {
    let mut guest = Guest::with(endless());
    let (machine, strategy) = guest.machine_and_strategy();
    let start = Instant::now();
    let limit = Limit::until(start + Duration::from_millis(30));
    assert_eq!(strategy.run(machine, &limit).unwrap(), Stop::Limit);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn time_stamps_are_the_guests_own() {
    let mut guest = Guest::with(reads_time_stamps());
    guest.clock().set_tsc(5);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EDX), 0, "the guest's counter began just now");
    drop(guest);
    // With CR4.TSD only ring 0 may read it.
    let mut guest = Guest::in_ring3(&[0x0f, 0x31]);
    guest.cpu.cr4 |= Cr4::TSD;
    guest.raises(13, Some(0), crate::guest::CODE);
}
