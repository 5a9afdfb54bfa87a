//! Real mode and virtual-8086 mode, which the emulator runs, and the ways between them and ring 3.

use crate::guest::{CODE, CODE0, Guest, MORE_CODE, gate};
use machine::cpu::{Cr0, Segment, SegmentRegister, TableRegister, register};

guest_code! {
    // Counts in real mode, goes to protected mode, counts there, and comes back.
    there_and_back: ".code16",
        "mov cx, 3000", "2:", "inc ebx", "loop 2b",
        "mov eax, cr0", "or al, 1", "mov cr0, eax",
        ".byte 0x66, 0xea", ".long 0x12000", ".short 8"; // jmp 8:0x12000
    protected: ".code32",
        "mov eax, 0x10", "mov ds, eax", "mov ss, eax",
        "mov ecx, 3000", "2:", "inc ebx", "loop 2b",
        ".byte 0xea", ".long 0", ".short 0x40"; // jmp 0x40:0
    leaves: ".code16",
        "mov eax, cr0", "and al, 0xfe", "mov cr0, eax", ".byte 0xea, 0x0d, 0x00, 0x00, 0x13", // jmp 0x1300:0xd
        "mov cx, 3000", "2:", "inc ebx", "loop 2b",
        "mov al, 1", "out 0xf4, al";
    enters_virtual_8086: ".code32",
        "push 0", "push 0", "push 0", "push 0", "push 0x0b00", "push 0x100",
        "push 0x20002", "push 0x1200", "push 0", "iretd";
    virtual_8086: ".code16",
        "mov cx, 5000", "2:", "inc ebx", "loop 2b", "int 0x30";
    monitor: ".code32", "mov ecx, 1000", "2:", "inc ebx", "loop 2b", "mov al, 1", "out 0xf4, al";
}

#[test]
fn from_real_mode_to_ring_3_and_back() {
    let mut guest = Guest::new();
    guest.cpu.cr0 = Cr0::ET;
    guest.cpu.segments = [Segment::real_mode(0); 6];
    *guest.cpu.segment_mut(SegmentRegister::Cs) = Segment::real_mode(0x1000);
    guest.cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
    guest.cpu.eip = 0;
    guest.write(CODE, there_and_back());
    guest.write(MORE_CODE, protected());
    guest.set_descriptor(0x40, crate::guest::descriptor(0x1_3000, 0xffff, 0x9b, 0));
    guest.write(0x1_3000, leaves());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 9000);
    assert!(!guest.cpu.cr0.contains(Cr0::PE));
}

#[test]
fn a_kernel_in_ring_3_runs_virtual_8086_code() {
    let mut guest = Guest::with(enters_virtual_8086());
    guest.write(MORE_CODE, virtual_8086());
    // IOPL is 0: INT n goes to the monitor by way of #GP.
    guest.set_gate(13, gate(0x1_3000, 0x8e));
    guest.write(0x1_3000, monitor());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 6000);
    assert_eq!(guest.cpu.segment(SegmentRegister::Cs).selector, CODE0);
}
