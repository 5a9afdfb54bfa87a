//! Pointers to every edge of 4 GiB, stacks that begin there, and repetitions without end.

use crate::guest::{CODE, Guest, Sides};
use binary_translation::BinaryTranslation;
use machine::PhysicalAddress;
use machine::cpu::{Segment, SegmentRegister, access, register};
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

const EDGES: [u32; 22] = [
    0,
    1,
    2,
    3,
    4,
    7,
    0xffd,
    0x1000,
    0xa_0000 - 2,
    0x40_0000 - 4,
    0x40_0000 - 1,
    0x40_0000,
    0x7fff_fffe,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_efff,
    0xffff_f000,
    0xffff_fff8,
    0xffff_fffc,
    0xffff_fffd,
    0xffff_fffe,
    0xffff_ffff,
];

/// Memory operands at EBX, ESI, EDI.
const ACCESSES: [&[u8]; 34] = [
    &[0x8b, 0x03],
    &[0x89, 0x03],
    &[0x66, 0x89, 0x03],
    &[0x88, 0x03],
    &[0x88, 0x23],
    &[0x01, 0x03],
    &[0x87, 0x03],
    &[0x8b, 0x43, 0x7f],
    &[0x8b, 0x84, 0x5b, 0xf0, 0xff, 0xff, 0x7f],
    &[0x0f, 0xc7, 0x0b],
    &[0xf0, 0x0f, 0xc1, 0x03],
    &[0x0f, 0xab, 0x03],
    &[0xdb, 0x2b],
    &[0xdd, 0x13],
    &[0x0f, 0x10, 0x03],
    &[0x0f, 0x11, 0x03],
    &[0x0f, 0x28, 0x03],
    &[0xff, 0x33],
    &[0x8f, 0x03],
    &[0xff, 0x13],
    &[0xff, 0x23],
    &[0xff, 0x2b],
    &[0xa5],
    &[0xfd, 0xa5, 0xfc],
    &[0xf3, 0xa4],
    &[0xfd, 0xf3, 0xab, 0xfc],
    &[0xac],
    &[0xa7],
    &[0x30, 0xc0, 0xd7],
    &[0x64, 0x8b, 0x03],
    &[0x65, 0x89, 0x43, 0x04],
    &[0x0f, 0x01, 0x03],
    &[0x0f, 0x01, 0x23],
    &[0x8c, 0x1b],
];

/// Stack accesses at ESP, or EBP.
const STACKS: [&[u8]; 17] = [
    &[0x50],
    &[0x54],
    &[0x66, 0x50],
    &[0x6a, 0x11],
    &[0x58],
    &[0x5c],
    &[0x66, 0x58],
    &[0x9c],
    &[0x9d],
    &[0x60],
    &[0x61],
    &[0xe8, 0, 0, 0, 0],
    &[0xc3],
    &[0xc2, 0xff, 0xff],
    &[0xc8, 8, 0, 2],
    &[0xc9],
    &[0x8f, 0x44, 0x24, 0xfc],
];

/// Ring and whether there is paging.
const PLACES: [(u8, bool); 3] = [(0, false), (0, true), (3, true)];

fn set_up(guest: &mut Guest, (ring, paging): (u8, bool)) {
    if paging {
        guest.enable_paging();
    }
    guest.enter_ring(ring);
    let rights = access::WRITABLE | access::PRESENT | access::NOT_SYSTEM | access::ACCESSED;
    let rights = rights | 3 << 5 | access::DEFAULT_BIG | access::GRANULARITY;
    for (register, base) in [(SegmentRegister::Fs, 0xffff_fffe), (SegmentRegister::Gs, 2)] {
        *guest.machine.cpu.segment_mut(register) = Segment::new(0x23, base, u32::MAX, rights);
    }
}

#[test]
fn pointers_to_every_edge() {
    let Some(mut sides) = Sides::new() else { return };
    for place in PLACES {
        for code in ACCESSES {
            for edge in EDGES {
                let name = format!("{code:02x?} at {edge:#x}, {place:?}");
                sides.compare(&name, |guest| {
                    set_up(guest, place);
                    guest.code(&[code, code]);
                    guest.point_to(edge);
                });
            }
        }
    }
}

#[test]
fn stacks_at_every_edge() {
    let Some(mut sides) = Sides::new() else { return };
    for place in PLACES {
        for code in STACKS {
            for edge in EDGES {
                let name = format!("{code:02x?} with ESP {edge:#x}, {place:?}");
                sides.compare(&name, |guest| {
                    set_up(guest, place);
                    guest.code(&[code, code]);
                    guest.set(register::ESP, edge);
                    guest.set(register::EBP, edge);
                });
            }
        }
    }
}

#[test]
fn repetitions_without_end_stop_at_a_fault() {
    let Some(mut sides) = Sides::new() else { return };
    for opcode in [0xa4, 0xa5, 0xa6, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf] {
        for (direction, start) in [(0xfc, 0x3f_0000), (0xfd, 0x3f_8000), (0xfc, 0xffff_fff0)] {
            sides.compare(&format!("{opcode:02x} from {start:#x}"), |guest| {
                set_up(guest, (3, true));
                guest.write_u32(crate::guest::PAGE_TABLE + 4 * 0x3e0, 0);
                guest.code(&[&[direction, 0xf3, opcode]]);
                guest.point_to(start);
                guest.set(register::ECX, u32::MAX);
                guest.set(register::EAX, 0);
            });
        }
    }
}

/// The longest repetition that the guest's memory allows: some milliseconds, a byte at a time.
#[test]
fn a_repetition_is_broken_off_when_the_time_is_over() {
    let Ok(mut translator) = BinaryTranslation::new() else { return };
    let mut guest = Guest::new();
    guest.code(&[&[0xf3, 0xa4, 0xf4]]); // rep movsb; hlt
    let begin = |guest: &mut Guest| {
        guest.machine.cpu.halted = false;
        guest.machine.cpu.eip = CODE;
        guest.set(register::ESI, 0x10_0000);
        guest.set(register::EDI, 0x10_0001);
        guest.set(register::ECX, 0x2f_0000);
    };
    // Once to its end, so that the window shows all of it.
    begin(&mut guest);
    let limit = Limit::until(Instant::now() + Duration::from_secs(30));
    assert_eq!(translator.run(&mut guest.machine, &limit).unwrap(), Stop::Halted);
    guest.write(0x10_0000, &[0x5a]);
    begin(&mut guest);
    let mut rounds = 0;
    let mut last = u32::MAX;
    loop {
        let limit = Limit::until(Instant::now() + Duration::from_micros(200));
        let stop = translator.run(&mut guest.machine, &limit).unwrap();
        let left = guest.machine.cpu.registers[register::ECX];
        assert!(left < last, "it gets on");
        last = left;
        if stop == Stop::Halted {
            break;
        }
        assert_eq!((stop, guest.machine.cpu.eip), (Stop::Limit, CODE));
        rounds += 1;
    }
    assert!(rounds > 0, "it was not broken off");
    let mut bytes = vec![0; 0x2f_0001];
    guest.machine.memory.read(PhysicalAddress(0x10_0000), &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0x5a));
}
