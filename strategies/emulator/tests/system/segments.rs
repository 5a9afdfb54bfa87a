//! Loading and storing segment registers.

use crate::guest::{CODE, CODE0, CODE3, DATA, DATA0, DATA3, FREE, Guest, STACK0, descriptor, flat};
use machine::cpu::{InterruptShadow, SegmentRegister, register::*};

const MOV_SS_AX: [u8; 2] = [0x8e, 0xd0];
const MOV_DS_AX: [u8; 2] = [0x8e, 0xd8];

#[test]
fn ss_takes_only_writable_data_of_the_current_ring() {
    for (selector, vector, code) in [
        (0u16, 13, 0),
        (3, 13, 0),
        (0x100, 13, 0x100),
        (DATA0 | 1, 13, DATA0),
        (DATA3, 13, DATA3 & !3),
        (CODE0, 13, CODE0),
        (FREE, 13, FREE),         // read-only data
        (FREE + 8, 12, FREE + 8), // not present
    ] {
        let mut guest = Guest::new();
        guest.set_descriptor(FREE, flat(0x91));
        guest.set_descriptor(FREE + 8, flat(0x13));
        guest.set(EAX, u32::from(selector));
        guest.faults(&MOV_SS_AX, vector, Some(code));
        assert_eq!(guest.selector(SegmentRegister::Ss), DATA0);
    }
}

#[test]
fn loading_ss_holds_interrupts_off_and_lss_does_not() {
    let mut guest = Guest::new();
    guest.set(EAX, u32::from(DATA0));
    guest.execute(&MOV_SS_AX);
    assert_eq!(guest.cpu.interrupt_shadow, InterruptShadow::MovSs);
    guest.execute(&[0x90]);
    assert_eq!(guest.cpu.interrupt_shadow, InterruptShadow::None);
    guest.write_u32(DATA, 0x7000);
    guest.write_u16(DATA + 4, DATA0);
    guest.execute(&[0x0f, 0xb2, 0x25, 0x00, 0x80, 0x01, 0x00]); // lss esp, [DATA]
    assert_eq!((guest.get(ESP), guest.cpu.interrupt_shadow), (0x7000, InterruptShadow::None));
}

#[test]
fn data_registers_check_type_privilege_and_presence() {
    for (cpl, selector, outcome) in [
        (0, 0u16, None),
        (0, 3, None),
        (0, DATA0, None),
        (0, CODE0, None),                      // readable code
        (3, DATA0, Some((13, DATA0))),         // DPL below CPL
        (0, DATA0 | 3, Some((13, DATA0))),     // DPL below RPL
        (3, FREE | 3, None),                   // readable conforming code of ring 0
        (0, FREE + 8, Some((13, FREE + 8))),   // execute-only code
        (0, FREE + 16, Some((11, FREE + 16))), // not present
        (0, 0x28, Some((13, 0x28))),           // a TSS
        (0, 0x104, Some((13, 0x104))),         // no LDT
    ] {
        let mut guest = if cpl == 0 { Guest::new() } else { Guest::in_ring3() };
        guest.set_descriptor(FREE, flat(0x9f));
        guest.set_descriptor(FREE + 8, flat(0x99));
        guest.set_descriptor(FREE + 16, flat(0x13));
        guest.cpu.ldtr = machine::cpu::Segment::null(0);
        guest.set(EAX, u32::from(selector));
        match outcome {
            None => {
                guest.execute(&MOV_DS_AX);
                assert_eq!(guest.selector(SegmentRegister::Ds), selector);
            }
            Some((vector, code)) => guest.faults(&MOV_DS_AX, vector, Some(code)),
        }
    }
}

#[test]
fn a_null_selector_faults_when_it_is_used() {
    let mut guest = Guest::new();
    guest.set(EAX, 0);
    guest.execute(&MOV_DS_AX);
    guest.protects(&[0xa0, 0, 0, 0, 0], 0);
}

#[test]
fn the_accessed_bit_is_set_once() {
    let mut guest = Guest::new();
    guest.enable_paging();
    guest.set_descriptor(FREE, flat(0x92));
    guest.set(EAX, u32::from(FREE));
    guest.execute(&MOV_DS_AX);
    assert_eq!(guest.access_byte(FREE), 0x93);
    assert!(guest.cpu.segment(SegmentRegister::Ds).has(1));
    // A GDT that cannot be written does not matter any more.
    guest.write_u32(0x2_1000 + 4, 0x1005);
    guest.cpu.cr0 |= machine::cpu::Cr0::WP;
    guest.tlb.flush();
    guest.execute(&MOV_DS_AX);
}

