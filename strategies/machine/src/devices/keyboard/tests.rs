//! The controller as drivers use it.

use super::*;
use crate::devices::testing::{Line, read};

const STATUS: u32 = 4;

struct Bench {
    controller: KeyboardController,
    line: Line,
    signals: Arc<Signals>,
}

impl Bench {
    fn new() -> Bench {
        let line = Line::default();
        let signals = Arc::new(Signals::default());
        let events = Arc::new(Mailbox::new(64));
        let controller = KeyboardController::new(signals.clone(), Arc::new(line.clone()), events);
        Bench { controller, line, signals }
    }

    fn command(&mut self, value: u8) {
        self.controller.write(STATUS, &[value]);
    }

    fn data(&mut self, value: u8) {
        self.controller.write(DATA, &[value]);
    }

    fn status(&mut self) -> u8 {
        read(&mut self.controller, STATUS)
    }

    /// Everything that stands to be read.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.status() & 1 != 0 {
            bytes.push(read(&mut self.controller, DATA));
        }
        bytes
    }

    fn type_text(&mut self, text: &str) {
        for event in text.chars().flat_map(Key::strokes) {
            self.controller.push_key(event);
        }
    }
}

#[test]
fn typed_keys_arrive_as_set_1_scancodes_with_an_edge_each() {
    let mut bench = Bench::new();
    bench.type_text("aB");
    assert!(bench.line.level());
    assert_eq!(bench.drain(), [0x1e, 0x9e, 0x2a, 0x30, 0xb0, 0xaa]);
    assert_eq!(bench.line.rises(), 6);
    assert!(!bench.line.level());
    assert_eq!(read(&mut bench.controller, DATA), 0xaa, "an empty buffer repeats its last byte");
}

#[test]
fn without_translation_keys_are_set_2() {
    let mut bench = Bench::new();
    bench.command(0x60);
    bench.data(0x01);
    bench.type_text("a");
    assert_eq!(bench.drain(), [0x1c, 0xf0, 0x1c]);
}

#[test]
fn the_buffer_holds_a_bounded_number_of_keys_and_the_rest_waits() {
    let mut bench = Bench::new();
    let text = "x".repeat(30);
    bench.type_text(&text);
    assert_eq!(bench.drain(), [0x2d, 0xad].repeat(30));
}

#[test]
fn the_controller_and_the_keyboard_line_test_as_good() {
    let mut bench = Bench::new();
    bench.command(0xaa);
    assert_eq!(bench.drain(), [0x55]);
    bench.command(0xab);
    assert_eq!(bench.drain(), [0]);
    assert_eq!(bench.status() & 0x1c, 0x1c, "system flag, command, not locked");
}

#[test]
fn a_reset_keyboard_answers_and_identifies_itself() {
    let mut bench = Bench::new();
    bench.data(0xff);
    assert_eq!(bench.drain(), [0xfa, 0xaa]);
    bench.data(0xf2);
    assert_eq!(bench.drain(), [0xfa, 0xab, 0x41], "the identity is translated, too");
    bench.data(0xee);
    assert_eq!(bench.drain(), [0xee]);
    bench.data(0xfe);
    assert_eq!(bench.drain(), [0xee], "resend");
    bench.data(0x05);
    assert_eq!(bench.drain(), [0xfe], "not a command");
}

#[test]
fn commands_with_parameters_are_acknowledged_twice() {
    let mut bench = Bench::new();
    for (command, parameter) in [(0xed, 0x02), (0xf3, 0x20), (0xf0, 0x02)] {
        bench.data(command);
        bench.data(parameter);
        assert_eq!(bench.drain(), [0xfa, 0xfa]);
    }
    assert_eq!(bench.controller.leds(), 2);
    bench.data(0xf0);
    bench.data(0);
    assert_eq!(bench.drain(), [0xfa, 0xfa, 0x41], "set 2, translated");
    bench.data(0xf0);
    bench.data(1);
    assert_eq!(bench.drain(), [0xfa, 0xfe], "set 1 is not there");
}

#[test]
fn a_keyboard_that_does_not_scan_forgets_what_is_typed() {
    let mut bench = Bench::new();
    bench.data(0xf5);
    assert_eq!(bench.drain(), [0xfa]);
    bench.type_text("lost");
    assert_eq!(bench.drain(), []);
    bench.data(0xf4);
    bench.type_text("k");
    assert_eq!(bench.drain(), [0xfa, 0x25, 0xa5]);
}

#[test]
fn a_disabled_keyboard_keeps_its_keys_until_it_is_enabled() {
    let mut bench = Bench::new();
    bench.command(0xad);
    bench.type_text("z");
    assert_eq!(bench.status() & 1, 0);
    bench.command(0x20);
    assert_eq!(bench.drain(), [0x75], "answers of the controller pass");
    bench.command(0xae);
    assert_eq!(bench.drain(), [0x2c, 0xac]);
}

#[test]
fn the_command_byte_switches_the_interrupt() {
    let mut bench = Bench::new();
    bench.command(0x60);
    bench.data(0x44);
    bench.type_text("q");
    assert!(!bench.line.level());
    bench.command(0x60);
    bench.data(0x45);
    assert!(bench.line.level());
}

#[test]
fn the_auxiliary_port_is_absent_at_once() {
    let mut bench = Bench::new();
    bench.command(0xd3);
    bench.data(0x5a);
    assert_eq!(bench.status() & 0x21, 1, "the loopback is no auxiliary byte");
    assert_eq!(bench.drain(), [0x5a]);
    bench.command(0xa9);
    assert_eq!(bench.drain(), [0x02]);
    bench.command(0xa8);
    bench.command(0x20);
    assert_eq!(bench.drain()[0] & 0x20, 0x20, "it cannot be enabled");
    bench.command(0xd4);
    bench.data(0xff);
    assert_eq!(bench.status() & 0x61, 0x61, "time-out");
    assert!(!bench.line.level());
    assert_eq!(bench.drain(), [0xfe]);
}

#[test]
fn pulses_of_the_reset_line_reset_the_machine() {
    for reset in [0xfe, 0xf0, 0xfc] {
        let mut bench = Bench::new();
        bench.command(reset);
        assert_eq!(bench.signals.take_request(), Some(Request::Reset), "{reset:#x}");
    }
    let mut bench = Bench::new();
    bench.command(0xff);
    assert_eq!(bench.signals.take_request(), None);
    bench.command(0xd1);
    bench.data(0xdf);
    assert_eq!(bench.signals.take_request(), None, "A20 only");
    bench.command(0xd1);
    bench.data(0xde);
    assert_eq!(bench.signals.take_request(), Some(Request::Reset));
}

#[test]
fn the_output_port_shows_a20_open() {
    let mut bench = Bench::new();
    bench.command(0xd0);
    assert_eq!(bench.drain(), [0x03]);
    bench.command(0xc0);
    assert_eq!(bench.drain(), [0x80]);
}

#[test]
fn controller_memory_reads_back() {
    let mut bench = Bench::new();
    bench.command(0x7f);
    bench.data(0x99);
    bench.command(0x3f);
    assert_eq!(bench.drain(), [0x99]);
}

#[test]
fn commands_without_end_do_not_fill_memory() {
    let mut bench = Bench::new();
    for _ in 0..10_000 {
        bench.command(0xaa);
        bench.data(0xf2);
    }
    assert!(bench.drain().len() < 100);
}
