//! Medians, their confidence intervals, and geometric means.

/// A value with the interval that it lies in, at the confidence that the interval has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The value itself.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The probability that such an interval holds the true value. 0.95 or more where there are
    /// enough samples for that, else what the whole range of the samples gives.
    pub confidence: f64,
}

impl Estimate {
    /// Half of the interval's width, relative to the value.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.value
    }
}

/// The confidence that intervals have where there are enough samples.
pub(super) const CONFIDENCE: f64 = 0.95;

/// The middle value, or the mean of the two middle ones. Nothing for no values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    median_of_sorted(&sorted(values))
}

/// The median with a confidence interval from order statistics.
///
/// How many of n samples fall below the true median follows the binomial distribution with p = ½,
/// whatever the samples' own distribution. So the interval from the k-th smallest to the k-th
/// largest sample misses the median with probability 2·P(B < k). The largest k that keeps this at
/// 5 % or less is taken. Five samples or fewer cannot reach 95 %: then the whole range is given, with
/// the confidence that it has (two samples 50 %, five samples 93.75 %, one sample none).
#[must_use]
pub fn median_interval(values: &[f64]) -> Option<Estimate> {
    let values = sorted(values);
    let value = median_of_sorted(&values)?;
    let (skipped, confidence) = order_statistic(values.len());
    let (low, high) = (values[skipped], values[values.len() - 1 - skipped]);
    Some(Estimate { value, low, high, confidence })
}

/// How many samples to leave out at each end of `count` sorted ones, and the confidence of what
/// remains.
fn order_statistic(count: usize) -> (usize, f64) {
    // P(B = 0) = 2^-n; underflows harmlessly to 0 past a thousand samples.
    let mut probability = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut missed = 2.0 * probability;
    let mut best = (0, (1.0 - missed).max(0.0));
    for below in 1..count.div_ceil(2) {
        probability *= (count - below + 1) as f64 / below as f64;
        missed += 2.0 * probability;
        if missed > 1.0 - CONFIDENCE {
            break;
        }
        best = (below, 1.0 - missed);
    }
    best
}

/// The geometric mean of positive values. Nothing for none.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if let [only] = values {
        return Some(*only);
    }
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logarithms / values.len() as f64).exp())
}

pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

pub(super) fn median_of_sorted(values: &[f64]) -> Option<f64> {
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) {
        f64::midpoint(values[values.len() / 2 - 1], upper)
    } else {
        upper
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn few_samples_give_their_range_and_its_confidence() {
        let two = median_interval(&[2.0, 1.0]).unwrap();
        assert_eq!((two.low, two.high, two.confidence), (1.0, 2.0, 0.5));
        let five = median_interval(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!((five.low, five.value, five.high, five.confidence), (1.0, 3.0, 5.0, 0.9375));
        let one = median_interval(&[7.0]).unwrap();
        assert_eq!((one.low, one.high, one.confidence), (7.0, 7.0, 0.0));
    }

    /// The table in Conover, Practical Nonparametric Statistics: for 10 samples the 2nd and the 9th
    /// (97.85 %), for 20 the 6th and the 15th (95.86 %).
    #[test]
    fn intervals_are_those_of_the_binomial_table() {
        let values = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        let six = median_interval(&values(6)).unwrap();
        assert_eq!((six.low, six.high, six.confidence), (1.0, 6.0, 0.96875));
        let ten = median_interval(&values(10)).unwrap();
        assert_eq!((ten.low, ten.high), (2.0, 9.0));
        assert!(close(ten.confidence, 1.0 - 22.0 / 1024.0));
        let twenty = median_interval(&values(20)).unwrap();
        assert_eq!((twenty.low, twenty.high), (6.0, 15.0));
        assert!((twenty.confidence - 0.9586).abs() < 1e-4);
    }

    #[test]
    fn many_samples_do_not_overflow() {
        let values: Vec<f64> = (0..5000).map(f64::from).collect();
        let estimate = median_interval(&values).unwrap();
        assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
        assert!(estimate.confidence <= 1.0);
    }

    #[test]
    fn the_geometric_mean_of_reciprocals_is_one() {
        assert!(close(geometric_mean(&[4.0, 0.25, 3.0, 1.0 / 3.0]).unwrap(), 1.0));
        assert!(close(geometric_mean(&[2.0, 8.0]).unwrap(), 4.0));
        assert_eq!(geometric_mean(&[]), None);
    }
}
