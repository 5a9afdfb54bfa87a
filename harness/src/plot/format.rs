//! Numbers as people read them: three significant digits and a unit.

/// A time given in nanoseconds.
#[must_use]
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        size if size < 999.5 => (ns, "ns"),
        size if size < 999.5e3 => (ns / 1e3, "µs"),
        size if size < 999.5e6 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// How many times as large something is.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

/// A part of one, in percent.
#[must_use]
pub fn percent(part: f64) -> String {
    format!("{} %", if part < 1e-5 { "0".to_owned() } else { digits(part * 100.0) })
}

/// How many, perhaps as a mean.
#[must_use]
pub fn count(count: f64) -> String {
    match count.abs() {
        size if size < 999.5 => digits(count),
        size if size < 999.5e3 => format!("{} k", digits(count / 1e3)),
        size if size < 999.5e6 => format!("{} M", digits(count / 1e6)),
        _ => format!("{} G", digits(count / 1e9)),
    }
}

/// Three significant digits; whole numbers below a thousand as they are.
#[must_use]
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size >= 1e6 || (size > 0.0 && size < 1e-3) {
        return format!("{value:.2e}");
    }
    if value.fract() == 0.0 || size >= 99.95 {
        return format!("{value:.0}");
    }
    match size {
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A time at the mark of an axis: a round number, without superfluous digits.
pub(super) fn time_mark(ns: f64) -> String {
    let (unit, name) = match ns {
        ns if ns < 999.5 => (1.0, "ns"),
        ns if ns < 999.5e3 => (1e3, "µs"),
        ns if ns < 999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {name}", mark(ns / unit))
}

/// A ratio at the mark of an axis.
pub(super) fn ratio_mark(ratio: f64) -> String {
    format!("{}×", mark(ratio))
}

/// Powers of ten where plain digits would be long.
fn mark(value: f64) -> String {
    if (0.9e-2..1e5).contains(&value) {
        return format!("{}", (value * 1e6).round() / 1e6);
    }
    let exponent = value.log10().floor();
    let factor = (value / 10f64.powf(exponent)).round();
    let power = format!("10{}", superscript(exponent as i32));
    if factor > 1.0 { format!("{factor}·{power}") } else { power }
}

fn superscript(number: i32) -> String {
    let raise = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32(0x2070 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
    };
    number.to_string().chars().map(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_the_unit_that_fits() {
        assert_eq!(time(0.934), "0.934 ns");
        assert_eq!(time(12.34), "12.3 ns");
        assert_eq!(time(999.7), "1.00 µs");
        assert_eq!(time(1_234_567.0), "1.23 ms");
        assert_eq!(time(2.5e9), "2.50 s");
        assert_eq!(ratio(9.999), "10.0×");
        assert_eq!(ratio(1.0), "1×");
        assert_eq!(count(0.0), "0");
        assert_eq!(count(22_000.0), "22 k");
        assert_eq!(percent(0.0123), "1.23 %");
        assert_eq!(digits(2.0e-5), "2.00e-5");
        assert_eq!(digits(f64::NAN), "NaN");
    }

    #[test]
    fn marks_of_an_axis_have_no_superfluous_digits() {
        assert_eq!(ratio_mark(0.1), "0.1×");
        assert_eq!(ratio_mark(10f64.powi(-2) * 5.0), "0.05×");
        assert_eq!(ratio_mark(1e7), "10⁷×");
        assert_eq!(ratio_mark(5e-12), "5·10⁻¹²×");
        assert_eq!(time_mark(2e4), "20 µs");
        assert_eq!(time_mark(1e12), "1000 s");
    }
}
