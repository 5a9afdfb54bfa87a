//! Accesses across two pages: both or neither.

use crate::guest::{CODE, FRAME, Guest, PAGE, PageFault};
use machine::cpu::register::*;

const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;
/// A frame that does not follow [`FRAME`].
const OTHER: u32 = 0x3_8000;

/// EBX three bytes before the end of [`PAGE`], whose first page is full of 0xAA.
fn guest() -> Guest {
    let mut guest = Guest::paged();
    guest.write(FRAME, &[0xaa; 0x1000]);
    guest.set(EBX, PAGE + 0xffd);
    guest.set(EAX, 0x4433_2211);
    guest
}

/// Writes that reach from [`PAGE`] into the next page, given EBX.
const WRITES: &[(&str, &[u8])] = &[
    ("mov [ebx], eax", &[0x89, 0x03]),
    ("mov dword [ebx], imm", &[0xc7, 0x03, 1, 2, 3, 4]),
    ("add [ebx], eax", &[0x01, 0x03]),
    ("adc [ebx], eax", &[0x11, 0x03]),
    ("inc dword [ebx]", &[0xff, 0x03]),
    ("not dword [ebx]", &[0xf7, 0x13]),
    ("shl dword [ebx], 1", &[0xd1, 0x23]),
    ("rcl dword [ebx], cl", &[0xd3, 0x13]),
    ("shld [ebx], eax, 4", &[0x0f, 0xa4, 0x03, 4]),
    ("btc dword [ebx], 3", &[0x0f, 0xba, 0x3b, 3]),
    ("xchg [ebx], eax", &[0x87, 0x03]),
    ("xadd [ebx], eax", &[0x0f, 0xc1, 0x03]),
    ("cmpxchg [ebx], ecx", &[0x0f, 0xb1, 0x0b]),
    ("cmpxchg8b [ebx]", &[0x0f, 0xc7, 0x0b]),
    ("sgdt [ebx]", &[0x0f, 0x01, 0x03]),
    ("stosd", &[0xab]),
    ("movsd", &[0xa5]),
    ("fst qword [ebx]", &[0xdd, 0x13]),
    ("fstp tbyte [ebx]", &[0xdb, 0x3b]),
    ("fnsave [ebx]", &[0xdd, 0x33]),
    ("fnstenv [ebx]", &[0xd9, 0x33]),
    ("movups [ebx], xmm0", &[0x0f, 0x11, 0x03]),
    ("push eax", &[0x50]),
    ("pusha", &[0x60]),
    ("pushf", &[0x9c]),
    ("call", &[0xe8, 0, 0, 0, 0]),
];

fn prepare(guest: &mut Guest) {
    let ebx = guest.get(EBX);
    guest.set(EDI, ebx);
    guest.set(ESI, CODE);
}

#[test]
fn a_write_that_the_second_page_refuses_leaves_no_trace() {
    for (name, instruction) in WRITES {
        for (entry, bits) in [(OTHER | 6, 0), (OTHER | 5, 1)] {
            let mut guest = guest();
            guest.set_ring(3);
            guest.map(1, entry);
            prepare(&mut guest);
            // The stack's top lies in the refusing page and grows into the other.
            guest.set(ESP, PAGE + 0x1001);
            let before = guest.cpu.clone();
            let fault = guest.access(instruction).expect_err(name);
            let write = PageFault { code: bits | 6, address: PAGE + 0x1000, eip: CODE };
            assert_eq!(fault, write, "{name}");
            assert_eq!(guest.cpu.registers, before.registers, "{name}");
            assert_eq!(guest.cpu.flags.bits(), before.flags.bits(), "{name}");
            assert_eq!(guest.read::<0x1000>(FRAME), [0xaa; 0x1000], "{name}");
            assert_eq!(guest.entry(0) & DIRTY, 0, "{name}");
            assert_eq!(guest.entry(1), entry, "{name}");
        }
    }
}

#[test]
fn a_write_goes_to_both_pages_wherever_they_lie() {
    let mut guest = guest();
    guest.map(1, OTHER | 7);
    guest.access(&[0x89, 0x03]).unwrap();
    assert_eq!(guest.read::<3>(FRAME + 0xffd), [0x11, 0x22, 0x33]);
    assert_eq!(guest.read::<2>(OTHER), [0x44, 0]);
    for page in 0..2 {
        assert_eq!(guest.entry(page) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    }
    guest.access(&[0xff, 0x03]).unwrap(); // inc dword [ebx]
    guest.access(&[0x8b, 0x0b]).unwrap(); // mov ecx, [ebx]
    assert_eq!(guest.get(ECX), 0x4433_2212);
}

#[test]
fn a_read_faults_at_the_page_that_is_missing() {
    let mut guest = guest();
    let missing = |address| Err(PageFault { code: 0, address, eip: CODE });
    assert_eq!(guest.access(&[0x8b, 0x0b]), missing(PAGE + 0x1000));
    guest.map(1, OTHER | 7);
    guest.map(0, 0);
    assert_eq!(guest.access(&[0x8b, 0x0b]), missing(PAGE + 0xffd));
    guest.map(1, 0);
    assert_eq!(guest.access(&[0x8b, 0x0b]), missing(PAGE + 0xffd), "the first one first");
}

#[test]
fn an_access_may_lie_half_in_a_device() {
    let mut guest = guest();
    guest.map(1, 0xb_8007);
    guest.access(&[0x89, 0x03]).unwrap();
    assert_eq!(guest.read::<3>(FRAME + 0xffd), [0x11, 0x22, 0x33]);
    guest.access(&[0x8b, 0x0b]).unwrap();
    assert_eq!(guest.get(ECX), 0x4433_2211);
}
