//! Virtual-8086 mode: entry, exit, and what its monitor gets to see.

use crate::guest::{CODE0, DATA0, Guest, INNER_STACK, STACK0, TSS, handler};
use machine::cpu::{Eflags, SegmentRegister, register::*};

const VM: u32 = Eflags::VM.bits();
const IF: u32 = Eflags::IF.bits();
const IOPL3: u32 = Eflags::IOPL.bits();
const RF: u32 = Eflags::RF.bits();

/// In virtual-8086 mode at 1000:0000, entered by IRETD.
fn virtual_8086(iopl: u32) -> Guest {
    let mut guest = Guest::new();
    let frame = [0, 0x1000, VM | IF | iopl, 0x0100, 0x0b00, 0xe5e5, 0xd5d5, 0xf5f5, 0x6565];
    guest.set(ESP, STACK0 - 36);
    for (index, value) in frame.into_iter().enumerate() {
        guest.write_u32(STACK0 - 36 + index as u32 * 4, value);
    }
    guest.cpu.eip = 0x1_f000;
    guest.execute(&[0xcf]);
    assert!(guest.cpu.in_virtual_8086_mode());
    guest
}

#[test]
fn iretd_enters_with_all_segments_from_the_frame() {
    let guest = virtual_8086(0);
    assert_eq!((guest.cpu.cpl, guest.cpu.eip, guest.get(ESP)), (3, 0, 0x100));
    assert_eq!(guest.flags(), VM | IF | 2);
    for (register, selector) in [
        (SegmentRegister::Cs, 0x1000),
        (SegmentRegister::Ss, 0x0b00),
        (SegmentRegister::Es, 0xe5e5),
        (SegmentRegister::Ds, 0xd5d5),
        (SegmentRegister::Fs, 0xf5f5),
        (SegmentRegister::Gs, 0x6565),
    ] {
        let segment = guest.cpu.segment(register);
        assert_eq!((segment.selector, segment.base), (selector, u32::from(selector) << 4));
        assert_eq!((segment.limit, segment.attributes()), (0xffff, 0xf3));
    }
}

#[test]
fn an_interrupt_leaves_with_all_segments_pushed_and_iretd_comes_back() {
    let mut guest = virtual_8086(IOPL3);
    guest.set_gate(0x30, crate::guest::gate(CODE0, handler(0x30), 0xee, 0));
    guest.execute(&[0xcd, 0x30]);
    assert_eq!((guest.cpu.eip, guest.cpu.cpl), (handler(0x30), 0));
    assert!(!guest.cpu.in_virtual_8086_mode());
    assert_eq!((guest.selector(SegmentRegister::Ss), guest.get(ESP)), (DATA0, INNER_STACK - 36));
    let frame = [2, 0x1000, VM | IF | IOPL3 | 2, 0x100, 0x0b00, 0xe5e5, 0xd5d5, 0xf5f5, 0x6565];
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| guest.stack(i)), frame);
    for register in [SegmentRegister::Ds, SegmentRegister::Es, SegmentRegister::Gs] {
        assert_eq!(guest.selector(register), 0);
        assert!(!guest.cpu.segment(register).is_usable());
    }
    guest.execute(&[0xcf]);
    assert_eq!((guest.cpu.eip, guest.flags()), (2, VM | IF | IOPL3 | 2));
    assert_eq!(guest.selector(SegmentRegister::Ds), 0xd5d5);
}

#[test]
fn with_iopl_below_3_the_monitor_sees_the_sensitive_instructions() {
    for bytes in [
        &[0xfa][..],   // CLI
        &[0xfb],       // STI
        &[0x9c],       // PUSHF
        &[0x9d],       // POPF
        &[0x66, 0x9c], // PUSHFD
        &[0xcf],       // IRET
        &[0xcd, 0x21], // INT n
    ] {
        let mut guest = virtual_8086(0);
        guest.protects(bytes, 0);
        assert_eq!(guest.stack(3), VM | IF | RF | 2);
        assert_eq!(guest.stack(4), 0x100, "the stack is untouched");
    }
}

#[test]
fn with_iopl_3_they_are_executed() {
    let mut guest = virtual_8086(IOPL3);
    guest.execute(&[0xfa]);
    assert_eq!(guest.flags() & IF, 0);
    guest.execute(&[0xfb]);
    assert_eq!(guest.flags() & IF, IF);
    guest.execute(&[0x9c]);
    assert_eq!(guest.stack16(0), 0x3202);
    guest.write_u16(0xb000 + 0xfe, 0x0ed7);
    guest.execute(&[0x9d]);
    assert_eq!(guest.flags(), VM | 0x3ed7, "IOPL stays");
}

#[test]
fn iret_with_iopl_3_stays_in_the_mode() {
    let mut guest = virtual_8086(IOPL3);
    guest.set(ESP, 0xfa);
    for (index, value) in [0x1234u16, 0x2000, 0x0246].into_iter().enumerate() {
        guest.write_u16(0xb000 + 0xfa + index as u32 * 2, value);
    }
    guest.execute(&[0xcf]);
    assert_eq!(guest.cpu.instruction_address().0, 0x2_1234);
    assert_eq!((guest.flags(), guest.get(ESP)), (VM | IOPL3 | 0x246, 0x100));
}

#[test]
fn int3_does_not_depend_on_iopl() {
    let mut guest = virtual_8086(0);
    guest.set_gate(3, crate::guest::gate(CODE0, handler(3), 0xee, 0));
    guest.execute(&[0xcc]);
    assert_eq!((guest.cpu.eip, guest.stack(0)), (handler(3), 1));
}

#[test]
fn ports_are_a_matter_of_the_bitmap_even_with_iopl_3() {
    let mut guest = virtual_8086(IOPL3);
    guest.cpu.tr.set_limit(0x67 + 0x20);
    guest.write_u16(TSS + 0x66, 0x68);
    guest.execute(&[0xe6, 0x80]);
    guest.write(TSS + 0x68 + 0x10, &[1]);
    guest.protects(&[0xe6, 0x80], 0);
}

#[test]
fn privileged_and_protected_mode_instructions_do_not_exist_there() {
    for (bytes, vector, code) in [
        (&[0xf4][..], 13, Some(0)),         // HLT
        (&[0x0f, 0x20, 0xc0], 13, Some(0)), // MOV EAX, CR0
        (&[0x0f, 0x00, 0xd8], 6, None),     // LTR AX
        (&[0x0f, 0x02, 0xc0], 6, None),     // LAR AX, AX
        (&[0x63, 0xc0], 6, None),           // ARPL AX, AX
    ] {
        let mut guest = virtual_8086(IOPL3);
        guest.faults(bytes, vector, code);
    }
}

#[test]
fn a_handler_below_ring_0_is_refused() {
    let mut guest = virtual_8086(IOPL3);
    guest.set_gate(0x30, crate::guest::gate(crate::guest::CODE3, handler(0x30), 0xee, 0));
    guest.protects(&[0xcd, 0x30], crate::guest::CODE3 & !3);
}
