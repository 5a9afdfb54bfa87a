//! Two-level paging: rights, accessed and dirty bits, 4 MiB pages, INVLPG
//! (Intel SDM volume 3, chapter 4).

use crate::guest::{CODE, DATA, DIRECTORY, FRAME, Guest, PAGE, PageFault, STACK, TABLE0, TABLE1};
use machine::cpu::{Cr0, Cr4, register::*};

const READ: &[u8] = &[0x8b, 0x03]; // mov eax, [ebx]
const WRITE: &[u8] = &[0x89, 0x03]; // mov [ebx], eax
const INVLPG: &[u8] = &[0x0f, 0x01, 0x3b]; // invlpg [ebx]

const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;

fn guest() -> Guest {
    let mut guest = Guest::paged();
    guest.set(EBX, PAGE);
    guest
}

fn fault(code: u32) -> Result<(), PageFault> {
    Err(PageFault { code, address: PAGE, eip: CODE })
}

#[test]
fn both_levels_give_or_refuse_rights() {
    for case in 0..256u32 {
        let bit = |number: u32| case >> number & 1 != 0;
        let (pde, pte) = (1 | case << 1 & 6, 1 | case >> 1 & 6);
        let (user, write, protect) = (bit(4), bit(5), bit(6));
        let mut guest = guest();
        guest.write_u32(DIRECTORY + 4, TABLE1 | pde);
        guest.map(0, FRAME | pte);
        guest.cpu.cr0.set(Cr0::WP, protect);
        guest.set_ring(if user { 3 } else { 0 });
        let writable = pde & pte & 2 != 0 || (!user && !protect);
        let allowed = (!user || pde & pte & 4 != 0) && (!write || writable);
        let code = 1 | u32::from(write) << 1 | u32::from(user) << 2;
        let expected = if allowed { Ok(()) } else { fault(code) };
        assert_eq!(guest.access(if write { WRITE } else { READ }), expected, "case {case:#x}");
        let marked = guest.entry(0) & (ACCESSED | DIRTY);
        let wanted = if allowed { ACCESSED | if write { DIRTY } else { 0 } } else { 0 };
        assert_eq!(marked, wanted, "case {case:#x}");
    }
}

#[test]
fn what_is_not_present_says_so_at_either_level() {
    for (ring, bits) in [(0, 0), (3, 4)] {
        for (instruction, write) in [(READ, 0), (WRITE, 2)] {
            let mut guest = guest();
            guest.set_ring(ring);
            guest.map(0, FRAME | 6);
            assert_eq!(guest.access(instruction), fault(bits | write));
            guest.map(0, FRAME | 7);
            guest.write_u32(DIRECTORY + 4, TABLE1 | 6);
            assert_eq!(guest.access(instruction), fault(bits | write));
            guest.write_u32(DIRECTORY + 4, TABLE1 | 7);
            assert_eq!(guest.access(instruction), Ok(()), "presence needs no flush");
        }
    }
}

#[test]
fn a_read_sets_accessed_bits_and_a_write_the_dirty_bit_of_the_page_alone() {
    let mut guest = guest();
    guest.access(READ).unwrap();
    assert_eq!(guest.read_u32(DIRECTORY + 4), TABLE1 | 7 | ACCESSED);
    assert_eq!(guest.entry(0), FRAME | 7 | ACCESSED);
    guest.access(WRITE).unwrap();
    assert_eq!(guest.entry(0), FRAME | 7 | ACCESSED | DIRTY, "the read's translation is no excuse");
    assert_eq!(guest.read_u32(DIRECTORY + 4), TABLE1 | 7 | ACCESSED);
}

#[test]
fn a_cleared_dirty_bit_is_set_again_after_invlpg() {
    let mut guest = guest();
    guest.access(WRITE).unwrap();
    guest.map(0, FRAME | 7);
    guest.access(INVLPG).unwrap();
    guest.access(READ).unwrap();
    assert_eq!(guest.entry(0), FRAME | 7 | ACCESSED);
    guest.access(WRITE).unwrap();
    assert_eq!(guest.entry(0), FRAME | 7 | ACCESSED | DIRTY);
}

