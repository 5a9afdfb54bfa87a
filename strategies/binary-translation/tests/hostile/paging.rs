//! Guests that change the mappings that they run by.

use crate::guest::{
    CODE, DATA, Guest, HIGH_TABLE, OTHER_DIRECTORY, OTHER_TABLE, PAGE_TABLE, compare,
};
use machine::cpu::{Cr0, Cr4, register};

/// Two pages, one of which the page at DATA is mapped to in turn.
const FRAMES: [u32; 2] = [0x3_0000, 0x3_1000];
const ROUNDS: u8 = 40;

/// Lets `flush` follow each change of the page-table entry at EDI to EAX or EDX in turn.
fn remap(guest: &mut Guest, touch: &[u8], flush: &[u8]) {
    guest.enable_paging();
    guest.set(register::EDI, PAGE_TABLE + 4 * (DATA >> 12));
    guest.set(register::EAX, FRAMES[0] | 7);
    guest.set(register::EDX, FRAMES[1] | 7);
    guest.set(register::ECX, ROUNDS.into());
    guest.set(register::ESI, 0);
    guest.set(register::EBX, DATA);
    for (frame, step) in FRAMES.into_iter().zip([1, 0x100]) {
        guest.write_u32(frame, step);
        // As code: add esi, step; ret
        guest.write(frame + 0x10, &[0x81, 0xc6]);
        guest.write_u32(frame + 0x12, step);
        guest.write(frame + 0x16, &[0xc3]);
    }
    // again: mov [edi], eax; flush; touch; xchg eax, edx; dec ecx; jnz again
    let body = [&[0x89, 0x07][..], flush, touch, &[0x92, 0x49]].concat();
    let back = -(body.len() as i32 + 2) as u8;
    guest.code(&[&body, &[0x75, back]]);
}

const INVLPG: &[u8] = &[0x0f, 0x01, 0x3b];
const RELOAD: &[u8] = &[0x0f, 0x20, 0xdd, 0x0f, 0x22, 0xdd];
/// add esi, [ebx]; inc byte [ebx + 8]
const LOAD: &[u8] = &[0x03, 0x33, 0xfe, 0x43, 0x08];
/// lea ebp, [ebx + 16]; call ebp
const CALL: &[u8] = &[0x8d, 0x6b, 0x10, 0xff, 0xd5];

#[test]
fn mappings_change_under_data_and_code() {
    for (name, touch, flush) in [
        ("data, INVLPG", LOAD, INVLPG),
        ("data, CR3", LOAD, RELOAD),
        ("code, INVLPG", CALL, INVLPG),
        ("code, CR3", CALL, RELOAD),
    ] {
        let guest = compare(name, |guest| remap(guest, touch, flush));
        let sum = u32::from(ROUNDS) / 2 * 0x101;
        assert!(
            guest.is_none_or(|guest| guest.machine.cpu.registers[register::ESI] == sum),
            "{name}"
        );
    }
}

/// The call is direct, from another page: what links the two pages has to notice.
#[test]
fn mappings_change_under_linked_jumps() {
    for flush in [INVLPG, RELOAD] {
        compare("direct call", |guest| {
            let length = 2 + flush.len() as u32 + 5;
            let distance = (DATA + 0x10).wrapping_sub(CODE + length).to_le_bytes();
            let call = [&[0xe8][..], &distance].concat();
            remap(guest, &call, flush);
        });
    }
}

#[test]
fn address_spaces_take_turns() {
    compare("two spaces", |guest| {
        guest.enable_paging();
        guest.write_u32(OTHER_TABLE + 4 * (DATA >> 12), FRAMES[1] | 7);
        guest.write_u32(FRAMES[1], 0x100);
        guest.write_u32(DATA, 1);
        guest.set(register::EAX, OTHER_DIRECTORY);
        guest.set(register::ESI, 0);
        guest.set(register::ECX, 100);
        // again: mov edx, cr3; mov cr3, eax; mov eax, edx; add esi, [ebx]; inc dword [ebx]; dec; jnz
        guest.code(&[
            &[0x0f, 0x20, 0xda, 0x0f, 0x22, 0xd8, 0x89, 0xd0],
            &[0x03, 0x33, 0xff, 0x03, 0x49, 0x75, 0xf1],
        ]);
    });
}

