//! One controller as a guest programs it.

use super::*;

/// Vectors from 0x20, nothing masked, the given ICW4.
fn chip(icw4: u8) -> Chip {
    let mut chip = Chip::new(0, 1 << 2, 0xf8);
    chip.write_command_port(0x11);
    for word in [0x20, 0x04, icw4] {
        chip.write_data_port(word);
    }
    chip
}

fn raise(chip: &mut Chip, lines: u8) {
    chip.update(0xff, lines);
}

#[test]
fn the_lowest_line_wins_and_holds_back_the_others_until_its_end() {
    let mut chip = chip(1);
    raise(&mut chip, 0b1010);
    assert_eq!(chip.acknowledge(), 1);
    assert_eq!(chip.request(), None);
    raise(&mut chip, 0b0001);
    assert_eq!(chip.acknowledge(), 0, "a higher priority interrupts");
    chip.write_command_port(0x20);
    assert_eq!(chip.request(), None, "the first is still in service");
    chip.write_command_port(0x20);
    assert_eq!(chip.acknowledge(), 3);
}

#[test]
fn initialization_can_leave_out_the_third_and_fourth_words() {
    let mut chip = Chip::new(0, 4, 0xf8);
    chip.write_command_port(0x12);
    chip.write_data_port(0x4f);
    chip.write_data_port(0xfe);
    assert_eq!(chip.vector(3), 0x4b);
    assert_eq!(chip.read_data_port(), 0xfe);
}

#[test]
fn a_masked_request_is_remembered() {
    let mut chip = chip(1);
    chip.write_data_port(0xff);
    raise(&mut chip, 0x10);
    assert_eq!(chip.request(), None);
    assert_eq!(chip.read_command_port(), 0x10);
    chip.write_data_port(0);
    assert_eq!(chip.request(), Some(4));
}

#[test]
fn an_edge_that_went_away_acknowledges_as_spurious() {
    let mut chip = chip(1);
    raise(&mut chip, 0x10);
    chip.update(0, 0);
    assert_eq!(chip.acknowledge(), 7);
    chip.write_command_port(0x0b);
    assert_eq!(chip.read_command_port(), 0, "a spurious interrupt is not in service");
}

#[test]
fn a_level_line_requests_again_while_it_is_high() {
    let mut chip = chip(3);
    chip.set_level_lines(0xff);
    assert_eq!(chip.level_lines(), 0xf8);
    chip.update(0x20, 0);
    assert_eq!(chip.acknowledge(), 5);
    assert_eq!(chip.request(), None);
    chip.update(0x20, 0);
    assert_eq!(chip.request(), Some(5));
    chip.update(0x01, 0);
    assert_eq!(chip.request(), None, "line 0 stays edge-triggered");
}

#[test]
fn auto_eoi_leaves_nothing_in_service_and_may_rotate() {
    let mut chip = chip(3);
    chip.write_command_port(0x80);
    raise(&mut chip, 0b11);
    assert_eq!(chip.acknowledge(), 0);
    raise(&mut chip, 0b01);
    assert_eq!(chip.acknowledge(), 1, "line 0 now has the lowest priority");
    chip.write_command_port(0x00);
    chip.write_command_port(0x0b);
    assert_eq!(chip.read_command_port(), 0);
}

#[test]
fn rotation_on_eoi_makes_the_served_line_the_lowest() {
    let mut chip = chip(1);
    raise(&mut chip, 0b100);
    chip.acknowledge();
    chip.write_command_port(0xa0);
    raise(&mut chip, 0b1100);
    assert_eq!(chip.acknowledge(), 3);
    chip.write_command_port(0xe3);
    raise(&mut chip, 0b1_1001);
    assert_eq!(chip.acknowledge(), 4, "a specific rotation put line 3 last");
}

#[test]
fn set_priority_and_specific_eoi_name_their_line() {
    let mut chip = chip(1);
    chip.write_command_port(0xc5);
    raise(&mut chip, 0b0110_0001);
    assert_eq!(chip.acknowledge(), 6);
    chip.write_command_port(0x61);
    assert_eq!(chip.request(), None, "the end of line 1 ends nothing");
    chip.write_command_port(0x66);
    assert_eq!(chip.acknowledge(), 0);
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let mut chip = chip(1);
    raise(&mut chip, 0b0000_0010);
    chip.acknowledge();
    raise(&mut chip, 0b0001_0000);
    assert_eq!(chip.request(), None);
    chip.write_data_port(0b0000_0010);
    chip.write_command_port(0x68);
    assert_eq!(chip.acknowledge(), 4);
    chip.write_command_port(0x20);
    chip.write_command_port(0x0b);
    assert_eq!(chip.read_command_port(), 0b10, "EOI ended line 4, not the masked line 1");
    chip.write_command_port(0x48);
    assert!(!chip.special_mask);
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut nested = chip(0x11);
    raise(&mut nested, 0b100);
    nested.acknowledge();
    raise(&mut nested, 0b1000);
    assert_eq!(nested.request(), None);
    raise(&mut nested, 0b100);
    assert_eq!(nested.request(), Some(2));
    let mut plain = chip(1);
    raise(&mut plain, 0b100);
    plain.acknowledge();
    raise(&mut plain, 0b100);
    assert_eq!(plain.request(), None);
}

#[test]
fn a_poll_acknowledges_without_an_interrupt() {
    let mut chip = chip(1);
    chip.write_command_port(0x0c);
    assert_eq!(chip.read_command_port(), 0, "no request");
    raise(&mut chip, 0x20);
    chip.write_command_port(0x0c);
    assert_eq!(chip.read_data_port(), 0x85);
    assert_eq!(chip.read_data_port(), 0, "the mask again");
    chip.write_command_port(0x0b);
    assert_eq!(chip.read_command_port(), 0x20);
}
