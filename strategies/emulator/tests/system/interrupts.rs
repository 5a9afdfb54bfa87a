//! Delivery of interrupts and exceptions, and IRET.

use crate::guest::{
    CODE, CODE0, CODE3, DATA0, DATA3, FREE, Guest, INNER_STACK, PRESENT, STACK0, STACK3, TASK, TSS,
    descriptor, flat, gate, handler,
};
use emulator::{Outcome, deliver_interrupt};
use machine::Vector;
use machine::cpu::{Dr6, Dr7, Eflags, SegmentRegister, register::*};

const INT_30: [u8; 2] = [0xcd, 0x30];
const HLT: [u8; 1] = [0xf4];
const IRETD: [u8; 1] = [0xcf];
const INTERRUPT: u8 = 0x0e;
const TRAP: u8 = 0x0f;
const DPL3: u8 = 0x60;
const IF: u32 = Eflags::IF.bits();
const TF: u32 = Eflags::TF.bits();
const RF: u32 = Eflags::RF.bits();
const NT: u32 = Eflags::NT.bits();

#[test]
fn real_mode_interrupts_go_through_the_vector_table_and_back() {
    let mut guest = Guest::in_real_mode();
    guest.write_u32(0x21 * 4, 0x2000_0123);
    guest.set_flags(IF | 0x8d5);
    guest.execute(&[0xcd, 0x21]);
    assert_eq!((guest.selector(SegmentRegister::Cs), guest.cpu.eip), (0x2000, 0x123));
    assert_eq!(guest.cpu.segment(SegmentRegister::Cs).base, 0x2_0000);
    assert_eq!(guest.flags() & (IF | TF), 0);
    assert_eq!([0, 1, 2].map(|i| guest.stack16(i)), [2, 0x1000, 0xad7]);
    assert_eq!(guest.get(ESP), STACK0 - 6);
    guest.execute(&[0xcf]);
    assert_eq!((guest.selector(SegmentRegister::Cs), guest.cpu.eip), (0x1000, 2));
    assert_eq!((guest.flags(), guest.get(ESP)), (0xad7, STACK0));
}

#[test]
fn a_vector_beyond_the_real_mode_table_is_a_triple_fault_when_no_vector_is_within() {
    let mut guest = Guest::in_real_mode();
    guest.cpu.idtr.limit = 0;
    guest.code(&[0xcd, 0x21]);
    assert_eq!(guest.step(), Outcome::Shutdown);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (0, STACK0));
}

#[test]
fn int_n_from_ring_3_needs_a_gate_of_dpl_3() {
    let mut guest = Guest::in_ring3();
    guest.protects(&INT_30, 0x30 * 8 + 2);
    assert_eq!(guest.stack(2), u32::from(CODE3));
}

#[test]
fn an_interrupt_gate_switches_stacks_and_clears_if() {
    let mut guest = Guest::in_ring3();
    guest.set_gate(0x30, gate(CODE0, handler(0x30), PRESENT | INTERRUPT | DPL3, 0));
    guest.set_flags(IF | NT | 0x3000 | 1);
    let flags = guest.flags();
    guest.execute(&INT_30);
    assert_eq!((guest.cpu.eip, guest.cpu.cpl), (handler(0x30), 0));
    assert_eq!(guest.selector(SegmentRegister::Cs), CODE0);
    assert_eq!((guest.selector(SegmentRegister::Ss), guest.get(ESP)), (DATA0, INNER_STACK - 20));
    let frame = [CODE + 2, u32::from(CODE3), flags, STACK3, u32::from(DATA3)];
    assert_eq!([0, 1, 2, 3, 4].map(|i| guest.stack(i)), frame);
    assert_eq!(guest.flags(), flags & !(IF | NT));
    assert_eq!(guest.counters.exceptions, 1);
}

#[test]
fn a_trap_gate_keeps_if() {
    let mut guest = Guest::new();
    guest.set_gate(0x30, gate(CODE0, handler(0x30), PRESENT | TRAP, 0));
    guest.set_flags(IF);
    guest.execute(&INT_30);
    assert_eq!(guest.flags() & IF, IF);
    assert_eq!(guest.get(ESP), STACK0 - 12);
}

#[test]
fn a_16_bit_gate_from_ring_3_pushes_words() {
    let mut guest = Guest::in_ring3();
    guest.set_gate(0x30, gate(CODE0, handler(0x30), PRESENT | 6 | DPL3, 0));
    guest.set(ESP, 0x1234_b000);
    guest.execute(&INT_30);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (handler(0x30), INNER_STACK - 10));
    let frame = [(CODE + 2) as u16, CODE3, 2, 0xb000, DATA3];
    assert_eq!([0, 1, 2, 3, 4].map(|i| guest.stack16(i)), frame);
}

