//! Repetitions that do not run through: faults, single steps, breakpoints, long counts.

use crate::guest::{CODE, DATA, FRAME, Guest, PAGE, PageFault};
use machine::cpu::{Eflags, SegmentRegister, register::*};

const STOSB: &[u8] = &[0xf3, 0xaa];
const MOVSD: &[u8] = &[0xf3, 0xa5];

#[test]
fn a_page_fault_in_the_middle_keeps_what_was_done() {
    let mut guest = Guest::paged();
    guest.write(DATA, &[0x77; 64]);
    guest.set(ESI, DATA);
    guest.set(EDI, PAGE + 0x1000 - 16);
    guest.set(ECX, 10);
    let missing = PageFault { code: 2, address: PAGE + 0x1000, eip: CODE };
    assert_eq!(guest.access(MOVSD), Err(missing));
    assert_eq!((guest.get(ECX), guest.get(ESI)), (6, DATA + 16));
    assert_eq!(guest.get(EDI), PAGE + 0x1000);
    guest.map(1, (FRAME + 0x1000) | 7);
    guest.go().unwrap();
    assert_eq!((guest.get(ECX), guest.cpu.eip), (0, CODE + 2));
    assert_eq!(guest.read::<40>(FRAME + 0x1000 - 16), [0x77; 40]);
}

#[test]
fn an_element_across_a_missing_page_is_not_begun() {
    let mut guest = Guest::paged();
    guest.write(DATA, &[0x77; 64]);
    guest.set(ESI, DATA);
    guest.set(EDI, PAGE + 0x1000 - 6);
    guest.set(ECX, 3);
    let missing = PageFault { code: 2, address: PAGE + 0x1000, eip: CODE };
    assert_eq!(guest.access(MOVSD), Err(missing));
    assert_eq!((guest.get(ECX), guest.get(EDI)), (2, PAGE + 0x1000 - 2));
    assert_eq!(guest.read::<6>(FRAME + 0x1000 - 6), [0x77, 0x77, 0x77, 0x77, 0, 0]);
}

