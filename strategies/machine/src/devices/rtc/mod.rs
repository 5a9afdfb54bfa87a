//! The MC146818 real-time clock with its CMOS memory.
//!
//! Offset 0 is the index (port 0x70, whose bit 7 masks NMI), offset 1 the data. The time is UTC: the
//! host's when the machine follows the host's clock, else a fixed date that advances with the
//! virtual clock. The weekday is computed from the date, not counted apart.
//!
//! Nothing ticks: the flags in register C are computed from the time that passed since they were
//! last looked at. A flag that stands raises no second interrupt before register C is read, so a
//! late host cannot flood the guest.
//!
//! Follows Motorola's data sheet of the MC146818A (1987).

mod calendar;
mod cmos;
#[cfg(test)]
mod tests;

use crate::MachineConfig;
use crate::bus::Device;
use crate::clock::{Clock, ClockSource, LATEST, Nanos};
use crate::devices::state::{array, require, saved};
use crate::signals::{Interrupt, Signals};
use calendar::{Civil, Format};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const INDEX: u32 = 0;

const ALARM_SECOND: usize = 1;
const ALARM_MINUTE: usize = 3;
const ALARM_HOUR: usize = 5;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// The century is no register of the chip; by convention it lies in this byte.
const CENTURY: u8 = 0x32;

/// Register A: an update is in progress.
const UPDATING: u8 = 0x80;
/// Register A: two of the divider bits, which hold the divider in reset.
const DIVIDER_RESET: u8 = 0x60;
/// Register B: the guest sets the time.
const SET: u8 = 0x80;
/// Registers B and C: periodic, alarm and update interrupt.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATE;

const SECOND: i128 = 1_000_000_000;
/// How long before the change of the time UPDATING is set: 244 µs and the update's own 1984 µs.
const UPDATE_TIME: i128 = 2_228_000;
/// From the divider's release to the first update (data sheet, "Divider Stages").
const AFTER_RESET: i128 = SECOND / 2;
/// 1 January 2026, where virtual time begins.
const VIRTUAL_START: i128 = 1_767_225_600 * SECOND;

/// Further from 1970 than this no guest can set the clock: some 30,000 years.
const FURTHEST: i128 = 1_000_000_000_000 * SECOND;

/// The real-time clock.
pub struct Rtc {
    clock: Arc<Clock>,
    /// Told when a guest access moves the next interrupt.
    signals: Arc<Signals>,
    line: Arc<dyn Interrupt>,
    /// Memory and registers; the time's bytes count only while the clock is stopped.
    cmos: [u8; 128],
    index: u8,
    nmi_masked: bool,
    /// Nanoseconds since 1970 at the clock's zero.
    origin: i128,
    flags: u8,
    /// Up to when the flags are computed.
    looked_at: Nanos,
}

impl Rtc {
    /// A clock that is set, and CMOS memory that fits the machine.
    #[must_use]
    pub fn new(
        config: &MachineConfig,
        signals: Arc<Signals>,
        clock: Arc<Clock>,
        line: Arc<dyn Interrupt>,
    ) -> Rtc {
        let mut cmos = cmos::contents(config.memory_bytes, config.disk.is_some());
        // 32768 Hz and 1024 interrupts a second; 24 hours, BCD; battery good.
        cmos[usize::from(REGISTER_A)] = 0x26;
        cmos[usize::from(REGISTER_B)] = 0x02;
        cmos[usize::from(REGISTER_D)] = 0x80;
        let looked_at = clock.now();
        let origin = match clock.source() {
            ClockSource::Host => host_time() - i128::from(looked_at),
            ClockSource::Virtual => VIRTUAL_START,
        };
        Rtc { clock, signals, line, cmos, index: 0, nmi_masked: false, origin, flags: 0, looked_at }
    }

