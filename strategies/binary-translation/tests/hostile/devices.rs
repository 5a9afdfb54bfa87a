//! Device memory: what is nothing but memory is reached without the device, and shows all the same.

use crate::guest::{Guest, compare};
use machine::cpu::register;

/// The first page of text.
const VIDEO: u32 = 0xb_8000;

/// mov ecx, 500; again: mov [0xb8000 + ecx * 4], ecx; add edx, [0xb8000 + ecx * 4];
/// xor word [0xb8002 + ecx * 4], dx; dec ecx; jnz again
const FILL: &[u8] = &[
    0xb9, 0xf4, 1, 0, 0, // mov ecx, 500
    0x89, 0x0c, 0x8d, 0, 0x80, 0x0b, 0, // mov [0xb8000 + ecx * 4], ecx
    0x03, 0x14, 0x8d, 0, 0x80, 0x0b, 0, // add edx, [0xb8000 + ecx * 4]
    0x66, 0x31, 0x14, 0x8d, 2, 0x80, 0x0b, 0, // xor [0xb8002 + ecx * 4], dx
    0x49, 0x75, 0xe7, // dec ecx; jnz
];

#[test]
fn video_memory_takes_what_a_loop_writes() {
    for paged in [false, true] {
        let guest = compare(&format!("paged: {paged}"), |guest| {
            if paged {
                guest.enable_paging();
            }
            guest.code(&[FILL]);
        });
        let Some(guest) = guest else { return };
        assert_eq!(guest.machine.cpu.registers[register::ECX], 0);
        let cells = guest.machine.bus.devices.vga.text_screen().cells;
        assert_eq!([cells[2].character, cells[2].attribute], [1, 0]);
    }
}

#[test]
fn video_memory_keeps_the_rights_of_its_page() {
    let entry = |guest: &mut Guest, rights: u32| {
        guest.write_u32(crate::guest::PAGE_TABLE + 4 * (VIDEO >> 12), VIDEO | rights);
    };
    for (ring, rights) in [(0, 7), (3, 7), (3, 5), (3, 3), (3, 6), (0, 6)] {
        compare(&format!("ring {ring}, rights {rights}"), |guest| {
            guest.enable_paging();
            entry(guest, rights);
            guest.enter_ring(ring);
            guest.code(&[FILL]);
        });
    }
    // The loop, then the page's entry without its present bit, INVLPG, and the loop again.
    compare("taken away", |guest| {
        guest.enable_paging();
        let at = (crate::guest::PAGE_TABLE + 4 * (VIDEO >> 12)).to_le_bytes();
        let clear = [&[0x80, 0x25][..], &at, &[0xfe]].concat();
        guest.code(&[FILL, &clear, &[0x0f, 0x01, 0x3d, 0, 0x80, 0x0b, 0], FILL]);
    });
}
