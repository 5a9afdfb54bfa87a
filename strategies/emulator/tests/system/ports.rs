//! IN, OUT, INS, OUTS and the I/O permission bitmap.

use crate::guest::{CODE, DATA, DATA0, FREE, Guest, TSS, descriptor};
use machine::cpu::{Eflags, SegmentRegister, register::*};

const OUT_80_AL: [u8; 2] = [0xe6, 0x80];
const OUT_DX_AL: [u8; 1] = [0xee];
const OUT_DX_AX: [u8; 2] = [0x66, 0xef];
const OUT_DX_EAX: [u8; 1] = [0xef];
const BITMAP: u32 = TSS + 0x68;

/// In ring 3 with IOPL 0 and a bitmap of `bytes` bytes, all ports allowed.
fn with_bitmap(bytes: u32) -> Guest {
    let mut guest = Guest::in_ring3();
    guest.write_u16(TSS + 0x66, 0x68);
    guest.cpu.tr.set_limit(0x67 + bytes);
    guest
}

#[test]
fn iopl_allows_ports_without_a_bitmap() {
    let mut guest = Guest::in_ring3();
    guest.set_flags(Eflags::IOPL.bits());
    guest.execute(&OUT_80_AL);
    assert_eq!((guest.cpu.eip, guest.counters.port_io), (CODE + 2, 1));
    let mut guest = Guest::in_ring3();
    guest.set_flags(0x2000);
    guest.write_u16(TSS + 0x66, 0x68);
    guest.protects(&OUT_80_AL, 0);
    assert_eq!(guest.counters.port_io, 0);
}

#[test]
fn the_bitmap_is_read_two_bytes_at_a_time() {
    let mut guest = with_bitmap(0x12);
    guest.execute(&OUT_80_AL);
    let mut guest = with_bitmap(0x11);
    guest.protects(&OUT_80_AL, 0);
}

#[test]
fn every_port_of_a_wide_access_has_to_be_allowed() {
    for (port, bytes, allowed) in [
        (0x86, &OUT_DX_AX[..], true),
        (0x87, &OUT_DX_AX, false),
        (0x84, &OUT_DX_EAX, true),
        (0x85, &OUT_DX_EAX, false),
        (0x88, &OUT_DX_AL, false),
        (0x89, &OUT_DX_EAX, true),
    ] {
        let mut guest = with_bitmap(0x20);
        guest.write(BITMAP + 0x11, &[1]);
        guest.set(EDX, port);
        if allowed {
            guest.execute(bytes);
        } else {
            guest.protects(bytes, 0);
        }
    }
}

#[test]
fn a_tss_without_room_for_a_bitmap_allows_nothing() {
    let mut guest = with_bitmap(0x20);
    guest.write_u16(TSS + 0x66, 0xffff);
    guest.protects(&OUT_80_AL, 0);
    let mut guest = Guest::in_ring3();
    guest.cpu.tr = machine::cpu::Segment::system(0x28, TSS, 0xffff, 0x83);
    guest.write_u16(TSS + 2, 0x7000);
    guest.write_u16(TSS + 4, DATA0);
    guest.protects(&OUT_80_AL, 0);
}

#[test]
fn a_repeated_ins_stops_exactly_where_its_segment_ends() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(DATA, 5, 0x93, 4));
    guest.load(SegmentRegister::Es, FREE);
    guest.set(ECX, 4);
    guest.set(EDX, 0xeeee);
    guest.set(EDI, 0);
    guest.protects(&[0xf3, 0x66, 0x6d], 0); // rep insw
    assert_eq!((guest.get(ECX), guest.get(EDI)), (1, 6));
    assert_eq!(guest.read_u64(DATA), 0x0000_ffff_ffff_ffff);
    assert_eq!(guest.counters.port_io, 3);
}

#[test]
fn a_repeated_ins_runs_down_with_df_and_16_bit_addresses() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(DATA, 0xffff, 0x93, 0));
    guest.load(SegmentRegister::Es, FREE);
    guest.set(ECX, 0x1234_0003);
    guest.set(EDX, 0xeeee);
    guest.set(EDI, 0x5678_0001);
    guest.set_flags(Eflags::DF.bits());
    guest.execute(&[0xf3, 0x67, 0x6c]); // rep insb with DI
    assert_eq!((guest.get(ECX), guest.get(EDI)), (0x1234_0000, 0x5678_fffe));
    assert_eq!(guest.read_u16(DATA), 0xffff);
    assert_eq!(guest.read_u16(DATA + 0xfffe) >> 8, 0xff);
    assert_eq!(guest.cpu.eip, CODE + 3);
}

#[test]
fn a_long_repetition_can_be_interrupted_between_iterations() {
    let mut guest = Guest::new();
    guest.set(ECX, 1000);
    guest.set(EDX, 0xeeee);
    guest.set(ESI, DATA);
    guest.code(&[0xf3, 0x6e]); // rep outsb
    let mut steps = 0;
    while guest.cpu.eip == CODE {
        guest.step();
        steps += 1;
        assert_eq!(guest.get(ESI) - DATA, 1000 - guest.get(ECX));
    }
    assert!((2..=100).contains(&steps), "{steps} steps");
    assert_eq!((guest.get(ECX), guest.counters.port_io), (0, 1000));
}

#[test]
fn outs_reads_through_the_segment_it_is_told() {
    let mut guest = Guest::new();
    guest.set_descriptor(FREE, descriptor(DATA, 3, 0x93, 4));
    guest.load(SegmentRegister::Fs, FREE);
    guest.set(EDX, 0xeeee);
    guest.set(ESI, 0);
    guest.execute(&[0x64, 0x6f]); // outs dword fs:[esi]
    assert_eq!((guest.get(ESI), guest.cpu.eip), (4, CODE + 2));
    guest.protects(&[0x64, 0x6f], 0);
}

#[test]
fn unclaimed_ports_read_ones() {
    let mut guest = Guest::new();
    guest.set(EDX, 0xeeee);
    guest.set(EAX, 0);
    guest.execute(&[0xec]);
    assert_eq!(guest.get(EAX), 0xff);
    guest.execute(&[0x66, 0xed]);
    assert_eq!(guest.get(EAX), 0xffff);
    guest.execute(&[0xed]);
    assert_eq!(guest.get(EAX), u32::MAX);
}
