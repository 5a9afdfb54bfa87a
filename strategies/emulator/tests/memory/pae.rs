//! Three-level paging with 64-bit entries (Intel SDM volume 3, 4.4).

use crate::guest::{CODE, DATA, FRAME, Guest, PAGE, PageFault};
use machine::cpu::{Cr4, register::*};

const READ: &[u8] = &[0x8b, 0x03]; // mov eax, [ebx]
const WRITE: &[u8] = &[0x89, 0x03]; // mov [ebx], eax
const POINTERS: u32 = 0x4_0000;
const DIRECTORY: u32 = 0x4_1000;
const TABLE: u32 = 0x4_2000;
/// The directory entry of [`PAGE`], at its own page table.
const SECOND: u32 = DIRECTORY + (PAGE >> 21) * 8;
const SECOND_TABLE: u32 = 0x4_3000;

/// The first 2 MiB one to one, and [`PAGE`] at [`FRAME`].
fn guest() -> Guest {
    let mut guest = Guest::new();
    let put = |guest: &mut Guest, at: u32, value: u64| guest.write(at, &value.to_le_bytes());
    put(&mut guest, POINTERS, u64::from(DIRECTORY | 1));
    put(&mut guest, DIRECTORY, u64::from(TABLE | 7));
    for page in 0..512 {
        put(&mut guest, TABLE + page * 8, u64::from(page << 12 | 7));
    }
    put(&mut guest, SECOND, u64::from(SECOND_TABLE | 7));
    put(&mut guest, SECOND_TABLE, u64::from(FRAME | 7));
    guest.cpu.cr4 |= Cr4::PAE;
    guest.set(EAX, POINTERS);
    guest.access(&[0x0f, 0x22, 0xd8]).unwrap(); // mov cr3, eax
    guest.set(EAX, 0x8000_0031);
    guest.access(&[0x0f, 0x22, 0xc0]).unwrap(); // mov cr0, eax
    guest.set(EBX, PAGE);
    guest
}

fn set(guest: &mut Guest, at: u32, entry: u64) {
    guest.write(at, &entry.to_le_bytes());
}

fn entry(guest: &Guest, at: u32) -> u64 {
    u64::from_le_bytes(guest.read(at))
}

fn fault(code: u32) -> Result<(), PageFault> {
    Err(PageFault { code, address: PAGE, eip: CODE })
}

#[test]
fn small_pages_are_found_and_marked() {
    let mut guest = guest();
    guest.write_u32(FRAME, 0xfeed);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 0xfeed);
    assert_eq!(entry(&guest, SECOND), u64::from(SECOND_TABLE | 0x27));
    assert_eq!(entry(&guest, SECOND_TABLE), u64::from(FRAME | 0x27));
    guest.access(WRITE).unwrap();
    assert_eq!(entry(&guest, SECOND_TABLE), u64::from(FRAME | 0x67));
}

#[test]
fn large_pages_have_2_mib_at_any_pse() {
    let mut guest = guest();
    set(&mut guest, SECOND, 0x87);
    guest.write_u32(DATA, 0xbeef);
    guest.set(EBX, PAGE + DATA);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 0xbeef);
    guest.access(WRITE).unwrap();
    assert_eq!(entry(&guest, SECOND), 0xe7);
}

#[test]
fn reserved_bits_are_reported_at_both_levels() {
    for bit in 36..64 {
        for at in [SECOND, SECOND_TABLE] {
            let mut guest = guest();
            let spoilt = entry(&guest, at) | 1 << bit;
            set(&mut guest, at, spoilt);
            assert_eq!(guest.access(READ), fault(9), "bit {bit}");
            assert_eq!(guest.access(WRITE), fault(11), "bit {bit}");
            assert_eq!(entry(&guest, at), spoilt);
        }
    }
    for bit in 13..21 {
        let mut guest = guest();
        set(&mut guest, SECOND, 0x87 | 1 << bit);
        guest.set_ring(3);
        assert_eq!(guest.access(READ), fault(13), "bit {bit} of a large page");
    }
}

#[test]
fn addresses_have_36_bits() {
    let mut guest = guest();
    set(&mut guest, SECOND_TABLE, 0xf_0000_0007);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), u32::MAX);
}

#[test]
fn the_first_level_is_as_it_was_when_cr3_was_loaded() {
    let mut guest = guest();
    guest.write_u32(FRAME, 3);
    set(&mut guest, POINTERS, 0);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 3);
    guest.set(EBX, 0x4000_0000);
    let absent = Err(PageFault { code: 0, address: 0x4000_0000, eip: CODE });
    assert_eq!(guest.access(READ), absent);
}

#[test]
fn rights_come_from_the_two_lower_levels() {
    for (pde, pte, code) in [(5, 7, 7), (7, 5, 7), (3, 7, 7), (7, 3, 7)] {
        let mut guest = guest();
        set(&mut guest, SECOND, u64::from(SECOND_TABLE | pde));
        set(&mut guest, SECOND_TABLE, u64::from(FRAME | pte));
        guest.set_ring(3);
        assert_eq!(guest.access(WRITE), fault(code));
    }
}
