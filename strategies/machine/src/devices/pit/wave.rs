//! The arithmetic of one 8254 counter: what it holds and what its output does, as functions of the
//! input clocks that have passed. It knows neither guest accesses nor host time.
//!
//! Follows the 8254 data sheet (Intel 231164), "Mode Definitions".

/// Input clocks (1193182 a second) since the machine was made.
pub(super) type Ticks = u64;

/// What a counter does when it gets to zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Mode {
    /// 0: the output rises at the end of the count.
    InterruptOnTerminalCount,
    /// 1: a rise of the gate starts a low pulse as long as the count.
    OneShot,
    /// 2: one low clock a period.
    RateGenerator,
    /// 3: half a period high, half a period low.
    SquareWave,
    /// 4: one low clock after the count.
    SoftwareStrobe,
    /// 5: one low clock after a rise of the gate and the count.
    HardwareStrobe,
}

impl Mode {
    /// The mode of a control word's three bits, of which two values have two encodings.
    pub(super) fn from_bits(bits: u8) -> Mode {
        match bits & 7 {
            0 => Mode::InterruptOnTerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    pub(super) fn is_periodic(self) -> bool {
        matches!(self, Mode::RateGenerator | Mode::SquareWave)
    }

    /// Whether a rise of the gate, not the count itself, starts the counter.
    pub(super) fn is_triggered(self) -> bool {
        matches!(self, Mode::OneShot | Mode::HardwareStrobe)
    }
}

/// A count that is being worked off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Wave {
    pub(super) mode: Mode,
    /// The initial count: 1 to 65536, or to 10000 in BCD.
    pub(super) count: u64,
    /// When the count was loaded. For one that pauses, moved along by the length of each pause.
    pub(super) start: Ticks,
}

impl Wave {
    fn elapsed(&self, now: Ticks) -> Ticks {
        now.saturating_sub(self.start)
    }

    /// Clocks for which a square wave is high: the longer half, when the count is odd.
    pub(super) fn high_clocks(&self) -> u64 {
        self.count.div_ceil(2)
    }

    /// What the counting element holds, where `modulus` is 65536 or 10000. The value `modulus`
    /// itself reads as 0.
    pub(super) fn counter(&self, now: Ticks, modulus: u64) -> u64 {
        let elapsed = self.elapsed(now);
        match self.mode {
            Mode::RateGenerator => self.count - elapsed % self.count,
            Mode::SquareWave => {
                let phase = elapsed % self.count;
                let half = phase.checked_sub(self.high_clocks()).unwrap_or(phase);
                // It counts by two, from the even number at or below the count.
                (self.count & !1).saturating_sub(2 * half)
            }
            _ => (self.count + modulus - elapsed % modulus) % modulus,
        }
    }

    /// The level of the output.
    pub(super) fn output(&self, now: Ticks) -> bool {
        let elapsed = self.elapsed(now);
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => elapsed >= self.count,
            Mode::RateGenerator => self.count == 1 || elapsed % self.count != self.count - 1,
            Mode::SquareWave => self.count == 1 || elapsed % self.count < self.high_clocks(),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != self.count,
        }
    }

    /// When the output next rises, after `after`. A count of 1 is illegal for the periodic modes
    /// and gives none.
    pub(super) fn next_rise(&self, after: Ticks) -> Option<Ticks> {
        let once = |at: Ticks| (at > after).then_some(at);
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => once(self.start + self.count),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => once(self.start + self.count + 1),
            _ if self.count == 1 => None,
            _ => Some(self.start + (self.elapsed(after) / self.count + 1) * self.count),
        }
    }

    /// When a periodic wave takes over a new count: at the end of the period, and for a square wave
    /// already at the end of the half.
    pub(super) fn next_boundary(&self, now: Ticks) -> Ticks {
        let phase = self.elapsed(now) % self.count;
        let period = self.start.max(now - phase.min(now));
        if self.mode == Mode::SquareWave && phase < self.high_clocks() {
            period + self.high_clocks()
        } else {
            period + self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(mode: u8, count: u64) -> Wave {
        Wave { mode: Mode::from_bits(mode), count, start: 100 }
    }

    /// What the output does in the first clocks, as a string of highs and lows.
    fn shape(wave: Wave, clocks: u64) -> String {
        (100..100 + clocks).map(|now| if wave.output(now) { '-' } else { '_' }).collect()
    }

    #[test]
    fn outputs_have_the_shapes_of_the_data_sheet() {
        assert_eq!(shape(wave(0, 4), 7), "____---");
        assert_eq!(shape(wave(1, 3), 6), "___---");
        assert_eq!(shape(wave(2, 3), 9), "--_--_--_");
        assert_eq!(shape(wave(3, 4), 8), "--__--__");
        assert_eq!(shape(wave(3, 5), 10), "---__---__");
        assert_eq!(shape(wave(4, 3), 6), "---_--");
        assert_eq!(shape(wave(5, 2), 5), "--_--");
    }

    #[test]
    fn counters_hold_what_the_data_sheet_draws() {
        let values = |wave: Wave, clocks: u64| -> Vec<u64> {
            (100..100 + clocks).map(|now| wave.counter(now, 0x1_0000)).collect()
        };
        assert_eq!(values(wave(0, 3), 5), [3, 2, 1, 0, 0xffff]);
        assert_eq!(values(wave(2, 3), 5), [3, 2, 1, 3, 2]);
        assert_eq!(values(wave(3, 4), 6), [4, 2, 4, 2, 4, 2]);
        assert_eq!(values(wave(3, 5), 6), [4, 2, 0, 4, 2, 4]);
        assert_eq!(wave(4, 3).counter(104, 10_000), 9_999);
    }

    #[test]
    fn each_rise_is_where_the_output_goes_from_low_to_high() {
        for mode in 0..6 {
            for count in 1..7 {
                let wave = wave(mode, count);
                let mut expected = (101..150).filter(|&t| wave.output(t) && !wave.output(t - 1));
                let mut after = 100;
                while let Some(rise) = wave.next_rise(after).filter(|&rise| rise < 150) {
                    assert_eq!(Some(rise), expected.next(), "mode {mode}, count {count}");
                    after = rise;
                }
                assert_eq!(expected.next(), None, "mode {mode}, count {count}");
            }
        }
    }

    #[test]
    fn boundaries_are_ends_of_periods_or_halves() {
        assert_eq!(wave(2, 10).next_boundary(105), 110);
        assert_eq!(wave(2, 10).next_boundary(110), 120);
        assert_eq!(wave(3, 10).next_boundary(102), 105);
        assert_eq!(wave(3, 10).next_boundary(107), 110);
        assert_eq!(wave(3, 10).next_boundary(99), 105, "not loaded yet");
    }
}
