//! The instructions that ring 3 executes wrongly without a trap: each goes wrong in its stated way,
//! and the watch names it.

use crate::guest::{CODE, DATA, Guest};
use machine::cpu::{Eflags, SegmentRegister, register};

/// The instruction that the watch names in `code`, and the fields that differ.
fn named(code: &[u8]) -> Option<(String, Vec<String>)> {
    let mut guest = Guest::with(&[&[0x90, 0x40], code, &[0xb0, 1, 0xe6, 0xf4]].concat());
    guest.set(register::ECX, 0x10);
    guest.set(register::EDI, DATA);
    // POPF and the like find flags with IF set, far returns their own segment.
    guest.write(0x8000, &[&[0x02, 2, 0, 0][..], &[0x10, 0, 0, 0]].concat());
    let (machine, strategy) = guest.machine_and_strategy();
    let found = strategy.watch(machine, 100).unwrap()?;
    assert_eq!(found.address.0, CODE + 2, "{found}");
    let fields = found.differences.into_iter().map(|(field, ..)| field).collect();
    Some((found.text, fields))
}

#[test]
fn each_sensitive_instruction_is_named() {
    let cases: [(&[u8], &str, &str); 17] = [
        (&[0x0f, 0x01, 0x07], "sgdt", "the word"),
        (&[0x0f, 0x01, 0x0f], "sidt", "the word"),
        (&[0x0f, 0x00, 0xc2], "sldt", "EDX"),
        (&[0x0f, 0x00, 0xca], "str", "EDX"),
        (&[0x0f, 0x01, 0xe2], "smsw", "EDX"),
        (&[0x9c], "pushf", "the word"),
        (&[0x9d], "popf", "EFLAGS"),
        (&[0x0e], "push cs", "the word"),
        (&[0x1e], "push ds", "the word"),
        (&[0x8c, 0xca], "mov", "EDX"),
        (&[0x8c, 0xd2], "mov", "EDX"),
        (&[0x0f, 0x02, 0xd1], "lar", "E"),
        (&[0x0f, 0x03, 0xd1], "lsl", "E"),
        (&[0x0f, 0x00, 0xe1], "verr", "EFLAGS"),
        (&[0x0f, 0x00, 0xe9], "verw", "EFLAGS"),
        (&[0x0f, 0xa2], "cpuid", "E"),
        (&[0xc4, 0xe2, 0x70, 0xf2, 0xd1], "andn", "E"),
    ];
    for (code, name, field) in cases {
        let (text, fields) = named(code).unwrap_or_else(|| panic!("{name} is not noticed"));
        assert!(text.starts_with(name), "{text}");
        assert!(fields.iter().any(|found| found.starts_with(field)), "{text}: {fields:?}");
    }
}

#[test]
fn what_traps_or_does_not_matter_is_not_named() {
    for code in [
        &[0xfa][..],         // cli
        &[0x0f, 0x20, 0xc2], // mov edx, cr0
        &[0x8e, 0xe1],       // mov fs, cx
        &[0x0f, 0x31],       // rdtsc
        &[0xf3, 0xab],       // rep stosd
    ] {
        assert_eq!(named(code), None, "{code:02x?}");
    }
}

#[test]
fn the_kernels_entries_are_named_before_they_lose_the_guest() {
    assert_eq!(named(&[0x0f, 0x05]).unwrap().0, "syscall");
    assert_eq!(named(&[0x0f, 0x34]).unwrap().0, "sysenter");
}

#[test]
fn popf_loses_the_interrupt_flag_and_pushf_shows_the_hosts() {
    let mut guest = Guest::with(&[0x90, 0x9d, 0x9c, 0x5b, 0xfa, 0xb0, 1, 0xe6, 0xf4]);
    guest.write(0x7ffc, &[2, 0x10, 0, 0]); // IOPL 1, IF clear
    guest.set(register::ESP, 0x7ffc);
    assert_eq!(guest.exits(), 1);
    let shown = Eflags::from_bits_truncate(guest.get(register::EBX));
    assert!(shown.contains(Eflags::IF), "the host's interrupts are on: {shown:?}");
    assert!(!shown.intersects(Eflags::IOPL), "and its IOPL is 0: {shown:?}");
    assert!(!guest.cpu.flags.contains(Eflags::IOPL));
}

#[test]
fn selectors_that_are_read_show_ring_3() {
    // mov ebx, cs; push ss; pop ecx; verr cx
    let mut guest = Guest::with(&[0x90, 0x8c, 0xcb, 0x16, 0x59, 0xb0, 1, 0xe6, 0xf4]);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX) & 3, 3);
    assert_eq!(guest.get(register::ECX) & 3, 3);
    assert_eq!(guest.cpu.segment(SegmentRegister::Cs).selector, crate::guest::CODE0);
}

#[test]
fn a_store_of_the_descriptor_table_shows_none_of_the_guests() {
    let mut guest = Guest::with(&[0x90, 0x0f, 0x01, 0x07, 0xb0, 1, 0xe6, 0xf4]); // sgdt [edi]
    guest.set(register::EDI, DATA);
    assert_eq!(guest.exits(), 1);
    assert_ne!(guest.read_u32(DATA + 2), crate::guest::GDT);
}
