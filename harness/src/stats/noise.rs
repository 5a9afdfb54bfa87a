//! How far a run differs from itself.
//!
//! Even and odd samples of one strategy and workload are two experiments on the same thing, taken
//! in turns (A/A). Their medians differ only by noise, so no smaller difference between two
//! strategies means anything.

use super::{median, ns_per_iteration};
use crate::records::{Outcome, SampleRow, SummaryRow};

/// The noise of one strategy or peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Noise {
    /// Which one.
    pub strategy: String,
    /// Workloads that have four samples or more, so that both halves have a median.
    pub workloads: usize,
    /// The median over workloads of |A/A − 1|.
    pub typical: f64,
    /// The largest.
    pub worst: f64,
    /// The workload that showed the largest.
    pub worst_workload: String,
}

/// The noise by strategy. Strategies with too few samples are left out.
#[must_use]
pub fn noise(samples: &[SampleRow], summary: &[SummaryRow], strategies: &[&str]) -> Vec<Noise> {
    strategies.iter().filter_map(|strategy| noise_of(samples, summary, strategy)).collect()
}

fn noise_of(samples: &[SampleRow], summary: &[SummaryRow], strategy: &str) -> Option<Noise> {
    let mut differences: Vec<(f64, &str)> = summary
        .iter()
        .filter(|row| row.strategy == strategy && row.outcome == Outcome::Ok)
        .filter_map(|row| {
            let times = ns_per_iteration(samples, strategy, &row.workload);
            Some((difference_of_halves(&times)?, row.workload.as_str()))
        })
        .collect();
    differences.sort_by(|a, b| a.0.total_cmp(&b.0));
    let values: Vec<f64> = differences.iter().map(|&(value, _)| value).collect();
    let &(worst, workload) = differences.last()?;
    Some(Noise {
        strategy: strategy.to_owned(),
        workloads: values.len(),
        typical: median(&values)?,
        worst,
        worst_workload: workload.to_owned(),
    })
}

fn difference_of_halves(times: &[f64]) -> Option<f64> {
    if times.len() < 4 {
        return None;
    }
    let half = |start: usize| times.iter().copied().skip(start).step_by(2).collect::<Vec<_>>();
    Some((median(&half(0))? / median(&half(1))? - 1.0).abs())
}

#[cfg(test)]
mod tests {
    use super::super::summarise;
    use super::*;

    fn samples(workload: &str, times: &[f64]) -> Vec<SampleRow> {
        let row = |(sample, &seconds): (usize, &f64)| SampleRow {
            strategy: "s".into(),
            workload: workload.into(),
            sample: sample as u32,
            iterations: 1,
            seconds: Some(seconds),
            outcome: Outcome::Ok,
        };
        times.iter().enumerate().map(row).collect()
    }

    #[test]
    fn the_halves_are_the_even_and_the_odd_samples() {
        let mut all = samples("loud", &[1.1, 1.0, 1.1, 1.0]);
        all.extend(samples("still", &[1.0; 6]));
        all.extend(samples("short", &[1.0, 9.0]));
        let noise = &noise(&all, &summarise(&all, &[]), &["s", "absent"]);
        assert_eq!(noise.len(), 1);
        assert_eq!((noise[0].workloads, &*noise[0].worst_workload), (2, "loud"));
        assert!((noise[0].worst - 0.1).abs() < 1e-9);
        assert!((noise[0].typical - 0.05).abs() < 1e-9);
    }
}
