//! The port as a driver sees it.

use super::*;
use crate::devices::testing::{Line, read};
use std::sync::Mutex;

const RECEIVED: u8 = 1;
const TRANSMITTED: u8 = 2;

fn port() -> (Serial, Line) {
    let line = Line::default();
    let mut serial = Serial::new(Arc::new(line.clone()), Arc::new(Mailbox::new(64)));
    // DTR, RTS and OUT2, as drivers set them.
    serial.write(4, &[0x0b]);
    (serial, line)
}

/// A port with FIFOs on, a trigger level of 14, and these interrupts.
fn fifo_port(enable: u8) -> (Serial, Line) {
    let (mut serial, line) = port();
    serial.write(2, &[0xc7]);
    serial.write(1, &[enable]);
    (serial, line)
}

/// A sink that tests can look into.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_guest_sends_reaches_the_sink() {
    let (mut serial, _) = port();
    let sink = Sink::default();
    serial.set_output(Box::new(sink.clone()));
    for byte in b"ok\n" {
        serial.write(0, &[*byte]);
        assert_eq!(read(&mut serial, 5), 0x60);
    }
    assert_eq!(*sink.0.lock().unwrap(), b"ok\n");
}

#[test]
fn a_driver_that_probes_finds_a_16550a() {
    let (mut serial, _) = port();
    serial.write(1, &[0]);
    assert_eq!(read(&mut serial, 1), 0);
    serial.write(1, &[0xff]);
    assert_eq!(read(&mut serial, 1), 0x0f, "four interrupts, no sleep modes");
    serial.write(1, &[0]);
    serial.write(4, &[0x1a]);
    assert_eq!(read(&mut serial, 6) & 0xf0, 0x90, "loopback of RTS and OUT2");
    serial.write(4, &[0x0b]);
    assert_eq!(read(&mut serial, 2) & 0xc0, 0, "FIFOs off");
    serial.write(2, &[0x01]);
    assert_eq!(read(&mut serial, 2) & 0xc0, 0xc0);
    serial.write(2, &[0x21]);
    assert_eq!(read(&mut serial, 2) & 0x20, 0, "no 64-byte FIFO");
    for register in [0xbf, 0xe0, 0x80] {
        serial.write(3, &[register]);
        assert_ne!(read(&mut serial, 2), 0, "no enhanced registers behind LCR {register:#x}");
    }
    serial.write(3, &[3]);
    serial.write(7, &[0xa5]);
    assert_eq!(read(&mut serial, 7), 0xa5);
}

#[test]
fn the_divisor_hides_behind_its_bit() {
    let (mut serial, _) = port();
    serial.write(3, &[0x83]);
    serial.write(0, &[0x34]);
    serial.write(1, &[0x12]);
    assert_eq!([read(&mut serial, 0), read(&mut serial, 1)], [0x34, 0x12]);
    serial.write(3, &[0x03]);
    assert_eq!(read(&mut serial, 1), 0);
}

#[test]
fn received_bytes_interrupt_until_they_are_read() {
    let (mut serial, line) = fifo_port(RECEIVED);
    assert_eq!(serial.push_input(b"ab"), 2);
    assert!(line.level());
    assert_eq!(read(&mut serial, 2), 0xcc, "below the trigger level: time-out");
    assert_eq!(read(&mut serial, 5), 0x61);
    assert_eq!(read(&mut serial, 0), b'a');
    assert!(line.level());
    assert_eq!(read(&mut serial, 0), b'b');
    assert!(!line.level());
    assert_eq!(read(&mut serial, 2), 0xc1);
    assert_eq!(read(&mut serial, 0), 0, "nothing left");
}

#[test]
fn the_fifo_is_refilled_as_it_is_read_and_input_is_bounded() {
    let (mut serial, _) = fifo_port(RECEIVED);
    let sent: Vec<u8> = (0..100).collect();
    assert_eq!(serial.push_input(&sent), 64);
    assert_eq!(serial.push_input(&sent[64..]), 16, "what the FIFO took made room");
    assert_eq!(read(&mut serial, 2), 0xc4);
    let received: Vec<u8> = (0..80).map(|_| read(&mut serial, 0)).collect();
    assert_eq!(received, sent[..80]);
    assert_eq!(read(&mut serial, 5) & 3, 0, "empty, and no overrun");
}

#[test]
fn without_fifos_each_byte_is_an_edge() {
    let (mut serial, line) = port();
    serial.write(1, &[RECEIVED]);
    serial.push_input(b"xyz");
    assert_eq!(read(&mut serial, 2), 0x04);
    for (rises, byte) in (1..).zip(b"xyz") {
        assert_eq!(line.rises(), rises);
        assert_eq!(read(&mut serial, 0), *byte);
    }
    assert!(!line.level());
}

