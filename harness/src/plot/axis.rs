//! A horizontal logarithmic axis.

use super::font;
use super::scene::{Scene, Type};
use super::style::Ink;

/// Where values lie on a horizontal logarithmic axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct LogAxis {
    low: f64,
    high: f64,
    left: f64,
    right: f64,
}

impl LogAxis {
    /// An axis between `left` and `right` that shows all values, with a little room at its ends. At
    /// least a decade wide.
    pub(super) fn fitting(values: impl Iterator<Item = f64>, left: f64, right: f64) -> LogAxis {
        let usable = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = usable
            .map(f64::log10)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let missing = (1.0 - (high - low)).max(0.0) / 2.0;
        let room = 0.04 * (high - low).max(1.0);
        LogAxis { low: low - missing - room, high: high + missing + room, left, right }
    }

    /// Where a value lies, between the ends: an axis may be used upright as well. What the axis does not reach, lies at its end.
    pub(super) fn x(&self, value: f64) -> f64 {
        let part = (value.log10() - self.low) / (self.high - self.low);
        self.left + part.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Values to mark, and whether they get a label: decades, and 2 and 5 between them.
    pub(super) fn ticks(&self) -> Vec<(f64, bool)> {
        let span = self.high - self.low;
        let every = ((span / 12.0).ceil() as i32).max(1);
        let decades = (self.low.floor() as i32)..=(self.high.ceil() as i32);
        let within = |value: &(f64, bool)| (self.low..=self.high).contains(&value.0.log10());
        decades
            .flat_map(|decade| {
                let power = 10f64.powi(decade);
                let labelled = decade.rem_euclid(every) == 0;
                let between = |by: f64| (power * by, span < 2.5);
                [(power, labelled), between(2.0), between(5.0)]
            })
            .filter(|tick| tick.1 || span < 6.0)
            .filter(within)
            .collect()
    }

    /// Draws vertical grid lines from `top` to `bottom`.
    pub(super) fn grid(&self, scene: &mut Scene, top: f64, bottom: f64) {
        for (value, labelled) in self.ticks() {
            let ink = if labelled { Ink::GRID } else { Ink::BAND };
            scene.line((self.x(value), top), (self.x(value), bottom), 0.8, ink);
        }
    }

    /// Writes the labels around `y`.
    pub(super) fn labels(&self, scene: &mut Scene, y: f64, label: impl Fn(f64) -> String) {
        let face = Type::new(10.0).ink(Ink::QUIET).middle();
        let ticks = self.ticks().into_iter().filter(|tick| tick.1);
        let mut marks: Vec<(f64, String)> = ticks.map(|(value, _)| (value, label(value))).collect();
        if self.is_crowded(&marks, face.size) {
            marks.retain(|(value, _)| value.log10().fract().abs() < 1e-9);
        }
        for (value, label) in marks {
            scene.text((self.x(value), y), &label, face);
        }
    }

    /// Whether labels of this size would run into each other.
    fn is_crowded(&self, marks: &[(f64, String)], size: f64) -> bool {
        let half = |label: &str| font::width(label, size, false) / 2.0;
        marks.windows(2).any(|pair| {
            let room = self.x(pair[1].0) - self.x(pair[0].0);
            room < half(&pair[0].1) + half(&pair[1].1) + size
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_proportion_to_their_logarithm() {
        let axis = LogAxis::fitting([1.0, 100.0].into_iter(), 0.0, 108.0);
        assert!((axis.x(10.0) - 54.0).abs() < 1e-9);
        assert!(axis.x(1.0) > 3.0 && axis.x(100.0) < 105.0);
        assert_eq!(axis.x(1e-9), 0.0);
    }

    #[test]
    fn an_axis_without_values_or_with_one_still_has_ticks() {
        for values in [vec![], vec![7.0], vec![f64::NAN, -1.0, 0.0]] {
            let axis = LogAxis::fitting(values.into_iter(), 0.0, 100.0);
            assert!(axis.ticks().iter().filter(|tick| tick.1).count() >= 2);
        }
    }

    #[test]
    fn labels_that_would_run_into_each_other_are_left_out() {
        let drawn = |right: f64| {
            let axis = LogAxis::fitting([1e8, 1e10].into_iter(), 0.0, right);
            let mut scene = Scene::new(right, "");
            axis.labels(&mut scene, 0.0, |value| format!("{value}"));
            scene.text_boxes().len()
        };
        assert_eq!((drawn(200.0), drawn(2000.0)), (3, 7));
    }

    #[test]
    fn a_long_axis_does_not_get_crowded() {
        let axis = LogAxis::fitting([1e-30, 1e30].into_iter(), 0.0, 100.0);
        assert!(axis.ticks().iter().filter(|tick| tick.1).count() <= 13);
    }
}