#[test]
fn a_16_bit_gate_drops_the_upper_half_of_its_offset() {
    let mut guest = Guest::new();
    guest.set_gate(0x30, gate(CODE0, 0xdead_0000 | handler(0x30), PRESENT | 6, 0));
    guest.execute(&INT_30);
    assert_eq!(guest.cpu.eip, handler(0x30));
}

#[test]
fn a_16_bit_tss_names_the_inner_stack() {
    let mut guest = Guest::in_ring3();
    guest.cpu.tr = machine::cpu::Segment::system(TASK, TSS, 0x2b, 0x83);
    guest.write_u16(TSS + 2, 0x7000);
    guest.write_u16(TSS + 4, DATA0);
    guest.protects(&HLT, 0);
    assert_eq!((guest.selector(SegmentRegister::Ss), guest.get(ESP)), (DATA0, 0x7000 - 24));
}

#[test]
fn a_conforming_handler_stays_in_ring_3() {
    let mut guest = Guest::in_ring3();
    guest.set_descriptor(FREE, flat(0x9f));
    guest.set_gate(13, gate(FREE, handler(13), PRESENT | INTERRUPT, 0));
    guest.protects(&HLT, 0);
    assert_eq!((guest.cpu.cpl, guest.selector(SegmentRegister::Cs)), (3, FREE | 3));
    assert_eq!(guest.get(ESP), STACK3 - 16);
}

#[test]
fn faults_set_rf_in_the_image_and_software_interrupts_do_not() {
    let mut guest = Guest::new();
    guest.faults(&[0x0f, 0x0b], 6, None);
    assert_eq!((guest.stack(2), guest.flags()), (RF | 2, 2));
    let mut guest = Guest::new();
    guest.execute(&[0xcc]);
    assert_eq!((guest.cpu.eip, guest.stack(2)), (handler(3), 2));
}

#[test]
fn ext_tells_what_an_event_from_outside_ran_into() {
    let mut guest = Guest::new();
    guest.set_gate(0x50, gate(CODE0, handler(0x50), INTERRUPT, 0));
    assert_eq!(deliver_interrupt(&mut guest, Vector(0x50)), Outcome::Continue);
    assert_eq!((guest.cpu.eip, guest.stack(0), guest.stack(1)), (handler(11), 0x50 * 8 + 3, CODE));
    let mut guest = Guest::new();
    guest.set_gate(0x50, gate(CODE0, handler(0x50), INTERRUPT, 0));
    guest.faults(&[0xcd, 0x50], 11, Some(0x50 * 8 + 2));
}

#[test]
fn external_interrupts_wake_the_cpu_and_push_no_code_even_at_vector_8() {
    let mut guest = Guest::new();
    guest.code(&HLT);
    assert_eq!(guest.step(), Outcome::Halted);
    assert_eq!(guest.step(), Outcome::Halted);
    assert_eq!(deliver_interrupt(&mut guest, Vector(8)), Outcome::Continue);
    assert!(!guest.cpu.halted);
    assert_eq!(
        (guest.cpu.eip, guest.stack(0), guest.get(ESP)),
        (handler(8), CODE + 1, STACK0 - 12)
    );
    assert_eq!((guest.counters.interrupts, guest.counters.halts), (1, 1));
}

#[test]
fn two_contributory_exceptions_are_a_double_fault() {
    let mut guest = Guest::new();
    guest.set_gate(13, gate(CODE0, handler(13), INTERRUPT, 0));
    guest.set(EAX, 0x8000_0000);
    guest.faults(&[0x0f, 0x22, 0xc0], 8, Some(0)); // mov cr0, eax: paging without protection
}

#[test]
fn a_third_exception_shuts_the_cpu_down() {
    let mut guest = Guest::in_ring3();
    guest.write_u32(TSS + 8, 0);
    guest.code(&HLT);
    assert_eq!(guest.step(), Outcome::Shutdown);
    assert_eq!((guest.cpu.eip, guest.get(ESP), guest.cpu.cpl), (CODE, STACK3, 3));
}

#[test]
fn a_benign_exception_is_replaced_by_the_one_during_its_delivery() {
    let mut guest = Guest::new();
    guest.set_gate(6, gate(CODE0, handler(6), INTERRUPT, 0));
    guest.faults(&[0x0f, 0x0b], 11, Some(6 * 8 + 3));
}