#[test]
fn the_transmitter_interrupts_when_enabled_and_after_each_byte() {
    let (mut serial, line) = fifo_port(TRANSMITTED);
    assert!(line.level(), "enabling reports the empty transmitter");
    assert_eq!(read(&mut serial, 2), 0xc2);
    assert!(!line.level(), "reading IIR acknowledges it");
    serial.write(1, &[TRANSMITTED]);
    assert!(!line.level(), "it was enabled already");
    serial.write(0, b"a");
    assert_eq!(line.rises(), 2);
    serial.write(0, b"b");
    assert_eq!(line.rises(), 3, "an edge even when the last was not acknowledged");
}

#[test]
fn reading_iir_keeps_a_receive_interrupt() {
    let (mut serial, line) = fifo_port(RECEIVED | TRANSMITTED);
    serial.push_input(b"k");
    assert_eq!(read(&mut serial, 2), 0xcc);
    assert_eq!(read(&mut serial, 2), 0xcc, "the higher priority stands");
    read(&mut serial, 0);
    assert!(line.level());
    assert_eq!(read(&mut serial, 2), 0xc2);
}

#[test]
fn out2_connects_the_interrupt() {
    let (mut serial, line) = fifo_port(RECEIVED);
    serial.write(4, &[0x03]);
    serial.push_input(b"q");
    assert!(!line.level());
    serial.write(4, &[0x0b]);
    assert!(line.level());
}

#[test]
fn loopback_returns_bytes_reports_overruns_and_keeps_input_out() {
    let (mut serial, line) = port();
    let sink = Sink::default();
    serial.set_output(Box::new(sink.clone()));
    serial.write(4, &[0x1b]);
    serial.push_input(b"later");
    serial.write(0, &[0xae]);
    serial.write(0, &[0xaf]);
    assert_eq!(read(&mut serial, 5), 0x63);
    assert_eq!(read(&mut serial, 5), 0x61, "reading LSR clears the overrun");
    assert_eq!(read(&mut serial, 0), 0xae);
    assert!(sink.0.lock().unwrap().is_empty());
    assert_eq!(line.rises(), 0);
    serial.write(4, &[0x0b]);
    assert_eq!(read(&mut serial, 0), b'l');
}

#[test]
fn modem_status_reports_changes_once() {
    let (mut serial, line) = port();
    assert_eq!(read(&mut serial, 6), 0xb0);
    serial.write(4, &[0x14]);
    assert_eq!(read(&mut serial, 6), 0x4b);
    assert_eq!(read(&mut serial, 6), 0x40);
    serial.write(1, &[8]);
    serial.write(4, &[0x0b]);
    assert!(line.level());
    assert_eq!(read(&mut serial, 2), 0x00);
    assert_eq!(read(&mut serial, 6), 0xbf, "all four, the ring's end among them");
    assert!(!line.level());
}

#[test]
fn a_reset_keeps_the_sink_and_lowers_the_line() {
    let (mut serial, line) = fifo_port(TRANSMITTED);
    let sink = Sink::default();
    serial.set_output(Box::new(sink.clone()));
    serial.reset();
    assert!(!line.level());
    serial.write(0, b"z");
    assert_eq!(*sink.0.lock().unwrap(), b"z");
}

/// Counts, as `vm_superio` asks.
struct NoTrigger;

impl vm_superio::Trigger for NoTrigger {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        Ok(())
    }
}

#[test]
fn a_polling_guest_sees_what_vm_superio_shows_it() {
    let (mut ours, _) = fifo_port(0);
    let sink = Sink::default();
    ours.set_output(Box::new(sink.clone()));
    let mut theirs = vm_superio::Serial::new(NoTrigger, Vec::new());
    theirs.write(4, 0x0b).unwrap();
    assert_eq!(ours.push_input(b"12345"), 5);
    theirs.enqueue_raw_bytes(b"12345").unwrap();
    let writes = [(3, 0x83), (0, 1), (1, 0), (3, 0x03), (7, 0x5a), (0, b'A'), (0, b'B')];
    for (offset, value) in writes {
        ours.write(u32::from(offset), &[value]);
        theirs.write(offset, value).unwrap();
        // All but IIR, which `vm_superio` clears, and MSR, whose delta bits it lacks.
        for register in [5, 0, 1, 3, 4, 7] {
            let (seen, expected) = (read(&mut ours, u32::from(register)), theirs.read(register));
            assert_eq!(seen, expected, "register {register} after {offset} = {value:#x}");
        }
    }
    assert_eq!(&*sink.0.lock().unwrap(), theirs.writer());
}
