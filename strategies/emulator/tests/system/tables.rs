//! Descriptor-table registers and the task register.

use crate::guest::{CODE0, DATA, DATA0, FREE, Guest, TASK, descriptor};
use machine::cpu::{TableRegister, register::*};

const SLDT_EAX: [u8; 3] = [0x0f, 0x00, 0xc0];
const STR_EAX: [u8; 3] = [0x0f, 0x00, 0xc8];
const LLDT_AX: [u8; 3] = [0x0f, 0x00, 0xd0];
const LTR_AX: [u8; 3] = [0x0f, 0x00, 0xd8];
/// /0 SGDT, /1 SIDT, /2 LGDT, /3 LIDT of [`DATA`].
fn table(number: u8) -> [u8; 7] {
    [0x0f, 0x01, 0x05 | number << 3, 0x00, 0x80, 0x01, 0x00]
}

#[test]
fn tables_are_loaded_with_24_or_32_bits_and_stored_with_32() {
    let mut guest = Guest::new();
    guest.write(DATA, &[0xff, 0x07, 0x78, 0x56, 0x34, 0x12]);
    guest.execute(&table(3));
    assert_eq!(guest.cpu.idtr, TableRegister { base: 0x1234_5678, limit: 0x7ff });
    let mut narrow = vec![0x66];
    narrow.extend(table(3));
    guest.execute(&narrow);
    assert_eq!(guest.cpu.idtr, TableRegister { base: 0x34_5678, limit: 0x7ff });
    guest.cpu.gdtr.base = 0xfedc_0000;
    let mut narrow = vec![0x66];
    narrow.extend(table(0));
    guest.execute(&narrow);
    assert_eq!(guest.read_u64(DATA) & 0xffff_ffff_ffff, 0xfedc_0000_00ff);
    assert_eq!((guest.counters.privileged, guest.counters.sensitive), (2, 1));
}

#[test]
fn loading_needs_ring_0_and_storing_does_not() {
    for number in [2, 3] {
        Guest::in_ring3().protects(&table(number), 0);
    }
    for bytes in [LLDT_AX, LTR_AX] {
        Guest::in_ring3().protects(&bytes, 0);
    }
    let mut guest = Guest::in_ring3();
    guest.execute(&table(0));
    guest.execute(&table(1));
    guest.set(EAX, u32::MAX);
    guest.execute(&STR_EAX);
    assert_eq!(guest.get(EAX), u32::from(TASK));
    guest.execute(&SLDT_EAX);
    assert_eq!(guest.get(EAX), 0);
}

#[test]
fn ltr_makes_its_tss_busy() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(0x7000, 0x67, 0x89, 0));
    guest.set(EAX, u32::from(FREE));
    guest.execute(&LTR_AX);
    assert_eq!(guest.access_byte(FREE), 0x8b);
    let tr = guest.cpu.tr;
    assert_eq!((tr.selector, tr.base, tr.limit, tr.attributes()), (FREE, 0x7000, 0x67, 0x8b));
    guest.protects(&LTR_AX, FREE);
}

#[test]
fn ltr_and_lldt_tell_bad_selectors_apart() {
    for (bytes, selector, vector, code) in [
        (LTR_AX, 0u16, 13, 0),
        (LTR_AX, 0x0c, 13, 0x0c),
        (LTR_AX, 0x100, 13, 0x100),
        (LTR_AX, CODE0, 13, CODE0),
        (LTR_AX, FREE, 11, FREE),
        (LLDT_AX, 0x0c, 13, 0x0c),
        (LLDT_AX, DATA0, 13, DATA0),
        (LLDT_AX, FREE + 8, 11, FREE + 8),
    ] {
        let mut guest = Guest::new();
        guest.set_descriptor(FREE, descriptor(0x7000, 0x67, 0x09, 0));
        guest.set_descriptor(FREE + 8, descriptor(0x7000, 0x67, 0x02, 0));
        guest.set(EAX, u32::from(selector));
        guest.faults(&bytes, vector, Some(code));
    }
}

#[test]
fn lldt_of_a_null_selector_leaves_no_ldt() {
    let mut guest = Guest::new();
    guest.set(EAX, 0);
    guest.execute(&LLDT_AX);
    assert!(!guest.cpu.ldtr.is_usable());
}

#[test]
fn sldt_stores_16_bits_to_memory() {
    let mut guest = Guest::new();
    guest.cpu.ldtr.selector = 0x48;
    guest.write_u32(DATA, u32::MAX);
    guest.execute(&[0x0f, 0x00, 0x05, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!(guest.read_u32(DATA), 0xffff_0048);
}