#[test]
fn a_page_is_written_by_another_name() {
    compare("aliases", |guest| {
        guest.enable_paging();
        // The last page is the code's: its constant is incremented there.
        guest.write_u32(HIGH_TABLE + 4 * 1023, CODE | 7);
        guest.set(register::EBX, 0xffff_f000);
        guest.set(register::ECX, 200);
        // again: inc byte [ebx + 4]; mov eax, 0; add edx, eax; dec ecx; jnz again
        guest.code(&[&[0xfe, 0x43, 4, 0xb8, 0, 0, 0, 0, 0x01, 0xc2, 0x49, 0x75, 0xf3]]);
    });
}

#[test]
fn pages_are_mapped_on_demand() {
    for (name, bits) in [("read-only", 5), ("absent", 0)] {
        compare(name, |guest| {
            guest.enable_paging();
            guest.machine.cpu.cr0 |= Cr0::WP;
            for page in 0x100..0x180 {
                guest.write_u32(PAGE_TABLE + 4 * page, page << 12 | bits);
            }
            // push eax; mov eax, cr2; shr eax, 12; or dword [PAGE_TABLE + 4 * eax], 7;
            // mov eax, cr2; invlpg [eax]; inc dword [0x8000]; pop eax; add esp, 4; iretd
            guest.handler(
                14,
                &[
                    0x50, 0x0f, 0x20, 0xd0, 0xc1, 0xe8, 0x0c, 0x83, 0x0c, 0x85, 0x00, 0x10, 0x02,
                    0x00, 0x07, 0x0f, 0x20, 0xd0, 0x0f, 0x01, 0x38, 0xff, 0x05, 0x00, 0x80, 0x00,
                    0x00, 0x58, 0x83, 0xc4, 0x04, 0xcf,
                ],
            );
            guest.set(register::EDI, 0x10_0ffe);
            guest.set(register::ECX, 0x7f);
            // again: add [edi], ecx; add edi, 0x1000; dec ecx; jnz again; rep stosd over them all
            guest.code(&[
                &[0x01, 0x0f, 0x81, 0xc7, 0, 0x10, 0, 0, 0x49, 0x75, 0xf5],
                &[0xbf, 0, 0, 0x10, 0, 0xb9, 0, 0, 2, 0, 0xf3, 0xab],
            ]);
        });
    }
}

#[test]
fn page_tables_are_written_where_they_are_mapped() {
    compare("its own page table", |guest| {
        guest.enable_paging();
        // Unmaps page after page from itself, then goes where its own page is not mapped.
        guest.set(register::EAX, OTHER_DIRECTORY);
        guest.set(register::EDI, PAGE_TABLE + 4 * 0x30);
        guest.set(register::ECX, 0x20);
        guest.code(&[
            &[0x8b, 0x03, 0x83, 0x27, 0, 0x83, 0xc7, 4, 0x49, 0x75, 0xf5],
            RELOAD,
            // and dword [OTHER_TABLE + 4 * (CODE >> 12)], 0; mov cr3, eax
            &[0x83, 0x25, 0x40, 0x30, 2, 0, 0, 0x0f, 0x22, 0xd8, 0x90],
        ]);
    });
}

#[test]
fn large_and_global_pages() {
    compare("PSE and PGE", |guest| {
        guest.enable_paging();
        guest.machine.cpu.cr4 |= Cr4::PSE | Cr4::PGE;
        guest.write_u32(crate::guest::PAGE_DIRECTORY + 4, 0x187);
        guest.set(register::EBX, 0x40_0000 + DATA);
        guest.set(register::ECX, 50);
        // again: inc dword [ebx]; add eax, [DATA]; mov ebp, cr4; xor ebp, 0x80; mov cr4, ebp; loop
        guest.code(&[
            &[0xff, 0x03, 0x03, 0x05, 0, 0x80, 1, 0],
            &[0x0f, 0x20, 0xe5, 0x81, 0xf5, 0x80, 0, 0, 0, 0x0f, 0x22, 0xe5, 0x49, 0x75, 0xe9],
        ]);
    });
}
