//! The adapter as text consoles use it.

use super::*;
use crate::clock::ClockSource;
use crate::devices::testing::read;

fn vga() -> (Vga, Arc<Clock>) {
    let clock = Arc::new(Clock::new(ClockSource::Virtual));
    (Vga::new(clock.clone()), clock)
}

fn put(vga: &mut Vga, port: u32, index: u8, value: u8) {
    vga.write(port, &[index]);
    vga.write(port + 1, &[value]);
}

fn get(vga: &mut Vga, port: u32, index: u8) -> u8 {
    vga.write(port, &[index]);
    read(vga, port + 1)
}

fn print(vga: &mut Vga, cell: u32, text: &[u8]) {
    for (cell, character) in (cell..).zip(text) {
        vga.memory.write(0x1_8000 + 2 * cell, &[*character, 0x1f]);
    }
}

#[test]
fn text_in_memory_shows_on_the_screen() {
    let (mut vga, _) = vga();
    print(&mut vga, 0, b"Hello");
    print(&mut vga, 80 * 24 + 75, b"End\x01\x80");
    let screen = vga.text_screen();
    assert_eq!(screen.cells[0], Cell { character: b'H', attribute: 0x1f });
    assert_eq!(screen.cells[5], Cell { character: b' ', attribute: 0x07 });
    let lines = screen.lines();
    assert_eq!(lines.len(), ROWS);
    assert_eq!((lines[0].as_str(), lines[24].trim_start()), ("Hello", "End.."));
    assert_eq!(screen.palette[7], [0xaa; 3]);
    assert_eq!(screen.palette[15], [0xff; 3]);
}

#[test]
fn the_cursor_is_where_the_guest_puts_it_or_nowhere() {
    let (mut vga, _) = vga();
    assert_eq!(vga.text_screen().cursor, Some((0, 0)));
    put(&mut vga, 0x14, 0x0e, (81 * 3 / 256) as u8);
    put(&mut vga, 0x14, 0x0f, 243);
    assert_eq!(vga.text_screen().cursor, Some((3, 3)));
    put(&mut vga, 0x14, 0x0e, 0xff);
    assert_eq!(vga.text_screen().cursor, None, "off the screen");
    put(&mut vga, 0x14, 0x0e, 0);
    put(&mut vga, 0x14, 0x0a, 0x20);
    assert_eq!(vga.text_screen().cursor, None, "off");
}

#[test]
fn the_start_address_scrolls_and_wraps() {
    let (mut vga, _) = vga();
    print(&mut vga, 80, b"second");
    put(&mut vga, 0x14, 0x0d, 80);
    assert_eq!(vga.text_screen().lines()[0], "second");
    put(&mut vga, 0x14, 0x0c, 0xff);
    put(&mut vga, 0x14, 0x0d, 0xff);
    print(&mut vga, 0x3fff, b"w");
    assert_eq!(vga.text_screen().lines()[0], "w", "32 KiB of text wrap");
}

#[test]
fn indexed_registers_read_back_and_those_beyond_are_nothing() {
    let (mut vga, _) = vga();
    for (port, index) in [(0x04, 2), (0x0e, 8), (0x14, 0x0f)] {
        put(&mut vga, port, index, 0x5a);
        assert_eq!(get(&mut vga, port, index), 0x5a);
        put(&mut vga, port, 0xff, 0x5a);
        assert_eq!(get(&mut vga, port, 0xff), 0);
    }
    vga.write(0x02, &[0xe3]);
    assert_eq!(read(&mut vga, 0x0c), 0xe3);
}

#[test]
fn locked_timing_cannot_be_changed_but_for_line_compare() {
    let (mut vga, _) = vga();
    put(&mut vga, 0x14, 0, 0);
    assert_eq!(get(&mut vga, 0x14, 0), 0x5f);
    put(&mut vga, 0x14, 7, 0x00);
    assert_eq!(get(&mut vga, 0x14, 7), 0x0f);
    put(&mut vga, 0x14, 0x11, 0x0e);
    put(&mut vga, 0x14, 0, 0x11);
    assert_eq!(get(&mut vga, 0x14, 0), 0x11);
}

#[test]
fn the_attribute_port_alternates_between_index_and_data() {
    let (mut vga, _) = vga();
    read(&mut vga, 0x1a);
    vga.write(0, &[0x21]);
    vga.write(0, &[0x3f]);
    assert_eq!(read(&mut vga, 1), 0x3f);
    assert_eq!(vga.text_screen().palette[1], [0xff; 3]);
    vga.write(0, &[0x02]);
    read(&mut vga, 0x1a);
    vga.write(0, &[0x03]);
    assert_eq!(read(&mut vga, 0), 0x03, "the status read made it an index again");
}

#[test]
fn the_retrace_bits_follow_the_clock() {
    let (mut vga, clock) = vga();
    assert_eq!(read(&mut vga, 0x1a) & 9, 0);
    clock.skip_to(LINE_SHOWN);
    assert_eq!(read(&mut vga, 0x1a) & 9, 1);
    clock.skip_to(412 * LINE);
    assert_eq!(read(&mut vga, 0x1a) & 9, 9);
    clock.skip_to(414 * LINE);
    assert_eq!(read(&mut vga, 0x1a) & 9, 1);
    clock.skip_to(449 * LINE);
    assert_eq!(read(&mut vga, 0x1a) & 9, 0);
}

#[test]
fn a_reset_clears_the_screen() {
    let (mut vga, _) = vga();
    print(&mut vga, 0, b"gone");
    vga.reset();
    assert_eq!(vga.text_screen().lines()[0], "");
}
