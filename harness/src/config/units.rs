//! Sizes and times as people write them: `"64M"`, `"20ms"`.

use serde::de::{Error, Visitor};
use std::time::Duration;

/// Bytes: a whole number, or a string with the unit K, M or G (powers of 1024).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

/// A time: a string with the unit `ms`, `s` or `min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time(pub Duration);

const SIZE_FORM: &str = "a size such as \"64M\"";
const TIME_FORM: &str = "a time such as \"20ms\", \"1.5s\" or \"3min\"";

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, shift) = match text.trim().strip_suffix(['K', 'k']) {
            Some(number) => (number, 10),
            None => match text.trim().strip_suffix(['M', 'm']) {
                Some(number) => (number, 20),
                None => match text.trim().strip_suffix(['G', 'g']) {
                    Some(number) => (number, 30),
                    None => (text.trim(), 0),
                },
            },
        };
        let bytes = number.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
        bytes.map(Size).ok_or_else(|| format!("{text:?} is not {SIZE_FORM}"))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 30) => write!(f, "{}G", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{}M", bytes >> 20),
            bytes if bytes.is_multiple_of(1 << 10) => write!(f, "{}K", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let text = text.trim();
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let seconds = match unit {
            "ms" => Some(1e-3),
            "s" => Some(1.0),
            "min" => Some(60.0),
            _ => None,
        };
        let number = number.trim().parse::<f64>().ok();
        let product = number.zip(seconds).map(|(number, seconds)| number * seconds);
        product
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Time)
            .ok_or_else(|| format!("{text:?} is not {TIME_FORM}"))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.subsec_nanos() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else {
            write!(f, "{}ms", self.0.as_secs_f64() * 1e3)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(SIZE_FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(|_| wrong(text, &self))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                let unexpected = serde::de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map(Size).map_err(|_| E::invalid_value(unexpected, &self))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Time;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(TIME_FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(|_| wrong(text, &self))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

fn wrong<E: Error>(text: &str, form: &dyn serde::de::Expected) -> E {
    E::invalid_value(serde::de::Unexpected::Str(text), form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("4096", 4096), ("64K", 65536), ("64M", 64 << 20), ("3G", 3 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in ["", "M", "-1", "1.5G", "64MB", "99999999999G"] {
            assert!(text.parse::<Size>().is_err(), "{text:?} was taken for a size");
        }
    }

    #[test]
    fn times_are_read_and_shown() {
        for (text, ms) in [("20ms", 20), ("1.5s", 1500), ("3min", 180_000), ("0s", 0)] {
            let time = Time(Duration::from_millis(ms));
            assert_eq!(text.parse(), Ok(time));
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["", "5", "ms", "-1s", "1h", "NaNs", "infs", "1e999s"] {
            assert!(text.parse::<Time>().is_err(), "{text:?} was taken for a time");
        }
    }
}
