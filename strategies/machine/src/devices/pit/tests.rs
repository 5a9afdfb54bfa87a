//! The timer as a guest sees it, on a virtual clock.

use super::*;
use crate::clock::ClockSource;
use crate::devices::testing::{Line, read};

struct Bench {
    pit: Pit,
    clock: Arc<Clock>,
    signals: Arc<Signals>,
    line: Line,
}

impl Bench {
    fn new() -> Bench {
        let clock = Arc::new(Clock::new(ClockSource::Virtual));
        let signals = Arc::new(Signals::default());
        let line = Line::default();
        let pit = Pit::new(signals.clone(), clock.clone(), Arc::new(line.clone()));
        Bench { pit, clock, signals, line }
    }

    /// Programs a channel, low byte first.
    fn program(&mut self, channel: u32, mode: u8, count: u16) {
        self.pit.write(3, &[(channel as u8) << 6 | 0x30 | mode << 1]);
        self.count(channel, count);
    }

    fn count(&mut self, channel: u32, count: u16) {
        for byte in count.to_le_bytes() {
            self.pit.write(channel, &[byte]);
        }
    }

    /// Lets `ticks` more input clocks pass.
    fn pass(&mut self, ticks: Ticks) {
        let now = self.pit.now();
        self.clock.skip_to(nanos(now + ticks));
        assert_eq!(self.pit.now(), now + ticks);
    }

    fn latched(&mut self, channel: u32) -> u16 {
        self.pit.write(3, &[(channel as u8) << 6]);
        u16::from_le_bytes([read(&mut self.pit, channel), read(&mut self.pit, channel)])
    }

    fn status(&mut self, channel: u32) -> u8 {
        self.pit.write(3, &[0xe0 | 2 << channel]);
        read(&mut self.pit, channel)
    }
}

#[test]
fn ticks_and_nanoseconds_are_exact_inverses() {
    for tick in [0, 1, 2, 3, 1_193_181, 1_193_182, u64::from(u32::MAX) * 1000] {
        assert_eq!(ticks(nanos(tick)), tick);
        assert!(tick == 0 || ticks(nanos(tick) - 1) == tick - 1);
    }
    assert_eq!(nanos(FREQUENCY * 3600), 3600 * NANOS);
}

#[test]
fn a_rate_generator_interrupts_once_a_period() {
    let mut bench = Bench::new();
    bench.program(0, 2, 1193);
    assert!(bench.signals.take_attention());
    for period in 1..=100 {
        let at = bench.pit.next_event().unwrap();
        assert_eq!(at, nanos(1 + 1193 * period), "loaded by the first clock after the write");
        bench.clock.skip_to(at - 1);
        bench.pit.advance();
        assert_eq!(bench.line.rises() as u64, period - 1);
        bench.clock.skip_to(at);
        bench.pit.advance();
        assert_eq!(bench.line.rises() as u64, period);
    }
}

#[test]
fn ticks_that_were_missed_are_one_request() {
    let mut bench = Bench::new();
    bench.program(0, 3, 1193);
    bench.pass(1_000_000);
    bench.pit.advance();
    bench.pit.advance();
    assert_eq!(bench.line.rises(), 1);
    let next = bench.pit.next_event().unwrap();
    assert!(next > bench.clock.now() && next <= bench.clock.now() + 1_000_000);
}

#[test]
fn a_terminal_count_raises_the_line_once_until_it_is_rewritten() {
    let mut bench = Bench::new();
    bench.program(0, 0, 100);
    bench.pass(100);
    bench.pit.advance();
    assert!(!bench.line.level());
    bench.pass(1);
    bench.pit.advance();
    assert!(bench.line.level());
    assert_eq!(bench.pit.next_event(), None);
    bench.count(0, 50);
    assert!(!bench.line.level(), "the first byte lowers the output");
    bench.pass(51);
    bench.pit.advance();
    assert_eq!(bench.line.rises(), 2);
}

#[test]
fn a_software_strobe_interrupts_after_its_low_clock() {
    let mut bench = Bench::new();
    bench.program(0, 4, 1000);
    assert_eq!(bench.pit.next_event(), Some(nanos(1002)));
    bench.pass(1002);
    bench.pit.advance();
    assert_eq!((bench.line.rises(), bench.pit.next_event()), (1, None));
}

#[test]
fn a_due_tick_is_delivered_before_a_write_replaces_it() {
    let mut bench = Bench::new();
    bench.program(0, 0, 10);
    bench.pass(11);
    bench.pit.write(3, &[0x34]);
    assert_eq!(bench.line.rises(), 1);
}