#[test]
fn invlpg_and_cr3_bring_new_translations() {
    let mut guest = guest();
    guest.write_u32(FRAME, 1);
    guest.write_u32(FRAME + 0x1000, 2);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 1);
    guest.map(0, (FRAME + 0x1000) | 7);
    guest.access(INVLPG).unwrap();
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 2);
    guest.map(0, FRAME | 6);
    guest.set(EAX, DIRECTORY);
    guest.access(&[0x0f, 0x22, 0xd8]).unwrap(); // mov cr3, eax
    assert_eq!(guest.access(READ), fault(0));
}

#[test]
fn write_protection_counts_from_the_moment_it_is_set() {
    let mut guest = guest();
    guest.map(0, FRAME | 5);
    guest.access(WRITE).unwrap();
    guest.set(EAX, (guest.cpu.cr0 | Cr0::WP).bits());
    guest.access(&[0x0f, 0x22, 0xc0]).unwrap(); // mov cr0, eax
    assert_eq!(guest.access(WRITE), fault(3));
}

#[test]
fn supervisor_and_user_translations_are_kept_apart() {
    let mut guest = guest();
    guest.map(0, FRAME | 3);
    guest.access(WRITE).unwrap();
    guest.set_ring(3);
    assert_eq!(guest.access(READ), fault(5));
    guest.set_ring(0);
    guest.access(READ).unwrap();
}

fn with_large_page(entry: u32) -> Guest {
    let mut guest = guest();
    guest.cpu.cr4 |= Cr4::PSE;
    guest.write_u32(DIRECTORY + 4, entry);
    guest
}

#[test]
fn a_large_page_has_its_bits_in_the_directory() {
    let mut guest = with_large_page(0x87);
    guest.write_u32(DATA, 0x1234_5678);
    guest.set(EBX, PAGE + DATA);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 0x1234_5678);
    assert_eq!(guest.read_u32(DIRECTORY + 4), 0x87 | ACCESSED);
    guest.access(WRITE).unwrap();
    assert_eq!(guest.read_u32(DIRECTORY + 4), 0x87 | ACCESSED | DIRTY);
}

#[test]
fn reserved_bits_of_a_large_page_are_reported() {
    for bit in 17..22 {
        for (ring, write) in [(0, false), (0, true), (3, false), (3, true)] {
            let mut guest = with_large_page(0x87 | 1 << bit);
            guest.set_ring(ring);
            let code = 9 | u32::from(write) << 1 | if ring == 3 { 4 } else { 0 };
            assert_eq!(guest.access(if write { WRITE } else { READ }), fault(code), "bit {bit}");
            assert_eq!(guest.read_u32(DIRECTORY + 4), 0x87 | 1 << bit);
        }
    }
}

#[test]
fn without_pse_the_size_bit_means_nothing() {
    let mut guest = with_large_page(TABLE1 | 0x87);
    guest.cpu.cr4 -= Cr4::PSE;
    guest.write_u32(FRAME, 0x55);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 0x55);
}

#[test]
fn invlpg_anywhere_in_a_large_page_forgets_all_of_it() {
    let mut guest = with_large_page(0x87);
    guest.write_u32(DATA, 7);
    guest.set(EBX, PAGE + DATA);
    guest.access(READ).unwrap();
    guest.write_u32(DIRECTORY + 4, 0);
    guest.set(EBX, PAGE + 0x3f_f000);
    guest.access(INVLPG).unwrap();
    guest.set(EBX, PAGE + DATA);
    let expected = Err(PageFault { code: 0, address: PAGE + DATA, eip: CODE });
    assert_eq!(guest.access(READ), expected);
}

