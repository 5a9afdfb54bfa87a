//! Dates, and how the MC146818 writes them: BCD or binary, 12 or 24 hours.

/// A moment as the clock's registers show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Civil {
    pub(super) year: i64,
    pub(super) month: u8,
    pub(super) day: u8,
    /// 1 is Sunday.
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

const DAY: i64 = 86_400;
/// Days in 400 years, after which the Gregorian calendar repeats.
const CYCLE: i64 = 146_097;
/// Days from 1 March 0000 to 1 January 1970.
const EPOCH: i64 = 719_468;

impl Civil {
    /// The moment so many seconds after 1970.
    pub(super) fn from_seconds(seconds: i64) -> Civil {
        let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years that begin in March put the leap day at their end.
        let (cycle, of_cycle) =
            ((days + EPOCH).div_euclid(CYCLE), (days + EPOCH).rem_euclid(CYCLE));
        let leap_days = of_cycle / 1_460 - of_cycle / 36_524 + of_cycle / 146_096;
        let year_of_cycle = (of_cycle - leap_days) / 365;
        let of_year = of_cycle - days_before_year(year_of_cycle);
        // Months from March have lengths 31, 30, 31, 30, 31, repeated.
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Civil {
            year: cycle * 400 + year_of_cycle + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - days_before_month(march_month) + 1) as u8,
            // 1970 began on a Thursday.
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            hour: (of_day / 3_600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Seconds since 1970. Fields out of range count as the nearest that is in it.
    pub(super) fn seconds(&self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let (year, march_month) =
            if month <= 2 { (self.year - 1, month + 9) } else { (self.year, month - 3) };
        let days = year.div_euclid(400) * CYCLE
            + days_before_year(year.rem_euclid(400))
            + days_before_month(march_month)
            + i64::from(self.day.clamp(1, 31))
            - 1
            - EPOCH;
        let minutes = i64::from(self.hour.min(23)) * 60 + i64::from(self.minute.min(59));
        days * DAY + minutes * 60 + i64::from(self.second.min(59))
    }
}

fn days_before_year(year_of_cycle: i64) -> i64 {
    365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100
}

fn days_before_month(march_month: i64) -> i64 {
    (153 * march_month + 2) / 5
}

/// How register B says that numbers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub(super) binary: bool,
    pub(super) hours_24: bool,
}

const AFTERNOON: u8 = 0x80;

impl Format {
    pub(super) fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { ((value / 10) << 4) | (value % 10) }
    }

    pub(super) fn decode(self, value: u8) -> u8 {
        if self.binary { value } else { (value >> 4) * 10 + (value & 15) }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { AFTERNOON } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    pub(super) fn decode_hour(self, value: u8) -> u8 {
        if self.hours_24 {
            return self.decode(value);
        }
        let afternoon = if value & AFTERNOON != 0 { 12 } else { 0 };
        self.decode(value & !AFTERNOON) % 12 + afternoon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: i64) -> (i64, u8, u8, u8) {
        let civil = Civil::from_seconds(seconds);
        (civil.year, civil.month, civil.day, civil.weekday)
    }

    #[test]
    fn known_days_are_right() {
        assert_eq!(date(0), (1970, 1, 1, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(951_868_800), (2000, 3, 1, 4));
        assert_eq!(date(-2_203_977_600), (1900, 2, 28, 4));
        assert_eq!(date(-2_203_891_200), (1900, 3, 1, 5), "1900 was no leap year");
        assert_eq!(date(1_767_225_600), (2026, 1, 1, 5));
    }

    #[test]
    fn seconds_and_dates_are_inverses() {
        for seconds in (-70_000_000_000..=260_000_000_000).step_by(86_399 * 97) {
            assert_eq!(Civil::from_seconds(seconds).seconds(), seconds);
        }
    }

    #[test]
    fn nonsense_is_moved_into_range() {
        let nonsense =
            Civil { year: 2000, month: 0, day: 0, weekday: 9, hour: 99, minute: 77, second: 66 };
        let civil = Civil::from_seconds(nonsense.seconds());
        assert_eq!((civil.month, civil.day, civil.hour, civil.minute), (1, 1, 23, 59));
    }

    #[test]
    fn every_hour_survives_every_format() {
        for (binary, hours_24) in [(false, false), (false, true), (true, false), (true, true)] {
            let format = Format { binary, hours_24 };
            for hour in 0..24 {
                assert_eq!(format.decode_hour(format.encode_hour(hour)), hour);
            }
        }
        let twelve = Format { binary: false, hours_24: false };
        assert_eq!([0, 11, 12, 23].map(|hour| twelve.encode_hour(hour)), [0x12, 0x11, 0x92, 0x91]);
    }
}
