//! Hardware task switches.

use crate::guest::{
    CODE, CODE0, CODE3, DATA0, DATA3, FREE, Guest, PRESENT, STACK0, TASK, TSS, descriptor, gate,
    handler,
};
use emulator::{Emulator, Outcome};
use machine::cpu::{Cr0, Dr6, Eflags, SegmentRegister, register::*};

/// The second task: its TSS, code and stack.
const OTHER: u16 = FREE;
const OTHER_TSS: u32 = 0x6000;
const OTHER_CODE: u32 = 0x1_4000;
const OTHER_STACK: u32 = 0xd000;
const AVAILABLE_32: u8 = PRESENT | 9;
const AVAILABLE_16: u8 = PRESENT | 1;
const NT: u32 = Eflags::NT.bits();

fn jump(selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [0xea, 0, 0, 0, 0, low, high]
}

fn call(selector: u16) -> [u8; 7] {
    let mut bytes = jump(selector);
    bytes[0] = 0x9a;
    bytes
}

/// Writes a 32-bit TSS for a task with these code and stack selectors.
fn make_task(guest: &mut Guest, cs: u16, ss: u16) {
    guest.set_descriptor(OTHER, descriptor(OTHER_TSS, 0x67, AVAILABLE_32, 0));
    guest.write_u32(OTHER_TSS + 0x20, OTHER_CODE);
    guest.write_u32(OTHER_TSS + 0x24, 0x0000_0202);
    for number in 0..8 {
        guest.write_u32(OTHER_TSS + 0x28 + number * 4, 0x1111_1111 * (number + 1));
    }
    guest.write_u32(OTHER_TSS + 0x38, OTHER_STACK);
    for (number, selector) in [ss, cs, ss, ss, 0, 0].into_iter().enumerate() {
        guest.write_u32(OTHER_TSS + 0x48 + number as u32 * 4, u32::from(selector));
    }
    guest.write(OTHER_CODE, &[0xcf]);
}

fn with_task() -> Guest {
    let mut guest = Guest::new();
    make_task(&mut guest, CODE0, DATA0);
    guest
}

#[test]
fn jmp_to_a_tss_saves_one_task_and_loads_another() {
    let mut guest = with_task();
    guest.set(EBX, 0xb0b0_b0b0);
    guest.set_flags(0x3095);
    let flags = guest.flags();
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.eip, guest.get(ESP), guest.flags()), (OTHER_CODE, OTHER_STACK, 0x202));
    assert_eq!((guest.get(EAX), guest.get(EDI)), (0x1111_1111, 0x8888_8888));
    assert_eq!(guest.cpu.tr.selector, OTHER);
    assert!(guest.cpu.cr0.contains(Cr0::TS));
    assert_eq!((guest.access_byte(TASK), guest.access_byte(OTHER)), (0x89, 0x8b));
    assert_eq!(guest.read_u32(TSS + 0x20), CODE + 7);
    assert_eq!(guest.read_u32(TSS + 0x24), flags);
    assert_eq!(guest.read_u32(TSS + 0x34), 0xb0b0_b0b0);
    assert_eq!(guest.read_u32(TSS + 0x38), STACK0);
    assert_eq!(guest.read_u16(TSS + 0x4c), CODE0);
    assert_eq!(guest.read_u16(TSS + 0x50), DATA0);
}

#[test]
fn call_nests_and_iret_goes_back() {
    let mut guest = with_task();
    guest.set(ECX, 77);
    guest.execute(&call(OTHER));
    assert_eq!(guest.flags(), 0x202 | NT);
    assert_eq!(guest.read_u16(OTHER_TSS), TASK);
    assert_eq!((guest.access_byte(TASK), guest.access_byte(OTHER)), (0x8b, 0x8b));
    assert_eq!(guest.step(), Outcome::Continue);
    assert_eq!((guest.cpu.eip, guest.get(ESP), guest.get(ECX)), (CODE + 7, STACK0, 77));
    assert_eq!(guest.flags(), 2);
    assert_eq!((guest.access_byte(TASK), guest.access_byte(OTHER)), (0x8b, 0x89));
    assert_eq!(guest.read_u32(OTHER_TSS + 0x24), 0x202, "NT is cleared in what is saved");
    assert_eq!(guest.read_u32(OTHER_TSS + 0x20), OTHER_CODE + 1);
}