#[test]
fn segments_come_from_the_ldt_too() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(0x7000, 15, 0x82, 0));
    guest.write(0x7008, &descriptor(0x1234, 0xff, 0x93, 4).to_le_bytes());
    guest.set(EAX, u32::from(FREE));
    guest.execute(&[0x0f, 0x00, 0xd0]); // lldt ax
    guest.set(EAX, 0x0c);
    guest.execute(&MOV_DS_AX);
    assert_eq!(guest.cpu.segment(SegmentRegister::Ds).base, 0x1234);
    guest.set(EAX, 0x14);
    guest.protects(&MOV_DS_AX, 0x14);
}

#[test]
fn an_expand_down_stack_grows_to_its_limit() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(0, 0x7fff, 0x97, 4));
    guest.set(EAX, u32::from(FREE));
    guest.execute(&MOV_SS_AX);
    guest.set(ESP, 0x8004);
    guest.execute(&[0x50]);
    assert_eq!(guest.get(ESP), 0x8000);
    // The handler has the same stack, without room for its frame: a double and a triple fault.
    guest.code(&[0x50]);
    assert_eq!(guest.step(), emulator::Outcome::Shutdown);
    assert_eq!((guest.cpu.eip, guest.get(ESP)), (CODE + 3, 0x8000));
}

#[test]
fn push_moves_by_the_operand_size_and_pop_checks_before_esp_moves() {
    let mut guest = Guest::new();
    guest.write_u32(STACK0 - 4, u32::MAX);
    guest.execute(&[0x1e]); // push ds
    let upper = if emulator::pushes_selectors_by_half() { 0xffff_0000 } else { 0 };
    assert_eq!((guest.stack(0), guest.get(ESP)), (upper | u32::from(DATA0), STACK0 - 4));
    guest.execute(&[0x66, 0x06]); // push es, 16 bits
    assert_eq!(guest.get(ESP), STACK0 - 6);
    guest.execute(&[0x66, 0x1f]); // pop ds
    guest.write_u32(STACK0 - 4, u32::from(CODE3));
    guest.write_u32(STACK0 - 4, 0x100);
    guest.protects(&[0x1f], 0x100);
    assert_eq!((guest.get(ESP), guest.selector(SegmentRegister::Ds)), (STACK0 - 20, DATA0));
}

#[test]
fn mov_from_a_segment_register_zero_extends_to_registers_only() {
    let mut guest = Guest::new();
    guest.set(EAX, u32::MAX);
    guest.execute(&[0x8c, 0xd8]);
    assert_eq!(guest.get(EAX), u32::from(DATA0));
    guest.set(EAX, u32::MAX);
    guest.execute(&[0x66, 0x8c, 0xd8]);
    assert_eq!(guest.get(EAX), 0xffff_0010);
    guest.write_u32(DATA, u32::MAX);
    guest.execute(&[0x8c, 0x1d, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!(guest.read_u32(DATA), 0xffff_0010);
}

#[test]
fn mov_to_cs_is_undefined() {
    Guest::new().faults(&[0x8e, 0xc8], 6, None);
}

#[test]
fn les_loads_both_or_nothing() {
    let mut guest = Guest::new();
    guest.write_u32(DATA, 0x1234_5678);
    guest.write_u16(DATA + 4, DATA3);
    guest.set(ECX, 7);
    guest.execute(&[0xc4, 0x0d, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!((guest.get(ECX), guest.selector(SegmentRegister::Es)), (0x1234_5678, DATA3));
    guest.write_u16(DATA + 4, 0x100);
    guest.set(ECX, 7);
    guest.protects(&[0xc4, 0x0d, 0x00, 0x80, 0x01, 0x00], 0x100);
    assert_eq!((guest.get(ECX), guest.selector(SegmentRegister::Es)), (7, DATA3));
}

#[test]
fn real_mode_keeps_a_limit_loaded_in_protected_mode() {
    let mut guest = Guest::new();
    guest.set(EAX, 0x10);
    guest.execute(&[0x0f, 0x22, 0xc0]); // mov cr0, eax: real mode
    guest.set(EAX, 0x1800);
    guest.execute(&MOV_DS_AX);
    let ds = guest.cpu.segment(SegmentRegister::Ds);
    assert_eq!((ds.base, ds.limit, ds.selector), (0x1_8000, u32::MAX, 0x1800));
    guest.write(0x20_0000, &[0x5a]);
    guest.execute(&[0xa0, 0x00, 0x80, 0x1e, 0x00]); // mov al, [0x1e8000]
    assert_eq!(guest.get(EAX), 0x185a);
}
