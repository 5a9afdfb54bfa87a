//! The window as the guest's TLB: accessed and dirty bits, flushes, large pages, what is no RAM.

use crate::guest::{CODE, DATA, DIRECTORY, Guest, STACK0};
use machine::cpu::{Cr4, register};

const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;
const INTERRUPT_FLAG: u32 = 0x200;
/// Pages that nothing else lies on.
const A: u32 = 0x10_0000;
const B: u32 = 0x10_1000;
const C: u32 = 0x10_2000;

guest_code! {
    touches: ".code32",
        "mov eax, [0x100000]", "mov [0x101000], eax", "out 0xf4, al";
    reads_then_writes: ".code32",
        "mov eax, [0x100000]", "mov ebx, [0x121400]", "inc dword ptr [0x100000]", "out 0xf4, al";
    straddles: ".code32", "mov dword ptr [0x100ffe], -1", "out 0xf4, al";
    pushes_flags: ".code32",
        "pushfd", "pop ebx", "pushfd", "pop ecx", "out 0xf4, al";
    // Maps A to C's memory, and reads before and after the flush.
    remaps: ".code32",
        "mov ebx, [0x100000]", "mov dword ptr [0x21400], 0x102007",
        "invlpg [0x100000]", "mov ecx, [0x100000]",
        "mov dword ptr [0x21400], 0x101007",
        "mov eax, cr3", "mov cr3, eax", "mov edx, [0x100000]",
        "mov al, 1", "out 0xf4, al";
    cleans: ".code32",
        "mov dword ptr [0x100000], 1", "and dword ptr [0x21400], 0xffffff9f",
        "invlpg [0x100000]", "mov eax, [0x100000]", "mov ebx, [0x21400]",
        "mov dword ptr [0x100000], 2", "mov ecx, [0x21400]", "out 0xf4, al";
    unmaps: ".code32",
        "mov eax, [0x100000]", "mov dword ptr [0x21400], 0",
        "invlpg [0x100000]", "mov eax, [0x100000]";
    switches: ".code32",
        "mov ebx, [0x100000]", "mov eax, 0x22000", "mov cr3, eax",
        "mov ecx, [0x100000]", "mov eax, 0x20000", "mov cr3, eax",
        "mov edx, [0x100000]", "out 0xf4, al";
    reads_high: ".code32",
        "mov ebx, [0x80100000]", "mov dword ptr [0x80101000], 5", "out 0xf4, al";
    turns_pae_on: ".code32",
        "mov eax, 0x20", "mov cr4, eax", "mov eax, 0x30000", "mov cr3, eax",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax",
        "mov ebx, [0x100000]", "mov ecx, [0x80101000]", "mov dword ptr [0x80101000], 5",
        "out 0xf4, al";
    writes_rom: ".code32",
        "mov eax, [0xf0000]", "mov dword ptr [0xf0000], 0x12345678", "mov ebx, [0xf0000]",
        "sub ebx, eax", "mov eax, 1", "out 0xf4, al";
    writes_screen: ".code32",
        "mov dword ptr [0xb8000], 0x07410742", "mov ebx, [0xb8000]", "mov ecx, [0xff000000]",
        "out 0xf4, al";
    uses_page_0: ".code32",
        "mov dword ptr [0x10], 0x1234", "mov ebx, [0x10]", "mov esp, 0x800", "push ebx",
        "pop ecx", "mov byte ptr [0x0], 0x40", "mov byte ptr [0x1], 0xc3",
        "xor eax, eax", "mov edx, 0x0", "call edx", "out 0xf4, al";
    walks: ".code32",
        "mov esi, 0x400000", "2:", "mov dword ptr [esi], esi", "add esi, 0x2000",
        "cmp esi, 0x10000000", "jb 2b",
        "mov esi, 0x400000", "3:", "cmp dword ptr [esi], 0x0ffff000", "add esi, 0x2000",
        "cmp esi, 0x10000000", "jb 3b", "mov al, 6", "out 0xf4, al";
}

fn guest(code: &[u8]) -> Guest {
    let mut guest = Guest::with(code);
    guest.enable_paging();
    for (page, value) in [(A, 0xa), (B, 0xb), (C, 0xc)] {
        guest.write_u32(page, value);
    }
    guest
}

#[test]
fn accessed_and_dirty_bits_are_exact() {
    let mut guest = guest(touches());
    guest.exits();
    assert_eq!(guest.mapped(A), A | 7 | ACCESSED);
    assert_eq!(guest.mapped(B), B | 7 | ACCESSED | DIRTY);
    assert_eq!(guest.mapped(C), C | 7);
    assert_eq!(guest.mapped(CODE), CODE | 7 | ACCESSED);
    assert_eq!(guest.read_u32(DIRECTORY) & (ACCESSED | DIRTY), ACCESSED);
}

#[test]
fn a_page_that_was_read_becomes_dirty_with_the_first_write() {
    let mut guest = guest(reads_then_writes());
    guest.map(0x12_1000, 0x2_1007);
    guest.exits();
    assert_eq!(guest.get(register::EBX), A | 7 | ACCESSED);
    assert_eq!(guest.mapped(A), A | 7 | ACCESSED | DIRTY);
}

#[test]
fn a_write_that_faults_on_its_second_page_leaves_the_first_clean() {
    let mut guest = guest(straddles());
    guest.map(B, 0);
    guest.raises(14, Some(2), CODE);
    assert_eq!(guest.cpu.cr2, B);
    assert_eq!(guest.read_u32(A + 0xffc), 0);
    assert_eq!(guest.mapped(A) & DIRTY, 0);
}

