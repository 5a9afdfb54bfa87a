//! One channel of the 8254: its registers as the guest writes and reads them, around a [`Wave`].

use super::wave::{Mode, Ticks, Wave};

/// Which bytes of a count go through the data port (bits 5:4 of the control word).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
enum Access {
    Low = 1,
    High = 2,
    LowThenHigh = 3,
}

/// One channel.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Channel {
    mode: Mode,
    access: Access,
    bcd: bool,
    gate: bool,
    /// What counts now; none before the first count, and while a triggered mode waits.
    wave: Option<Wave>,
    /// The count that takes over at a moment (periodic modes) or at the next trigger.
    next: Option<(Ticks, u64)>,
    /// The count last written, for triggered modes and a rise of the gate.
    count: Option<u64>,
    /// When the gate of a counter that pauses fell.
    paused_at: Option<Ticks>,
    low_byte: Option<u8>,
    reads_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    /// A channel that was not programmed: it holds 0 and its output does not move.
    pub(super) fn new(gate: bool) -> Channel {
        Channel {
            mode: Mode::SquareWave,
            access: Access::LowThenHigh,
            bcd: false,
            gate,
            wave: None,
            next: None,
            count: None,
            paused_at: None,
            low_byte: None,
            reads_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// Whether a channel can be in this state at some moment before `limit`. Without such bounds the
    /// arithmetic could overflow, or divide by a count of zero.
    pub(super) fn is_plausible(&self, limit: Ticks) -> bool {
        let counts = 1..=0x1_0000;
        let wave = self.wave.is_none_or(|wave| {
            wave.mode == self.mode && counts.contains(&wave.count) && wave.start < limit
        });
        let next = self.next.is_none_or(|(at, count)| {
            let begun = self.wave.is_none_or(|wave| wave.start <= at);
            begun && at < limit && counts.contains(&count)
        });
        let count = self.count.is_none_or(|count| counts.contains(&count));
        wave && next && count && self.paused_at.is_none_or(|at| at < limit)
    }

    /// A control word for this channel that is not a latch command.
    pub(super) fn control(&mut self, value: u8) {
        let access = match (value >> 4) & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        *self = Channel {
            mode: Mode::from_bits(value >> 1),
            access,
            bcd: value & 1 != 0,
            ..Channel::new(self.gate)
        };
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// The guest writes a byte of a count.
    pub(super) fn write(&mut self, value: u8, now: Ticks) {
        let raw = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::LowThenHigh, None) => {
                self.low_byte = Some(value);
                if self.mode == Mode::InterruptOnTerminalCount {
                    // The first byte stops the count and lowers the output.
                    self.wave = None;
                }
                return;
            }
        };
        let count = if self.bcd { from_bcd(raw) } else { u64::from(raw) };
        self.load(if count == 0 { self.modulus() } else { count }, now);
    }

    fn load(&mut self, count: u64, now: Ticks) {
        self.count = Some(count);
        self.settle(now);
        match self.wave {
            Some(wave) if self.mode.is_periodic() && self.gate => {
                self.next = Some((wave.next_boundary(now), count));
            }
            // Waits for the trigger; what runs goes on.
            _ if self.mode.is_triggered() => {}
            // The next input clock loads it.
            _ => self.start(count, now + 1),
        }
    }

    fn start(&mut self, count: u64, at: Ticks) {
        self.wave = Some(Wave { mode: self.mode, count, start: at });
        self.next = None;
        self.paused_at = (!self.gate).then_some(at);
    }

    /// Takes over a new count whose time has come.
    fn settle(&mut self, now: Ticks) {
        if let (Some((at, _)), Some(wave)) = (self.next, self.after_boundary())
            && at <= now
        {
            self.wave = Some(wave);
            self.next = None;
        }
    }

    /// The wave after the pending count has taken over. A square wave that takes it over in the
    /// middle of a period goes on with the low half.
    fn after_boundary(&self) -> Option<Wave> {
        let (old, (at, count)) = (self.wave?, self.next?);
        let mut wave = Wave { count, start: at, ..old };
        let middle = old.mode == Mode::SquareWave && !(at - old.start).is_multiple_of(old.count);
        if middle {
            wave.start = at.saturating_sub(wave.high_clocks());
        }
        Some(wave)
    }

    /// Drives the gate: low holds a counter, a rise reloads or triggers it.
    pub(super) fn set_gate(&mut self, gate: bool, now: Ticks) {
        if gate == self.gate {
            return;
        }
        self.settle(now);
        self.gate = gate;
        let restarts = self.mode.is_periodic() || self.mode.is_triggered();
        match (gate, self.count) {
            (true, Some(count)) if restarts => self.start(count, now + 1),
            (true, _) => self.resume(now),
            (false, _) if self.mode.is_triggered() => {}
            (false, _) => self.paused_at = self.wave.map(|wave| now.max(wave.start)),
        }
    }

    fn resume(&mut self, now: Ticks) {
        if let (Some(wave), Some(paused)) = (&mut self.wave, self.paused_at.take()) {
            wave.start += now.saturating_sub(paused);
        }
    }

    /// The moment that the counting element has got to.
    fn counted_to(&self, now: Ticks) -> Ticks {
        self.paused_at.unwrap_or(now)
    }

    /// The level of the output.
    pub(super) fn output(&mut self, now: Ticks) -> bool {
        self.settle(now);
        match self.wave {
            Some(_) if self.mode.is_periodic() && !self.gate => true,
            Some(wave) => wave.output(self.counted_to(now)),
            None => self.mode != Mode::InterruptOnTerminalCount,
        }
    }

    /// When the output next rises by itself, after `after`.
    pub(super) fn next_rise(&self, after: Ticks) -> Option<Ticks> {
        if self.paused_at.is_some() {
            return None;
        }
        let rise = self.wave?.next_rise(after);
        match (self.next, self.after_boundary()) {
            (Some((at, _)), Some(wave)) if rise.is_none_or(|rise| rise > at) => {
                wave.next_rise(after.max(at))
            }
            _ => rise,
        }
    }

    fn counter(&mut self, now: Ticks) -> u16 {
        self.settle(now);
        let now = self.counted_to(now);
        let modulus = self.modulus();
        let value = self.wave.map_or(0, |wave| wave.counter(now, modulus)) % modulus;
        if self.bcd { to_bcd(value) } else { value as u16 }
    }

    /// Counter latch command; a second one before the value was read does nothing.
    pub(super) fn latch_count(&mut self, now: Ticks) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.counter(now));
        }
    }

    /// The status part of the read-back command.
    pub(super) fn latch_status(&mut self, now: Ticks) {
        if self.latched_status.is_none() {
            let output = u8::from(self.output(now)) << 7;
            let null = u8::from(self.count_is_null(now)) << 6;
            let access = (self.access as u8) << 4;
            let status = output | null | access | (self.mode as u8) << 1 | u8::from(self.bcd);
            self.latched_status = Some(status);
        }
    }

    /// Whether the count last written has not reached the counting element.
    fn count_is_null(&self, now: Ticks) -> bool {
        let waits = self.wave.is_none_or(|wave| now < wave.start);
        waits || self.next.is_some() || self.wave.map(|wave| wave.count) != self.count
    }

    /// The guest reads the data port.
    pub(super) fn read(&mut self, now: Ticks) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched_count.unwrap_or_else(|| self.counter(now));
        let [low, high] = value.to_le_bytes();
        let reads_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::LowThenHigh => {
                self.reads_high = !self.reads_high;
                !self.reads_high
            }
        };
        if reads_high || self.access == Access::Low {
            self.latched_count = None;
        }
        if reads_high { high } else { low }
    }
}

fn from_bcd(raw: u16) -> u64 {
    (0..4).rev().fold(0, |value, digit| value * 10 + u64::from(raw >> (4 * digit) & 15)).min(9_999)
}

fn to_bcd(value: u64) -> u16 {
    (0..4).map(|digit| ((value / 10u64.pow(digit) % 10) as u16) << (4 * digit)).sum()
}