#[test]
fn bad_gates_are_told_apart() {
    for (value, vector, code) in [
        (gate(CODE0, 0, PRESENT | 0x0c, 0), 13, 0x30 * 8 + 2), // a call gate
        (gate(0, 0, PRESENT | INTERRUPT, 0), 13, 0),           // null code segment
        (gate(0x100, 0, PRESENT | INTERRUPT, 0), 13, 0x100),   // beyond the GDT
        (gate(DATA0, 0, PRESENT | INTERRUPT, 0), 13, DATA0),   // not code
        (gate(CODE3, 0, PRESENT | INTERRUPT, 0), 13, CODE3 & !3), // outward
        (gate(FREE, 0, PRESENT | INTERRUPT, 0), 11, FREE),     // not present
        (gate(FREE + 8, 0x1000, PRESENT | INTERRUPT, 0), 13, 0), // beyond the limit
    ] {
        let mut guest = Guest::new();
        guest.set_descriptor(FREE, flat(0x1b));
        guest.set_descriptor(FREE + 8, descriptor(0, 0xfff, 0x9b, 4));
        guest.set_gate(0x30, value);
        guest.faults(&INT_30, vector, Some(code));
        assert_eq!(guest.get(ESP), STACK0 - 16, "nothing of the first try is left");
    }
}

#[test]
fn bad_inner_stacks_are_told_apart() {
    for (stack, vector, code) in [
        (0u16, 10, 0),
        (0x100, 10, 0x100),
        (DATA3, 10, DATA3 & !3),
        (CODE0, 10, CODE0),
        (FREE, 12, FREE),
        (FREE + 8, 12, FREE + 8),
    ] {
        let mut guest = Guest::in_ring3();
        guest.set_descriptor(FREE, flat(0x13));
        guest.set_descriptor(FREE + 8, descriptor(0, 0xfff, 0x93, 4));
        guest.write_u32(TSS + 8, u32::from(stack));
        // The handlers of #TS and #SS conform, so that they need no inner stack.
        guest.set_descriptor(FREE + 16, flat(0x9f));
        for vector in [10, 12] {
            guest.set_gate(vector, gate(FREE + 16, handler(vector), PRESENT | INTERRUPT, 0));
        }
        guest.set_gate(0x30, gate(CODE0, handler(0x30), PRESENT | INTERRUPT | DPL3, 0));
        guest.faults(&INT_30, vector, Some(code));
        assert_eq!((guest.cpu.cpl, guest.get(ESP)), (3, STACK3 - 16));
    }
}

#[test]
fn a_page_fault_on_the_inner_stack_leaves_the_interrupted_state() {
    let mut guest = Guest::in_ring3();
    guest.enable_paging();
    guest.write_u32(TSS + 4, INNER_STACK + 8);
    guest.unmap(INNER_STACK - 4);
    guest.set_gate(0x30, gate(CODE0, handler(0x30), PRESENT | INTERRUPT | DPL3, 0));
    guest.write_u32(INNER_STACK, 0x1234_5678);
    guest.code(&INT_30);
    assert_eq!(guest.step(), Outcome::Shutdown, "no exception has a stack");
    assert_eq!((guest.cpu.eip, guest.cpu.cpl, guest.get(ESP)), (CODE, 3, STACK3));
    assert_eq!(guest.selector(SegmentRegister::Ss), DATA3);
    assert_eq!(guest.read_u32(INNER_STACK), 0x1234_5678, "not even part of the frame is written");
    assert_eq!(guest.cpu.cr2, INNER_STACK - 4, "the first push that fails");
}

#[test]
fn a_frame_may_wrap_around_a_16_bit_stack() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(0x2_0000, 0xffff, 0x93, 0));
    guest.load(SegmentRegister::Ss, FREE);
    guest.set(ESP, 0xabcd_0004);
    guest.execute(&INT_30);
    assert_eq!(guest.get(ESP), 0xabcd_fff8);
    assert_eq!((guest.read_u32(0x2_0000), guest.read_u32(0x2_fff8)), (2, CODE + 2));
}

#[test]
fn iret_returns_to_ring_3_and_takes_data_segments_away() {
    let mut guest = Guest::new();
    guest.load(SegmentRegister::Es, DATA3);
    guest.set(ESP, STACK0 - 20);
    for (index, value) in
        [CODE, u32::from(CODE3), IF | 0x3000, STACK3, u32::from(DATA3)].into_iter().enumerate()
    {
        guest.write_u32(STACK0 - 20 + index as u32 * 4, value);
    }
    guest.execute(&IRETD);
    assert_eq!((guest.cpu.cpl, guest.cpu.eip, guest.get(ESP)), (3, CODE, STACK3));
    assert_eq!(guest.selector(SegmentRegister::Cs), CODE3);
    assert_eq!(guest.selector(SegmentRegister::Ss), DATA3);
    assert_eq!(guest.flags(), IF | 0x3002);
    assert_eq!(guest.selector(SegmentRegister::Es), DATA3);
    assert_eq!(guest.selector(SegmentRegister::Ds), 0);
    assert!(!guest.cpu.segment(SegmentRegister::Ds).is_usable());
}

