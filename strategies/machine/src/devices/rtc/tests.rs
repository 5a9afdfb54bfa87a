//! The clock as guests read, set and wait for it.

use super::*;
use crate::devices::testing::{Line, read};

const SECOND_NANOS: Nanos = 1_000_000_000;

struct Bench {
    rtc: Rtc,
    clock: Arc<Clock>,
    line: Line,
}

impl Bench {
    fn new(source: ClockSource) -> Bench {
        let clock = Arc::new(Clock::new(source));
        let line = Line::default();
        let config = MachineConfig::default();
        let rtc = Rtc::new(&config, Arc::default(), clock.clone(), Arc::new(line.clone()));
        Bench { rtc, clock, line }
    }

    /// A clock at 1 January 2026, 0:00.
    fn virtual_time() -> Bench {
        Bench::new(ClockSource::Virtual)
    }

    fn get(&mut self, register: u8) -> u8 {
        self.rtc.write(INDEX, &[register]);
        read(&mut self.rtc, 1)
    }

    fn put(&mut self, register: u8, value: u8) {
        self.rtc.write(INDEX, &[register]);
        self.rtc.write(1, &[value]);
    }

    fn pass(&mut self, nanos: Nanos) {
        self.clock.skip_to(self.clock.now() + nanos);
    }

    /// Century, year, month, day, hour, minute, second.
    fn time(&mut self) -> [u8; 7] {
        [CENTURY, 9, 8, 7, 4, 2, 0].map(|register| self.get(register))
    }

    /// Lets the device's own events happen for a while.
    fn run(&mut self, nanos: Nanos) {
        let end = self.clock.now() + nanos;
        while let Some(at) = self.rtc.next_event().filter(|&at| at <= end) {
            self.clock.skip_to(at);
            self.rtc.advance();
        }
        self.clock.skip_to(end);
    }
}

#[test]
fn virtual_time_begins_at_a_fixed_date_and_advances() {
    let mut bench = Bench::virtual_time();
    assert_eq!(bench.time(), [0x20, 0x26, 1, 1, 0, 0, 0]);
    assert_eq!(bench.get(6), 5, "a Thursday");
    bench.pass((86_400 + 11 * 3600 + 12 * 60 + 13) * SECOND_NANOS);
    assert_eq!(bench.time(), [0x20, 0x26, 0x01, 0x02, 0x11, 0x12, 0x13]);
    bench.put(REGISTER_B, 0x04);
    assert_eq!(bench.time(), [20, 26, 1, 2, 11, 12, 13], "binary");
    bench.pass(3600 * SECOND_NANOS);
    assert_eq!(bench.get(4), 0x80 | 12, "noon in 12 hours");
}

#[test]
fn host_time_is_the_host_s() {
    let mut bench = Bench::new(ClockSource::Host);
    let expected = host_time().div_euclid(SECOND) as i64;
    bench.get(0);
    assert!((bench.rtc.stored_seconds() - expected).abs() <= 1);
}

#[test]
fn a_guest_sets_the_time_while_the_clock_stands() {
    let mut bench = Bench::virtual_time();
    bench.put(REGISTER_B, 0x82);
    let time = [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58];
    for (register, value) in [CENTURY, 9, 8, 7, 4, 2, 0].into_iter().zip(time) {
        bench.put(register, value);
    }
    bench.pass(10 * SECOND_NANOS);
    assert_eq!(bench.time(), time, "it stands");
    bench.put(REGISTER_B, 0x02);
    bench.pass(2 * SECOND_NANOS);
    assert_eq!(bench.time(), [0x20, 0, 1, 1, 0, 0, 0]);
}

#[test]
fn after_a_divider_reset_the_first_update_is_half_a_second_away() {
    let mut bench = Bench::virtual_time();
    bench.pass(SECOND_NANOS * 9 / 10);
    bench.put(REGISTER_A, 0x76);
    bench.pass(5 * SECOND_NANOS);
    bench.put(REGISTER_A, 0x26);
    bench.pass(SECOND_NANOS / 2 - 1);
    assert_eq!(bench.get(0), 0);
    bench.pass(1);
    assert_eq!(bench.get(0), 1);
}