#[test]
fn a_task_gate_handles_the_double_fault_of_a_ruined_stack() {
    let mut guest = Guest::in_ring3();
    make_task(&mut guest, CODE0, DATA0);
    guest.set_gate(8, gate(OTHER, 0, PRESENT | 5, 0));
    guest.write_u32(TSS + 8, 0);
    guest.execute(&[0xf4]);
    assert_eq!((guest.cpu.eip, guest.cpu.cpl), (OTHER_CODE, 0));
    assert_eq!((guest.get(ESP), guest.stack(0)), (OTHER_STACK - 4, 0));
    assert_eq!(guest.read_u32(TSS + 0x20), CODE);
    assert_eq!(guest.read_u16(TSS + 0x4c), CODE3);
    assert_eq!(guest.flags() & NT, NT);
}

#[test]
fn int_n_through_a_task_gate_returns_behind_itself() {
    let mut guest = with_task();
    guest.set_gate(0x30, gate(OTHER, 0, PRESENT | 5, 0));
    guest.execute(&[0xcd, 0x30]);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (OTHER_CODE, OTHER_STACK));
    assert_eq!(guest.read_u32(TSS + 0x20), CODE + 2);
    assert_eq!(guest.step(), Outcome::Continue);
    assert_eq!(guest.cpu.eip, CODE + 2);
}

#[test]
fn a_task_may_run_in_ring_3() {
    let mut guest = Guest::new();
    make_task(&mut guest, CODE3, DATA3);
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.cpl, guest.selector(SegmentRegister::Ss)), (3, DATA3));
}

#[test]
fn tasks_that_may_not_be_entered_are_refused_in_the_old_task() {
    let busy = descriptor(OTHER_TSS, 0x67, PRESENT | 11, 0);
    let absent = descriptor(OTHER_TSS, 0x67, 9, 0);
    let short = descriptor(OTHER_TSS, 0x66, AVAILABLE_32, 0);
    for (value, vector) in [(busy, 13), (absent, 11), (short, 10)] {
        let mut guest = with_task();
        guest.set_descriptor(OTHER, value);
        guest.faults(&jump(OTHER), vector, Some(OTHER));
        assert_eq!((guest.get(ESP), guest.cpu.tr.selector), (STACK0 - 16, TASK));
        assert_eq!(guest.access_byte(TASK), 0x8b);
    }
    let mut guest = Guest::in_ring3();
    make_task(&mut guest, CODE0, DATA0);
    guest.protects(&call(OTHER), OTHER);
}

#[test]
fn a_bad_stack_of_the_new_task_is_raised_in_the_new_task() {
    // The handler of #TS is a task of its own, for the new one has no stack.
    let mut guest = Guest::new();
    make_task(&mut guest, CODE0, DATA3);
    let third = FREE + 8;
    let third_tss = OTHER_TSS + 0x100;
    guest.set_descriptor(third, descriptor(third_tss, 0x67, AVAILABLE_32, 0));
    guest.write_u32(third_tss + 0x20, handler(10));
    guest.write_u32(third_tss + 0x38, STACK0);
    guest.write_u32(third_tss + 0x4c, u32::from(CODE0));
    guest.write_u32(third_tss + 0x50, u32::from(DATA0));
    guest.set_gate(10, gate(third, 0, PRESENT | 5, 0));
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(10), u32::from(DATA3 & !3)));
    assert_eq!(guest.read_u16(third_tss), OTHER, "the new task was interrupted");
    assert_eq!(guest.read_u32(OTHER_TSS + 0x20), OTHER_CODE);
    assert_eq!(guest.read_u32(OTHER_TSS + 0x24) & Eflags::RF.bits(), Eflags::RF.bits());
    assert_eq!(guest.access_byte(TASK), 0x89);
}

#[test]
fn a_new_task_that_cannot_go_on_is_left_at_its_own_eip() {
    let mut guest = Guest::new();
    make_task(&mut guest, CODE0, DATA3);
    for vector in [8, 10, 11, 13] {
        guest.set_gate(vector, 0);
    }
    let mut code = vec![0x90; 3];
    code.extend(jump(OTHER));
    guest.code(&code);
    assert_eq!(Emulator::new().run(&mut guest, 100), Outcome::Shutdown);
    assert_eq!((guest.cpu.eip, guest.cpu.tr.selector), (OTHER_CODE, OTHER));
}