#[test]
fn iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(0, 0xffff, 0xf3, 0));
    let frame = [CODE, u32::from(CODE3), 2, 0x1234_5678, u32::from(FREE | 3)];
    for (index, value) in frame.into_iter().enumerate() {
        guest.write_u32(STACK0 + index as u32 * 4, value);
    }
    guest.set(ESP, STACK0);
    guest.execute(&IRETD);
    assert_eq!(guest.get(ESP), 0x5678, "the upper half of ESP was that of ring 0: zero");
}

#[test]
fn iret_in_ring_3_changes_neither_iopl_nor_if() {
    let mut guest = Guest::in_ring3();
    guest.set(ESP, STACK3 - 12);
    guest.write_u32(STACK3 - 12, CODE);
    guest.write_u32(STACK3 - 8, u32::from(CODE3));
    guest.write_u32(STACK3 - 4, !NT);
    guest.execute(&IRETD);
    let kept = Eflags::IOPL | Eflags::IF | Eflags::NT;
    let changed = (Eflags::WRITABLE - kept) | Eflags::RF;
    assert_eq!(guest.flags(), changed.bits() | 2);
    assert_eq!(guest.cpu.cpl, 3);
}

#[test]
fn iret_checks_its_code_and_stack_segments() {
    for (cs, ss, vector, code) in [
        (0u16, DATA3, 13, 0),
        (0x100, DATA3, 13, 0x100),
        (DATA0, DATA3, 13, DATA0),
        (CODE0 | 3, DATA3, 13, CODE0),
        (CODE3 & !3, DATA3, 13, CODE3 & !3),
        (FREE | 3, DATA3, 11, FREE),
        (CODE3, 0, 13, 0),
        (CODE3, DATA0, 13, DATA0),
        (CODE3, DATA3 & !3, 13, DATA3 & !3),
        (CODE3, (FREE + 8) | 3, 12, FREE + 8),
    ] {
        let mut guest = Guest::new();
        guest.set_descriptor(FREE, flat(0x7b));
        guest.set_descriptor(FREE + 8, flat(0x73));
        guest.set(ESP, STACK0 - 20);
        let frame = [CODE, u32::from(cs), 2, STACK3, u32::from(ss)];
        for (index, value) in frame.into_iter().enumerate() {
            guest.write_u32(STACK0 - 20 + index as u32 * 4, value);
        }
        guest.faults(&IRETD, vector, Some(code));
        assert_eq!((guest.get(ESP), guest.cpu.cpl), (STACK0 - 36, 0));
    }
}

#[test]
fn int1_leaves_dr6_alone_and_needs_no_dpl() {
    let mut guest = Guest::in_ring3();
    guest.execute(&[0xf1]);
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(1), CODE + 1));
    assert_eq!(guest.cpu.debug[6], Dr6::RESET);
}

#[test]
fn into_depends_on_of() {
    let mut guest = Guest::new();
    guest.execute(&[0xce]);
    assert_eq!(guest.cpu.eip, CODE + 1);
    guest.set_flags(Eflags::OF.bits());
    guest.execute(&[0xce]);
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(4), CODE + 2));
}

#[test]
fn a_single_step_over_int_n_does_not_trap_into_its_handler() {
    let mut guest = Guest::new();
    guest.set_flags(TF);
    guest.execute(&INT_30);
    assert_eq!((guest.cpu.eip, guest.flags() & TF), (handler(0x30), 0));
    assert_eq!(guest.stack(2), TF | 2);
    assert_eq!(guest.cpu.debug[6] & Dr6::BS, 0);
}

#[test]
fn general_detect_guards_the_debug_registers_once() {
    let mut guest = Guest::new();
    guest.cpu.debug[7] |= Dr7::GD;
    guest.faults(&[0x0f, 0x23, 0xc0], 1, None);
    assert_eq!(guest.cpu.debug[6], Dr6::RESET | Dr6::BD);
    assert_eq!(guest.cpu.debug[7] & Dr7::GD, 0);
}

#[test]
fn popf_and_iret_with_16_bits_leave_the_upper_flags() {
    let mut guest = Guest::new();
    guest.set_flags((Eflags::AC | Eflags::ID).bits());
    guest.set(ESP, STACK0 - 6);
    guest.write(STACK0 - 6, &[0x34, 0, 8, 0, 0xd7, 0x7f]);
    guest.execute(&[0x66, 0xcf]);
    assert_eq!(guest.flags(), (Eflags::AC | Eflags::ID).bits() | 0x7fd7);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (0x34, STACK0));
}
