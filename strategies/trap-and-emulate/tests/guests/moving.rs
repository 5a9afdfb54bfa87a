//! Guests that change strategy in mid-run, every so often.

use crate::guest::{CODE, DATA, Guest, MORE_CODE, machine};
use interpretation::Interpretation;
use machine::cpu::register;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

guest_code! {
    // Sorts 64 numbers again and again, with a system call after each comparison of a row.
    sorts: ".code32",
        "mov ebp, 400", "1:", "mov ecx, 64", "mov eax, ebp", "mov edi, 0x18000",
        "2:", "imul eax, eax, 1664525", "add eax, 1013904223", "stosd", "loop 2b",
        "mov edx, 63",
        "3:", "xor esi, esi",
        "4:", "mov eax, [0x18000 + esi*4]", "cmp eax, [0x18004 + esi*4]", "jbe 5f",
        "xchg eax, [0x18004 + esi*4]", "mov [0x18000 + esi*4], eax",
        "5:", "inc esi", "cmp esi, edx", "jb 4b", "int 0x80", "dec edx", "jnz 3b",
        "fld1", "fadd qword ptr [0x18200]", "fstp qword ptr [0x18200]",
        "dec ebp", "jnz 1b", "mov al, 1", "out 0xf4, al";
    adds_up: ".code32", "add ebx, [0x18000 + esi*4]", "rol ebx, 1", "iretd";
}

#[test]
fn every_few_hundred_instructions() {
    let mut expected = machine();
    let prepare = |guest: &mut Guest| {
        guest.set_handler(0x80, adds_up());
        guest.enable_paging();
    };
    let mut guest = Guest::with(sorts());
    prepare(&mut guest);
    std::mem::swap(guest.machine_and_strategy().0, &mut expected);
    // `expected` is prepared now; the guest is not.
    let mut interpretation = Interpretation::new();
    assert_eq!(interpretation.run(&mut expected, &Limit::none()).unwrap(), Stop::Exit(1));

    guest.write(CODE, sorts());
    prepare(&mut guest);
    let (machine, native) = guest.machine_and_strategy();
    let (start, mut switches, mut size) = (Instant::now(), 0u64, 0);
    let stop = loop {
        size = (size * 5 + 301) % 997;
        let strategy: &mut dyn Strategy =
            if switches.is_multiple_of(2) { native } else { &mut interpretation };
        match strategy.run(machine, &Limit::instructions(size)).unwrap() {
            Stop::Limit => switches += 1,
            stop => break stop,
        }
        assert!(start.elapsed() < Duration::from_secs(20), "stuck: {:x?}", machine.cpu);
    };
    assert_eq!(stop, Stop::Exit(1));
    assert!(switches > 4, "{switches} switches");
    assert_eq!(machine.cpu.registers, expected.cpu.registers);
    assert_eq!(machine.cpu.flags, expected.cpu.flags);
    assert_ne!(machine.cpu.registers[register::EBX], 0);
    for at in (DATA..DATA + 0x208).step_by(4).chain((MORE_CODE..MORE_CODE + 64).step_by(4)) {
        let at = machine::PhysicalAddress(at.into());
        assert_eq!(machine.memory.read_u32(at), expected.memory.read_u32(at), "{at}");
    }
}