#[test]
fn data_segments_of_the_new_task_are_checked_there() {
    let mut guest = with_task();
    guest.write_u16(OTHER_TSS + 0x54, 0x101);
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(10), 0x100));
    assert_eq!((guest.stack(1), guest.get(ESP)), (OTHER_CODE, OTHER_STACK - 16));
}

#[test]
fn the_t_bit_traps_before_the_first_instruction() {
    let mut guest = with_task();
    guest.write_u16(OTHER_TSS + 0x64, 1);
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(1), OTHER_CODE));
    assert_eq!(guest.cpu.debug[6] & Dr6::BT, Dr6::BT);
}

#[test]
fn a_task_switch_drops_local_breakpoints_and_keeps_global_ones() {
    let mut guest = with_task();
    guest.cpu.debug[0] = 0x3f_0000;
    guest.cpu.debug[7] = 0x403;
    guest.execute(&jump(OTHER));
    assert_eq!(guest.cpu.debug[7], 0x402);
}

#[test]
fn a_16_bit_tss_holds_words() {
    let mut guest = Guest::new();
    guest.set_descriptor(OTHER, descriptor(OTHER_TSS, 0x2b, AVAILABLE_16, 0));
    guest.write_u16(OTHER_TSS + 0x0e, 0x4321);
    guest.write_u16(OTHER_TSS + 0x10, 0x0202);
    for number in 0..8 {
        guest.write_u16(OTHER_TSS + 0x12 + number * 2, 0x1010 + number as u16);
    }
    for (number, selector) in [DATA0, CODE0, DATA0, 0].into_iter().enumerate() {
        guest.write_u16(OTHER_TSS + 0x22 + number as u32 * 2, selector);
    }
    guest.execute(&call(OTHER));
    assert_eq!((guest.cpu.eip, guest.flags()), (0x4321, 0x202 | NT));
    assert_eq!((guest.get(EAX), guest.get(ESP)), (0x1010, 0x1014));
    assert_eq!(guest.selector(SegmentRegister::Fs), 0);
    assert_eq!(guest.access_byte(OTHER), 0x83);
    guest.set(EDX, 0xdead_beef);
    guest.execute(&[0xcf]);
    assert_eq!(guest.cpu.eip, CODE + 7);
    assert_eq!(guest.read_u16(OTHER_TSS + 0x16), 0xbeef);
    assert_eq!(guest.read_u16(OTHER_TSS + 0x0e), 0x4322);
}

#[test]
fn a_task_brings_its_address_space() {
    let mut guest = with_task();
    guest.enable_paging();
    guest.write_u32(0x3_0000, 0x2_1007);
    guest.write_u32(OTHER_TSS + 0x1c, 0x3_0000);
    guest.execute(&jump(OTHER));
    assert_eq!((guest.cpu.cr3, guest.counters.tlb_flushes), (0x3_0000, 1));
}

#[test]
fn a_task_may_be_virtual_8086() {
    let mut guest = Guest::new();
    make_task(&mut guest, 0x1000, 0x0d00);
    guest.write_u32(OTHER_TSS + 0x20, 0x4000);
    guest.write_u32(OTHER_TSS + 0x24, Eflags::VM.bits() | 0x3202);
    guest.execute(&jump(OTHER));
    assert!(guest.cpu.in_virtual_8086_mode());
    assert_eq!((guest.cpu.cpl, guest.cpu.instruction_address().0), (3, 0x1_4000));
    let stack = guest.cpu.segment(SegmentRegister::Ss);
    assert_eq!((stack.base, stack.limit, stack.attributes()), (0xd000, 0xffff, 0xf3));
}

#[test]
fn iret_with_nt_needs_a_busy_tss() {
    for (link, code) in [(OTHER, OTHER), (0x104, 0x104), (DATA0, DATA0)] {
        let mut guest = with_task();
        guest.write_u16(TSS, link);
        guest.set_flags(NT);
        guest.faults(&[0xcf], 10, Some(code));
    }
}
