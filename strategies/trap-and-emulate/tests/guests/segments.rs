//! The guest's segments on the host's CPU: limits, bases, kinds, 16 bits, selectors that are kept.

use crate::guest::{CODE, CODE0, DATA, DATA0, FREE, Guest, descriptor};
use machine::cpu::{SegmentRegister, register};
use strategy::Stop;

guest_code! {
    reads_at_eax: ".code32", "mov ebx, fs:[eax]", "mov al, 1", "out 0xf4, al";
    writes_at_eax: ".code32", "mov fs:[eax], ebx", "mov al, 1", "out 0xf4, al";
    pushes: ".code32", "push eax", "push eax", "mov al, 1", "out 0xf4, al";
    code_of_16_bits: ".code16",
        "push 0x55aa", "cli", "pop ax", "mov ecx, esp", "push eax", "pop ebx", "cli",
        "mov edx, esp", "out 0xf4, al";
    jumps_to_16_bits: ".code32",
        "push 0x40", "push 0", "retf";
    comes_back: ".code16",
        "mov ax, 0x1234", "mov si, 0xffff", "inc si",
        ".byte 0x66, 0x6a, 0x08", // push dword 8
        ".byte 0x66, 0x68, 0x00, 0x21, 0x01, 0x00", // push dword 0x12100
        ".byte 0x66, 0xcb"; // retf
    ends: ".code32", "mov al, 2", "out 0xf4, al";
    keeps_selectors: ".code32",
        "push ds", "push es", "xor ecx, ecx", "mov ds, cx", "mov es, cx", "cli",
        "pop es", "pop ds", "mov ebx, [0x18000]", "mov edx, es:[0x18000]", "cli",
        "out 0xf4, al";
    uses_null: ".code32", "xor eax, eax", "mov fs, ax", "mov eax, fs:[0x18000]";
    loads_local: ".code32",
        "mov ax, 0x48", "lldt ax", "mov ax, 0xc", "mov fs, ax", "mov ebx, fs:[0]",
        "mov al, 1", "out 0xf4, al";
    many_segments: ".code32",
        "mov ecx, 3000", "2:", "mov [0x1042], cx", "mov ax, 0x40", "mov fs, ax", "cli",
        "mov eax, fs:[0]", "loop 2b", "mov al, 1", "out 0xf4, al";
    runs_off_the_end: ".code32", "nop", "nop";
}

/// A guest with `access` and flags in FS's descriptor, base DATA, limit 0xfff bytes.
fn with_fs(code: &[u8], access: u8, flags: u8) -> Guest {
    let mut guest = Guest::with(code);
    guest.set_descriptor(FREE, descriptor(DATA, 0xfff, access, flags));
    guest.load(SegmentRegister::Fs, FREE);
    guest
}

#[test]
fn limits_are_exact_and_bases_are_added() {
    let mut guest = with_fs(reads_at_eax(), 0x93, 4);
    guest.write_u32(DATA + 0xffc, 0x1234_5678);
    guest.set(register::EAX, 0xffc);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 0x1234_5678);
    drop(guest);
    let mut guest = with_fs(reads_at_eax(), 0x93, 4);
    guest.set(register::EAX, 0xffd);
    guest.raises(13, Some(0), CODE);
}

#[test]
fn expand_down_segments_hold_what_is_above_the_limit() {
    for (at, fits) in [(0xfff, false), (0x1000, true), (0xfffc, true), (0xfffd, false)] {
        let mut guest = with_fs(writes_at_eax(), 0x97, 0);
        guest.set(register::EAX, at);
        if fits {
            assert_eq!(guest.exits(), 1, "{at:#x}");
        } else {
            guest.raises(13, Some(0), CODE);
        }
    }
}

#[test]
fn kinds_of_segments_allow_what_they_should() {
    // Read-only data, code that is readable, code that is not, conforming code.
    for (access, reads) in [(0x91, true), (0x9b, true), (0x99, false), (0x9f, true), (0x95, true)] {
        let mut guest = with_fs(reads_at_eax(), access, 4);
        guest.set(register::EAX, if access == 0x95 { 0x1000 } else { 0 });
        if reads {
            assert_eq!(guest.exits(), 1, "{access:#x}");
        } else {
            guest.raises(13, Some(0), CODE);
        }
        drop(guest);
        let mut guest = with_fs(writes_at_eax(), access, 4);
        guest.raises(13, Some(0), CODE);
    }
}

