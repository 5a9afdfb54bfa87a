//! Ratios of medians with intervals, by resampling.
//!
//! The interval is the percentile bootstrap: draw as many samples with replacement as there are,
//! take the statistic, a thousand times, and cut 2.5 % off both ends. Draws come from a fixed seed,
//! so that one set of files always gives one report.

use super::Estimate;
use super::estimate::{CONFIDENCE, geometric_mean, median_of_sorted, sorted};

const DRAWS: usize = 1000;
const SEED: u64 = 0x5249_4e47_5349_4445;

/// The ratio of the medians of two sets of times. Nothing where either is empty. One sample on both
/// sides gives the ratio with an interval of no width and no confidence.
#[must_use]
pub fn ratio_of_medians(times: &[f64], baseline: &[f64]) -> Option<Estimate> {
    geometric_mean_ratio(&[(times, baseline)])
}

/// The geometric mean over workloads of the ratio of medians. Each pair holds the times under one
/// strategy and under the baseline. Only samples are drawn again, never workloads: the interval says
/// how well these workloads were measured, not what other workloads would show.
#[must_use]
pub fn geometric_mean_ratio(pairs: &[(&[f64], &[f64])]) -> Option<Estimate> {
    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (sorted(a), sorted(b))).collect();
    let value = mean_of_ratios(&pairs, median_of_sorted)?;
    if pairs.iter().all(|(a, b)| a.len() == 1 && b.len() == 1) {
        return Some(Estimate { value, low: value, high: value, confidence: 0.0 });
    }
    let mut random = Random(SEED);
    let mut draws: Vec<f64> =
        (0..DRAWS).filter_map(|_| mean_of_ratios(&pairs, |v| random.median_of(v))).collect();
    draws.sort_by(f64::total_cmp);
    let cut = (draws.len() as f64 * (1.0 - CONFIDENCE) / 2.0) as usize;
    // The statistic of the samples themselves always belongs to the interval.
    let low = draws[cut].min(value);
    let high = draws[draws.len() - 1 - cut].max(value);
    Some(Estimate { value, low, high, confidence: CONFIDENCE })
}

fn mean_of_ratios(
    pairs: &[(Vec<f64>, Vec<f64>)],
    mut median: impl FnMut(&[f64]) -> Option<f64>,
) -> Option<f64> {
    let ratios: Option<Vec<f64>> =
        pairs.iter().map(|(times, baseline)| Some(median(times)? / median(baseline)?)).collect();
    geometric_mean(&ratios?)
}

/// SplitMix64: small, and good enough to draw indices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn median_of(&mut self, values: &[f64]) -> Option<f64> {
        let mut drawn: Vec<f64> =
            (0..values.len()).map(|_| values[self.below(values.len())]).collect();
        drawn.sort_by(f64::total_cmp);
        median_of_sorted(&drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let ratio = ratio_of_medians(&[20.0, 30.0, 10.0], &[4.0, 5.0, 6.0]).unwrap();
        assert_eq!(ratio.value, 4.0);
        assert!(ratio.low >= 10.0 / 6.0 && ratio.low <= 4.0);
        assert!(ratio.high <= 30.0 / 4.0 && ratio.high >= 4.0);
    }

    #[test]
    fn equal_samples_leave_no_doubt() {
        let ratio = ratio_of_medians(&[6.0; 5], &[2.0; 5]).unwrap();
        assert_eq!((ratio.low, ratio.value, ratio.high), (3.0, 3.0, 3.0));
    }

    #[test]
    fn one_sample_each_has_no_confidence() {
        assert_eq!(ratio_of_medians(&[6.0], &[2.0]).unwrap().confidence, 0.0);
        assert_eq!(ratio_of_medians(&[6.0], &[]), None);
        assert_eq!(geometric_mean_ratio(&[]), None);
    }

    #[test]
    fn a_workload_twice_as_fast_cancels_one_twice_as_slow() {
        let (slow, fast, base) = ([2.0; 4], [0.5; 4], [1.0; 4]);
        let mean = geometric_mean_ratio(&[(&slow, &base), (&fast, &base)]).unwrap();
        assert!((mean.value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_samples_give_the_same_interval() {
        let times = [1.0, 1.4, 1.1, 1.2, 0.9, 1.3];
        let base = [2.0, 2.2, 2.1, 1.9, 2.4, 2.3];
        assert_eq!(ratio_of_medians(&times, &base), ratio_of_medians(&times, &base));
    }

    /// Of many experiments whose true ratio is 1, about 95 in 100 intervals must hold it.
    #[test]
    fn intervals_cover_the_truth_about_as_often_as_they_say() {
        let mut random = Random(7);
        let mut draw =
            |n: usize| (0..n).map(|_| 1.0 + random.below(1000) as f64 / 5000.0).collect::<Vec<_>>();
        let covered = (0..200)
            .filter(|_| {
                let ratio = ratio_of_medians(&draw(15), &draw(15)).unwrap();
                ratio.low <= 1.0 && 1.0 <= ratio.high
            })
            .count();
        assert!((175..=200).contains(&covered), "{covered} of 200");
    }
}