    fn check(&self, state: &RtcState) -> Result<(), &'static str> {
        require(state.index < 128, "the index is above 127")?;
        require(state.origin.abs() < FURTHEST, "the date is out of range")?;
        require(state.looked_at < LATEST, "it was looked at in the far future")
    }

    /// Whether the guest masked NMI through bit 7 of the index.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    fn register(&self, register: u8) -> u8 {
        self.cmos[usize::from(register)]
    }

    /// Whether the time stands still: while the guest sets it or holds the divider.
    fn is_stopped(&self) -> bool {
        self.register(REGISTER_B) & SET != 0 || self.divider_is_reset()
    }

    fn divider_is_reset(&self) -> bool {
        self.register(REGISTER_A) & DIVIDER_RESET == DIVIDER_RESET
    }

    fn format(&self) -> Format {
        let b = self.register(REGISTER_B);
        Format { binary: b & 4 != 0, hours_24: b & 2 != 0 }
    }

    /// Nanoseconds since 1970.
    fn wall(&self, at: Nanos) -> i128 {
        self.origin + i128::from(at)
    }

    fn seconds(&self, at: Nanos) -> i64 {
        self.wall(at).div_euclid(SECOND) as i64
    }

    /// Writes the running time into the time's bytes.
    fn store_time(&mut self, at: Nanos) {
        let (time, format) = (Civil::from_seconds(self.seconds(at)), self.format());
        let year = time.year.rem_euclid(10_000);
        for (register, value) in [
            (0, format.encode(time.second)),
            (2, format.encode(time.minute)),
            (4, format.encode_hour(time.hour)),
            (6, time.weekday),
            (7, format.encode(time.day)),
            (8, format.encode(time.month)),
            (9, format.encode((year % 100) as u8)),
            (CENTURY, format.encode((year / 100) as u8)),
        ] {
            self.cmos[usize::from(register)] = value;
        }
    }

    /// What the time's bytes say, in seconds since 1970.
    fn stored_seconds(&self) -> i64 {
        let format = self.format();
        let number = |register| format.decode(self.register(register));
        let time = Civil {
            year: i64::from(number(CENTURY)) * 100 + i64::from(number(9)),
            month: number(8),
            day: number(7),
            weekday: 1,
            hour: format.decode_hour(self.register(4)),
            minute: number(2),
            second: number(0),
        };
        time.seconds()
    }

    /// Computes the flags for the time since the last look and drives the line.
    fn settle(&mut self) {
        let now = self.clock.now();
        if !self.is_stopped() {
            let (before, after) = (self.seconds(self.looked_at), self.seconds(now));
            if after > before {
                self.flags |= UPDATE;
                self.check_alarm(before, after);
            }
        }
        if let Some(period) = self.period()
            && periods(now, period) > periods(self.looked_at, period)
        {
            self.flags |= PERIODIC;
        }
        self.looked_at = now;
        self.line.set(self.requests_interrupt());
    }

    fn requests_interrupt(&self) -> bool {
        self.flags & self.register(REGISTER_B) & INTERRUPTS != 0
    }

    /// Sets the alarm flag if any second after `before`, up to `after`, matches. A day holds all.
    fn check_alarm(&mut self, before: i64, after: i64) {
        if self.flags & ALARM == 0 {
            let first = (before + 1).max(after - 86_399);
            if (first..=after).any(|second| self.alarm_matches(second)) {
                self.flags |= ALARM;
            }
        }
    }

    fn alarm_matches(&self, second: i64) -> bool {
        let (format, of_day) = (self.format(), second.rem_euclid(86_400));
        // From 0xC0 on, an alarm byte matches everything.
        let matches = |register: usize, value: u8| {
            self.cmos[register] >= 0xc0 || self.cmos[register] == value
        };
        matches(ALARM_SECOND, format.encode((of_day % 60) as u8))
            && matches(ALARM_MINUTE, format.encode((of_day / 60 % 60) as u8))
            && matches(ALARM_HOUR, format.encode_hour((of_day / 3_600) as u8))
    }

    /// Cycles of 32768 Hz between periodic interrupts (data sheet, table 5).
    fn period(&self) -> Option<u64> {
        match self.register(REGISTER_A) & 15 {
            _ if self.divider_is_reset() => None,
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn read_data(&mut self) -> u8 {
        match self.index {
            0 | 2 | 4 | 6..=9 | CENTURY if !self.is_stopped() => self.store_time(self.looked_at),
            REGISTER_A => return self.register(REGISTER_A) | self.updating(),
            REGISTER_C => return self.take_flags(),
            _ => {}
        }
        self.register(self.index)
    }

    fn updating(&self) -> u8 {
        let left = SECOND - self.wall(self.looked_at).rem_euclid(SECOND);
        if !self.is_stopped() && left <= UPDATE_TIME { UPDATING } else { 0 }
    }

    /// Reading register C clears it and lowers the line.
    fn take_flags(&mut self) -> u8 {
        let requests = u8::from(self.requests_interrupt()) << 7;
        let flags = std::mem::take(&mut self.flags);
        self.line.set(false);
        if self.register(REGISTER_B) & INTERRUPTS != 0 {
            self.signals.raise_attention();
        }
        flags | requests
    }

    fn write_data(&mut self, value: u8) {
        match self.index {
            REGISTER_A => self.write_control(REGISTER_A, value & !UPDATING),
            REGISTER_B => self.write_control(REGISTER_B, value),
            REGISTER_C | REGISTER_D => {}
            0 | 2 | 4 | 6..=9 | CENTURY if !self.is_stopped() => self.write_running_time(value),
            index => self.cmos[usize::from(index)] = value,
        }
        // Alarm and control bytes move the next interrupt, and may be one.
        self.line.set(self.requests_interrupt());
        self.signals.raise_attention();
    }

    /// Registers A and B: stops the time, or lets the time that the guest has set run on.
    fn write_control(&mut self, register: u8, value: u8) {
        let (was_stopped, was_reset) = (self.is_stopped(), self.divider_is_reset());
        if !was_stopped {
            self.store_time(self.looked_at);
        }
        self.cmos[usize::from(register)] = value;
        if self.register(REGISTER_B) & SET != 0 {
            // The chip clears the update interrupt when the guest begins to set the time.
            self.cmos[usize::from(REGISTER_B)] &= !UPDATE;
        }
        if was_stopped && !self.is_stopped() {
            // The divider kept its phase, unless it was what stood still.
            let phase = if was_reset { AFTER_RESET } else { self.wall(self.looked_at) };
            let wall = i128::from(self.stored_seconds()) * SECOND + phase.rem_euclid(SECOND);
            self.origin = wall - i128::from(self.looked_at);
        }
    }

    fn write_running_time(&mut self, value: u8) {
        self.store_time(self.looked_at);
        let before = self.stored_seconds();
        self.cmos[usize::from(self.index)] = value;
        self.origin += i128::from(self.stored_seconds() - before) * SECOND;
    }
}

saved! {
    Rtc as RtcState;
    saved {
        #[serde(with = "array")]
        cmos: [u8; 128],
        index: u8,
        nmi_masked: bool,
        origin: i128,
        flags: u8,
        looked_at: Nanos,
    }
    kept { clock, signals, line }
    check Rtc::check;
}

impl Device for Rtc {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        // The index cannot be read.
        if offset != INDEX {
            self.settle();
            data[0] = self.read_data();
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        if offset == INDEX {
            self.index = data[0] & 0x7f;
            self.nmi_masked = data[0] & 0x80 != 0;
        } else {
            self.settle();
            self.write_data(data[0]);
        }
    }

    fn next_event(&self) -> Option<Nanos> {
        let waiting = self.register(REGISTER_B) & !self.flags;
        let periodic = self.period().filter(|_| waiting & PERIODIC != 0);
        let periodic = periodic.map(|period| end_of_period(self.looked_at, period));
        let second = (waiting & (UPDATE | ALARM) != 0 && !self.is_stopped()).then(|| {
            let next = i128::from(self.seconds(self.looked_at) + 1) * SECOND;
            (next - self.origin) as Nanos
        });
        periodic.into_iter().chain(second).min()
    }

    fn advance(&mut self) {
        self.settle();
    }

    /// The time and the memory have a battery.
    fn reset(&mut self) {
        self.cmos[usize::from(REGISTER_B)] &= !(INTERRUPTS | 0x08);
        self.flags = 0;
        self.nmi_masked = false;
        self.line.set(false);
    }
}

fn host_time() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i128)
}

/// Whole periods of so many 32768 Hz cycles that have passed at a moment.
fn periods(at: Nanos, period: u64) -> u128 {
    u128::from(at) * 32_768 / SECOND as u128 / u128::from(period)
}

/// The moment at which the period that runs now has passed.
fn end_of_period(at: Nanos, period: u64) -> Nanos {
    let cycles = (periods(at, period) + 1) * u128::from(period);
    (cycles * SECOND as u128).div_ceil(32_768) as Nanos
}