#[test]
fn the_stacks_limit_raises_stack_faults() {
    let mut guest = Guest::with(pushes());
    guest.set_descriptor(FREE, descriptor(DATA, 0x7ff, 0x97, 4));
    guest.load(SegmentRegister::Ss, FREE);
    guest.set(register::ESP, 0x804);
    // The handler's frame does not fit either: a double fault, then shutdown.
    assert_eq!(guest.run(), Stop::TripleFault);
    guest.replace(pushes());
    guest.set_descriptor(FREE, descriptor(DATA, 0x7ff, 0x97, 4));
    guest.load(SegmentRegister::Ss, FREE);
    guest.set(register::ESP, 0x808);
    assert_eq!(guest.exits(), 1);
}

#[test]
fn sixteen_bit_code_and_stacks_keep_the_upper_half_of_esp() {
    let mut guest = Guest::with(code_of_16_bits());
    guest.set_descriptor(FREE, descriptor(CODE, 0xffff, 0x9b, 0));
    guest.cpu.eip = 0;
    guest.set_descriptor(FREE + 8, descriptor(DATA, 0xffff, 0x93, 0));
    guest.load(SegmentRegister::Cs, FREE);
    guest.load(SegmentRegister::Ss, FREE + 8);
    guest.set(register::ESP, 0xabcd_0800);
    guest.set(register::EAX, 0x7777_0000);
    guest.exits();
    assert_eq!(guest.get(register::EAX) >> 8, 0x77_7755);
    assert_eq!(guest.get(register::EBX), 0x7777_55aa);
    assert_eq!(guest.get(register::ECX), 0xabcd_0800);
    assert_eq!(guest.get(register::EDX), 0xabcd_0800);
    assert_eq!(guest.read_u32(DATA + 0x7fc), 0x7777_55aa);
}

#[test]
fn code_of_both_sizes_calls_each_other() {
    let mut guest = Guest::with(jumps_to_16_bits());
    guest.set_descriptor(FREE, descriptor(0x1_2000, 0xffff, 0x9b, 0));
    guest.write(0x1_2000, comes_back());
    guest.write(0x1_2100, ends());
    guest.set(register::ESI, 0x5555_5555);
    assert_eq!(guest.exits(), 2);
    assert_eq!(guest.get(register::ESI), 0x5555_0000);
    assert_eq!(guest.cpu.segment(SegmentRegister::Cs).selector, CODE0);
}

#[test]
fn selectors_that_are_saved_can_be_loaded_again() {
    let mut guest = Guest::with(keeps_selectors());
    guest.write_u32(DATA, 0x1357);
    guest.exits();
    assert_eq!((guest.get(register::EBX), guest.get(register::EDX)), (0x1357, 0x1357));
    assert_eq!(guest.cpu.segment(SegmentRegister::Ds).selector, DATA0);
    assert_eq!(guest.cpu.segment(SegmentRegister::Es).selector, DATA0);
}

#[test]
fn null_selectors_can_be_loaded_but_not_used() {
    let mut guest = Guest::with(uses_null());
    guest.raises(13, Some(0), CODE + uses_null().len() as u32 - 6);
}

#[test]
fn the_guests_own_ldt_is_its_own() {
    let mut guest = Guest::with(loads_local());
    guest.set_descriptor(FREE + 8, descriptor(0x5000, 0xff, 0x82, 0));
    guest.write(0x5008, &descriptor(DATA, 0xfff, 0x93, 4).to_le_bytes());
    guest.write_u32(DATA, 0x2468);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 0x2468);
}

#[test]
fn more_segments_than_are_kept() {
    let mut guest = Guest::with(many_segments());
    guest.set_descriptor(FREE, descriptor(0, 0xfff, 0x93, 4));
    assert_eq!(guest.exits(), 1);
}

#[test]
fn code_that_runs_off_its_segment_faults_behind_it() {
    let mut guest = Guest::with(runs_off_the_end());
    guest.set_descriptor(FREE, descriptor(CODE, 1, 0x9b, 4));
    guest.load(SegmentRegister::Cs, FREE);
    guest.cpu.eip = 0;
    guest.raises(13, Some(0), 2);
    // Where EIP is beyond the limit to begin with, the CPU refuses to be entered.
    guest.replace(runs_off_the_end());
    guest.set_descriptor(FREE, descriptor(CODE, 1, 0x9b, 4));
    guest.load(SegmentRegister::Cs, FREE);
    guest.cpu.eip = 0x100;
    guest.raises(13, Some(0), 0x100);
}