#[test]
fn a_single_field_can_be_set_while_the_clock_runs() {
    let mut bench = Bench::virtual_time();
    bench.put(2, 0x30);
    bench.pass(SECOND_NANOS);
    assert_eq!(bench.time(), [0x20, 0x26, 1, 1, 0, 0x30, 1]);
}

#[test]
fn update_in_progress_shows_before_the_second_changes() {
    let mut bench = Bench::virtual_time();
    assert_eq!(bench.get(REGISTER_A), 0x26);
    bench.pass(SECOND_NANOS - 1_000_000);
    assert_eq!(bench.get(REGISTER_A), 0xa6);
    bench.pass(1_000_000);
    assert_eq!(bench.get(REGISTER_A), 0x26);
    assert_eq!(bench.get(REGISTER_C), UPDATE | PERIODIC, "flags need no interrupt");
    assert_eq!(bench.get(REGISTER_C), 0, "reading clears");
}

#[test]
fn periodic_interrupts_come_at_the_rate_and_wait_for_register_c() {
    let mut bench = Bench::virtual_time();
    bench.put(REGISTER_B, 0x42);
    bench.run(SECOND_NANOS);
    assert_eq!(bench.line.rises(), 1, "unread, it stands");
    assert_eq!(bench.get(REGISTER_C), 0x80 | PERIODIC | UPDATE);
    assert!(!bench.line.level());
    for _ in 0..1024 {
        let at = bench.rtc.next_event().unwrap();
        bench.clock.skip_to(at);
        bench.rtc.advance();
        assert_eq!(bench.get(REGISTER_C) & PERIODIC, PERIODIC);
    }
    assert_eq!(bench.line.rises(), 1025);
    let elapsed = bench.clock.now();
    assert!((2 * SECOND_NANOS..=2 * SECOND_NANOS + 1_000_000).contains(&elapsed), "{elapsed}");
}

#[test]
fn the_update_interrupt_comes_once_a_second() {
    let mut bench = Bench::virtual_time();
    bench.put(REGISTER_B, 0x12);
    bench.pass(SECOND_NANOS / 4);
    bench.rtc.advance();
    assert_eq!(bench.rtc.next_event(), Some(SECOND_NANOS));
    bench.run(SECOND_NANOS);
    assert!(bench.line.level());
    assert_eq!(bench.get(REGISTER_C) & !PERIODIC, 0x80 | UPDATE);
}

#[test]
fn the_alarm_rings_at_its_time_or_whenever_its_bytes_do_not_care() {
    let mut bench = Bench::virtual_time();
    for (register, value) in [(ALARM_SECOND, 0x05), (ALARM_MINUTE, 0x01), (ALARM_HOUR, 0xff)] {
        bench.put(register as u8, value);
    }
    bench.put(REGISTER_B, 0x22);
    bench.run(64 * SECOND_NANOS);
    assert!(!bench.line.level());
    bench.run(SECOND_NANOS);
    assert!(bench.line.level());
    assert_eq!(bench.get(REGISTER_C) & !PERIODIC, 0x80 | ALARM | UPDATE);
    bench.run(3599 * SECOND_NANOS);
    assert!(!bench.line.level());
    bench.run(SECOND_NANOS);
    assert!(bench.line.level(), "the hour does not care");
}

#[test]
fn memory_keeps_its_bytes_over_a_reset_and_interrupts_do_not() {
    let mut bench = Bench::virtual_time();
    bench.put(0x0f, 0x0a);
    bench.put(0x7f, 0x77);
    bench.put(REGISTER_B, 0x72);
    bench.run(2 * SECOND_NANOS);
    bench.rtc.reset();
    assert!(!bench.line.level());
    assert_eq!([bench.get(0x0f), bench.get(0x7f)], [0x0a, 0x77]);
    assert_eq!(bench.get(REGISTER_B), 0x02);
    assert_eq!(bench.get(REGISTER_D), 0x80);
}

#[test]
fn bit_7_of_the_index_masks_nmi_and_is_no_part_of_it() {
    let mut bench = Bench::virtual_time();
    bench.rtc.write(INDEX, &[0x80 | REGISTER_D]);
    assert!(bench.rtc.nmi_masked());
    assert_eq!(read(&mut bench.rtc, 1), 0x80);
    bench.rtc.write(INDEX, &[0]);
    assert!(!bench.rtc.nmi_masked());
}