#[test]
fn a_new_count_waits_for_the_end_of_the_period() {
    let mut bench = Bench::new();
    bench.program(0, 2, 100);
    bench.pass(11);
    bench.count(0, 30);
    assert_eq!(bench.status(0) & 0x40, 0x40, "the new count is not loaded");
    assert_eq!(bench.pit.next_event(), Some(nanos(101)));
    bench.pass(90);
    bench.pit.advance();
    assert_eq!(bench.pit.next_event(), Some(nanos(131)));
    assert_eq!(bench.status(0) & 0x40, 0);
    bench.pass(5);
    assert_eq!(bench.latched(0), 25);
}

#[test]
fn a_square_wave_takes_a_new_count_at_the_half() {
    let mut bench = Bench::new();
    bench.program(0, 3, 100);
    bench.pass(11);
    bench.count(0, 20);
    assert_eq!(bench.pit.next_event(), Some(nanos(1 + 50 + 10)), "old high half, new low half");
    bench.pass(40);
    assert_eq!(bench.latched(0), 20);
    assert_eq!(bench.status(0) & 0x80, 0);
}

#[test]
fn a_latched_count_stands_until_it_is_read() {
    let mut bench = Bench::new();
    bench.program(0, 2, 0);
    bench.pass(1);
    bench.pit.write(3, &[0x00]);
    bench.pass(0x123);
    bench.pit.write(3, &[0x00]);
    assert_eq!([read(&mut bench.pit, 0), read(&mut bench.pit, 0)], [0, 0], "65536 reads as 0");
    assert_eq!(bench.latched(0), 0xfedd);
    let bytes = [read(&mut bench.pit, 0), read(&mut bench.pit, 0)];
    assert_eq!(u16::from_le_bytes(bytes), 0xfedd, "unlatched reads give the running count");
}

#[test]
fn a_read_back_latches_status_before_count() {
    let mut bench = Bench::new();
    bench.program(0, 2, 1000);
    bench.pit.write(3, &[0xc2]);
    assert_eq!(read(&mut bench.pit, 0), 0x80 | 0x40 | 0x30 | 0x04, "null until the next clock");
    assert_eq!([read(&mut bench.pit, 0), read(&mut bench.pit, 0)], [0xe8, 0x03]);
    bench.pass(1);
    assert_eq!(bench.status(0), 0xb4);
}

#[test]
fn one_byte_access_reads_and_writes_its_byte() {
    let mut bench = Bench::new();
    bench.pit.write(3, &[0x54]);
    bench.pit.write(1, &[18]);
    bench.pass(3);
    assert_eq!(read(&mut bench.pit, 1), 16);
    bench.pit.write(3, &[0x64]);
    bench.pit.write(1, &[0x12]);
    bench.pass(1);
    assert_eq!([read(&mut bench.pit, 1), read(&mut bench.pit, 1)], [0x12, 0x12]);
}

#[test]
fn bcd_counts_in_tens() {
    let mut bench = Bench::new();
    bench.pit.write(3, &[0x31]);
    bench.count(0, 0x1000);
    bench.pass(2);
    assert_eq!(bench.latched(0), 0x0999);
    assert_eq!(bench.pit.next_event(), Some(nanos(1001)));
    bench.pass(1000);
    assert_eq!(bench.latched(0), 0x9999);
}

#[test]
fn the_system_port_gates_channel_2_and_shows_its_output() {
    let mut bench = Bench::new();
    let output = |bench: &mut Bench| read(&mut bench.pit, 4) & 0x20 != 0;
    bench.pit.write(4, &[1]);
    bench.program(2, 0, 100);
    bench.pass(41);
    bench.pit.write(4, &[0]);
    bench.pass(5000);
    assert_eq!(bench.latched(2), 60);
    assert!(!output(&mut bench));
    bench.pit.write(4, &[1]);
    bench.pass(59);
    assert!(!output(&mut bench));
    bench.pass(1);
    assert!(output(&mut bench));
}

#[test]
fn a_rise_of_the_gate_triggers_one_shots() {
    let mut bench = Bench::new();
    bench.program(2, 1, 100);
    bench.pass(1000);
    assert_eq!(read(&mut bench.pit, 4) & 0x20, 0x20);
    bench.pit.write(4, &[1]);
    bench.pass(1);
    assert_eq!(read(&mut bench.pit, 4) & 0x20, 0);
    bench.pass(50);
    bench.pit.write(4, &[0]);
    bench.pit.write(4, &[1]);
    bench.pass(100);
    assert_eq!(read(&mut bench.pit, 4) & 0x20, 0, "triggered again");
    bench.pass(1);
    assert_eq!(read(&mut bench.pit, 4) & 0x20, 0x20);
}

#[test]
fn a_rate_generator_starts_over_when_its_gate_rises() {
    let mut bench = Bench::new();
    bench.program(2, 2, 100);
    bench.pass(500);
    assert_eq!(bench.latched(2), 100, "held by its gate");
    bench.pit.write(4, &[1]);
    bench.pass(11);
    assert_eq!(bench.latched(2), 90);
}