#[test]
fn a_global_page_goes_with_invlpg() {
    let mut guest = guest();
    guest.cpu.cr4 |= Cr4::PGE;
    guest.map(0, FRAME | 0x107);
    guest.access(READ).unwrap();
    guest.map(0, FRAME | 0x106);
    guest.access(INVLPG).unwrap();
    assert_eq!(guest.access(READ), fault(0));
}

#[test]
fn a_fetch_needs_what_a_read_needs() {
    let mut guest = guest();
    guest.map(0, FRAME | 3);
    guest.write(FRAME, &[0x90]);
    guest.cpu.eip = PAGE;
    guest.go().unwrap();
    assert_eq!(guest.entry(0), FRAME | 3 | ACCESSED);
    guest.cpu.eip = PAGE;
    guest.set_ring(3);
    assert_eq!(guest.go(), Err(PageFault { code: 5, address: PAGE, eip: PAGE }));
}

#[test]
fn an_instruction_across_two_pages_faults_at_the_second() {
    let mut guest = guest();
    guest.write(FRAME + 0xffe, &[0xb8, 0x11]); // mov eax, imm32
    guest.cpu.eip = PAGE + 0xffe;
    let expected = Err(PageFault { code: 0, address: PAGE + 0x1000, eip: PAGE + 0xffe });
    assert_eq!(guest.go(), expected);
    guest.write(DATA, &[0x22, 0x33, 0x44]);
    guest.map(1, DATA | 7);
    guest.go().unwrap();
    assert_eq!((guest.get(EAX), guest.cpu.eip), (0x4433_2211, PAGE + 0x1003));
    assert_eq!(guest.entry(1), DATA | 7 | ACCESSED);
}

#[test]
fn an_instruction_that_ends_with_its_page_leaves_the_next_one_alone() {
    for by_blocks in [false, true] {
        let mut guest = guest();
        guest.map(1, DATA | 7);
        guest.write(FRAME + 0xffe, &[0x90, 0x90]);
        guest.cpu.eip = PAGE + 0xffe;
        if by_blocks {
            guest.run(2);
        } else {
            guest.go().unwrap();
            guest.go().unwrap();
        }
        assert_eq!(guest.cpu.eip, PAGE + 0x1000);
        assert_eq!(guest.entry(1), DATA | 7);
    }
}

#[test]
fn descriptor_tables_are_read_with_supervisor_rights_in_ring_3() {
    let mut guest = guest();
    guest.write(0x1018, &0x00cf_f300_0000_ffffu64.to_le_bytes());
    guest.cpu.gdtr.limit = 31;
    guest.write_u32(TABLE0 + 4, 0x1003);
    guest.set_ring(3);
    guest.set(EAX, 0x1b);
    guest.access(&[0x8e, 0xd8]).unwrap(); // mov ds, eax
    guest.set(EBX, 0x1010);
    let expected = Err(PageFault { code: 5, address: 0x1010, eip: CODE });
    assert_eq!(guest.access(READ), expected);
}

#[test]
fn devices_can_be_mapped() {
    let mut guest = guest();
    guest.map(0, 0xb_8007);
    guest.set(EAX, 0x0741_0742);
    guest.access(WRITE).unwrap();
    guest.set(EAX, 0);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), 0x0741_0742);
    assert_eq!(guest.counters.mmio, 2);
}

#[test]
fn a_table_outside_of_memory_reads_as_ones() {
    let mut guest = guest();
    guest.write_u32(DIRECTORY + 4, 0x4000_0007);
    guest.access(READ).unwrap();
    assert_eq!(guest.get(EAX), u32::MAX, "the last page below 4 GiB is nobody's");
}

#[test]
fn a_fault_on_the_supervisor_stack_is_a_double_fault() {
    let mut guest = guest();
    guest.map(0, FRAME | 6);
    guest.write_u32(TABLE0 + ((STACK - 0x1000) >> 12) * 4, 0);
    guest.write(CODE, READ);
    assert_eq!(guest.step(), emulator::Outcome::Shutdown, "nor can that be delivered");
}