#[test]
fn the_first_push_to_a_page_is_as_the_others() {
    let mut guest = guest(pushes_flags());
    // The stack's first word is its page's last, and the page behind it is not there.
    guest.map(STACK0, 0);
    guest.exits();
    assert_eq!(guest.mapped(STACK0 - 4) & DIRTY, DIRTY);
    let seen = [register::EBX, register::ECX].map(|r| guest.get(r) & INTERRUPT_FLAG);
    // The guest's own is 0.
    let shown = if crate::PUSHF_SHOWS_HOST { INTERRUPT_FLAG } else { 0 };
    assert_eq!(seen, [shown; 2]);
}

#[test]
fn flushes_of_one_page_and_of_all_are_followed() {
    let mut guest = guest(remaps());
    assert_eq!(guest.exits(), 1);
    assert_eq!(
        [register::EBX, register::ECX, register::EDX].map(|r| guest.get(r)),
        [0xa, 0xc, 0xb]
    );
}

#[test]
fn bits_that_were_cleared_are_set_again() {
    let mut guest = guest(cleans());
    guest.exits();
    assert_eq!(guest.get(register::EBX) & (ACCESSED | DIRTY), ACCESSED);
    assert_eq!(guest.get(register::ECX) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
}

#[test]
fn what_is_unmapped_faults() {
    let mut guest = guest(unmaps());
    guest.raises(14, Some(0), CODE + unmaps().len() as u32 - 5);
    assert_eq!(guest.cpu.cr2, A);
}

#[test]
fn address_spaces_come_and_go() {
    let mut guest = guest(switches());
    guest.write_u32(0x2_2000, 0x2_3007);
    for page in 0..1024 {
        guest.write_u32(0x2_3000 + page * 4, page << 12 | 7);
    }
    guest.write_u32(0x2_3000 + (A >> 12) * 4, C | 7);
    guest.exits();
    assert_eq!(
        [register::EBX, register::ECX, register::EDX].map(|r| guest.get(r)),
        [0xa, 0xc, 0xa]
    );
}

#[test]
fn large_pages_are_shown_and_marked() {
    let mut guest = guest(reads_high());
    guest.cpu.cr4 |= Cr4::PSE;
    guest.write_u32(DIRECTORY + 0x800, 0x87);
    guest.exits();
    assert_eq!(guest.get(register::EBX), 0xa);
    assert_eq!(guest.read_u32(B), 5);
    assert_eq!(guest.read_u32(DIRECTORY + 0x800), 0x87 | ACCESSED | DIRTY);
}

#[test]
fn three_levels_with_small_and_large_pages() {
    let mut guest = Guest::with(turns_pae_on());
    for (page, value) in [(A, 0xa), (B, 0xb)] {
        guest.write_u32(page, value);
    }
    // The first GiB: 2 MiB one to one; the third: one table, with B's page only.
    guest.write_u32(0x3_0000, 0x3_1001);
    guest.write_u32(0x3_0010, 0x3_2001);
    guest.write_u32(0x3_1000, 0x87);
    guest.write_u32(0x3_2000, 0x3_3007);
    guest.write_u32(0x3_3808, B | 7);
    guest.exits();
    assert_eq!((guest.get(register::EBX), guest.get(register::ECX)), (0xa, 0xb));
    assert_eq!(guest.read_u32(B), 5);
    assert_eq!(guest.read_u32(0x3_3808), B | 7 | ACCESSED | DIRTY);
    assert_eq!(guest.read_u32(0x3_1000) & ACCESSED, ACCESSED);
}

#[test]
fn rom_keeps_what_it_holds() {
    let mut guest = Guest::with(writes_rom());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 0);
}

#[test]
fn device_memory_goes_to_the_device() {
    let mut guest = Guest::with(writes_screen());
    guest.exits();
    assert_eq!(guest.get(register::EBX), 0x0741_0742);
    assert_eq!(guest.get(register::ECX), u32::MAX, "nothing is there");
}

/// Lets this thread map nothing below `vm.mmap_min_addr` any more.
fn give_up_low_addresses() {
    #[repr(C)]
    struct Header(u32, i32);
    const VERSION_3: u32 = 0x2008_0522;
    // SAFETY: takes rights from this thread, by the structures that capset(2) describes.
    unsafe { libc::syscall(libc::SYS_capset, &Header(VERSION_3, 0), &[0u32; 6]) };
}

#[test]
fn page_0_can_be_used_whether_or_not_it_can_be_mapped() {
    for with_rights in [true, false] {
        let thread = std::thread::spawn(move || {
            if !with_rights {
                give_up_low_addresses();
            }
            let mut guest = Guest::with(uses_page_0());
            assert_eq!(guest.exits(), 1, "the code there was called");
            assert_eq!((guest.get(register::EBX), guest.get(register::ECX)), (0x1234, 0x1234));
        });
        thread.join().unwrap();
    }
}

#[test]
fn more_scattered_pages_than_the_host_has_mappings() {
    let mut guest = guest(walks());
    // Every second page up to 256 MiB, all on one page of memory.
    for table in 1..64u32 {
        guest.write_u32(DIRECTORY + table * 4, 0x30_0000 | 7);
    }
    for page in 0..1024u32 {
        guest.write_u32(0x30_0000 + page * 4, DATA | 7);
    }
    assert_eq!(guest.exits(), 6);
}