#[test]
fn a_limit_in_the_middle_is_a_protection_fault_there() {
    for by_blocks in [false, true] {
        let mut guest = Guest::new();
        guest.cpu.segment_mut(SegmentRegister::Es).set_limit(DATA + 9);
        guest.write(CODE, STOSB);
        guest.set(EAX, 1);
        guest.set(ECX, 100);
        guest.set(EDI, DATA);
        if by_blocks {
            guest.run(1)
        } else {
            guest.step()
        };
        assert_eq!((guest.raised(), guest.get(ECX)), (Some(13), 90));
        assert_eq!(guest.get(EDI), DATA + 10);
        assert_eq!(guest.read::<12>(DATA), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        let esp = guest.get(ESP);
        assert_eq!(guest.read_u32(esp + 4), CODE);
    }
}

#[test]
fn nothing_is_touched_for_a_count_of_zero() {
    let mut guest = Guest::paged();
    guest.set(EDI, PAGE + 0x1000);
    guest.set(ECX, 0);
    let flags = guest.cpu.flags.bits();
    for opcode in 0xa4..=0xafu8 {
        if matches!(opcode, 0xa8 | 0xa9) {
            continue;
        }
        guest.access(&[0xf3, opcode]).unwrap();
        guest.access(&[0xf2, opcode]).unwrap();
    }
    assert_eq!(guest.cpu.flags.bits(), flags);
}

#[test]
fn a_fault_of_a_comparison_leaves_its_flags() {
    let mut guest = Guest::paged();
    guest.cpu.flags.set_bits(0x8d5);
    guest.set(ESI, DATA);
    guest.set(EDI, PAGE + 0x1000);
    guest.set(ECX, 2);
    guest.access(&[0xf3, 0xa6]).unwrap_err();
    assert_eq!(guest.cpu.flags.bits(), 0x8d7);
    assert_eq!((guest.get(ECX), guest.get(ESI)), (2, DATA));
}

#[test]
fn single_steps_trap_after_each_iteration() {
    for by_blocks in [false, true] {
        let mut guest = Guest::new();
        guest.write(CODE, STOSB);
        guest.set(ECX, 3);
        guest.set(EDI, DATA);
        for left in (0..3).rev() {
            guest.cpu.flags.set(Eflags::TF, true);
            if by_blocks {
                guest.run(1)
            } else {
                guest.step()
            };
            assert_eq!((guest.raised(), guest.get(ECX)), (Some(1), left));
            let esp = guest.get(ESP);
            guest.cpu.eip = guest.read_u32(esp);
            assert_eq!(guest.cpu.eip, if left == 0 { CODE + 2 } else { CODE });
        }
    }
}

#[test]
fn a_data_breakpoint_traps_after_its_iteration() {
    let mut guest = Guest::new();
    guest.write(CODE, STOSB);
    guest.set(ECX, 8);
    guest.set(EDI, DATA);
    guest.cpu.debug[0] = DATA + 2;
    guest.cpu.debug[7] = 0x1_0402; // one byte, writes
    guest.run(3);
    assert_eq!((guest.raised(), guest.get(ECX)), (Some(1), 5));
    assert_eq!(guest.cpu.debug[6] & 0xf, 1);
    let esp = guest.get(ESP);
    assert_eq!(guest.read_u32(esp), CODE);
}

#[test]
fn an_instruction_breakpoint_on_a_repetition_fires_once() {
    let mut guest = Guest::new();
    guest.write(CODE, &[0xf3, 0xaa, 0x90]);
    guest.set(ECX, 8);
    guest.set(EDI, DATA);
    guest.cpu.debug[0] = CODE;
    guest.cpu.debug[7] = 0x402;
    guest.run(1);
    assert_eq!((guest.raised(), guest.get(ECX)), (Some(1), 8));
    let esp = guest.get(ESP);
    let flags = guest.read_u32(esp + 8);
    guest.cpu.flags.set_bits(flags);
    guest.cpu.eip = CODE;
    guest.cpu.flags.set(Eflags::RF, true);
    guest.run(9);
    assert_eq!((guest.raised(), guest.get(ECX), guest.cpu.eip), (None, 0, CODE + 3));
}

#[test]
fn a_long_repetition_can_be_interrupted_and_goes_on() {
    let mut guest = Guest::new();
    guest.write(CODE, STOSB);
    guest.set(EAX, 0x66);
    guest.set(ECX, 100_000);
    guest.set(EDI, 0x10_0000);
    let mut pauses = 0;
    while guest.cpu.eip == CODE {
        guest.run(1);
        pauses += 1;
    }
    assert!(pauses > 10, "{pauses} pauses");
    assert_eq!((guest.get(ECX), guest.get(EDI)), (0, 0x10_0000 + 100_000));
    assert_eq!(guest.read::<4>(0x10_0000 + 99_997), [0x66, 0x66, 0x66, 0]);
}

#[test]
fn where_it_pauses_depends_on_what_is_left_alone() {
    let pauses = |count: u32| {
        let mut guest = Guest::new();
        guest.write(CODE, STOSB);
        guest.set(ECX, count);
        guest.set(EDI, 0x10_0000);
        let mut pauses = Vec::new();
        while guest.cpu.eip == CODE {
            guest.run(1);
            pauses.push(guest.get(ECX));
        }
        pauses
    };
    assert_eq!(pauses(9_000), [8_192, 4_096, 0]);
    assert_eq!(pauses(8_192), [4_096, 0]);
    assert_eq!(pauses(4_096), [0]);
    assert_eq!(pauses(1), [0]);
}

#[test]
fn how_often_it_pauses_does_not_depend_on_code_nearby() {
    let count = |code_nearby: bool| {
        let mut guest = Guest::new();
        guest.write(CODE, STOSB);
        guest.write(0x10_0000, &[0xeb, 0xfe]);
        if code_nearby {
            guest.cpu.eip = 0x10_0000;
            guest.run(1);
            guest.cpu.eip = CODE;
        }
        let before = guest.counters.instructions;
        guest.set(ECX, 10_000);
        guest.set(EDI, 0x10_0000);
        while guest.cpu.eip == CODE {
            guest.run(1);
        }
        guest.counters.instructions - before
    };
    assert_eq!(count(true), count(false));
}
