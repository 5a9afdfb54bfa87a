//! From `samples.csv` to `summary.csv`: one row for each strategy and workload.

use super::{Estimate, median_interval};
use crate::records::{DetailRow, Outcome, SampleRow, SummaryRow};

/// The times of one strategy and workload, in nanoseconds an iteration, by sample number. A sample
/// without a time, or with one that no clock gives, has none here.
#[must_use]
pub fn ns_per_iteration(samples: &[SampleRow], strategy: &str, workload: &str) -> Vec<f64> {
    let mut times: Vec<(u32, f64)> = samples
        .iter()
        .filter(|row| row.strategy == strategy && row.workload == workload)
        .filter_map(|row| Some((row.sample, time(row)?)))
        .collect();
    times.sort_by_key(|&(sample, _)| sample);
    times.into_iter().map(|(_, time)| time).collect()
}

fn time(row: &SampleRow) -> Option<f64> {
    let ns = row.seconds? * 1e9 / row.iterations as f64;
    (row.outcome == Outcome::Ok && ns.is_finite() && ns > 0.0).then_some(ns)
}

/// One row for each strategy and workload, in the order of their first samples.
#[must_use]
pub fn summarise(samples: &[SampleRow], details: &[DetailRow]) -> Vec<SummaryRow> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for row in samples {
        let key = (row.strategy.as_str(), row.workload.as_str());
        if seen.insert(key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| summarise_one(samples, details, key)).collect()
}

fn summarise_one(
    samples: &[SampleRow],
    details: &[DetailRow],
    (strategy, workload): (&str, &str),
) -> SummaryRow {
    let mine = || samples.iter().filter(|r| r.strategy == strategy && r.workload == workload);
    let outcome = mine().map(|row| row.outcome).max_by_key(|&o| gravity(o)).unwrap_or(Outcome::Ok);
    let times = ns_per_iteration(samples, strategy, workload);
    // A time beside a failure would be read as a success: only a clean set of samples has one.
    let estimate = (outcome == Outcome::Ok).then(|| median_interval(&times)).flatten();
    let detail = match (outcome, estimate) {
        (Outcome::Ok, Some(estimate)) => interval_remark(&estimate),
        (Outcome::Ok, None) => "no sample has a time".to_owned(),
        _ => failure(details, mine(), outcome),
    };
    SummaryRow {
        strategy: strategy.to_owned(),
        workload: workload.to_owned(),
        outcome,
        ns_per_iteration: estimate.map(|estimate| estimate.value),
        low: estimate.map(|estimate| estimate.low),
        high: estimate.map(|estimate| estimate.high),
        samples: mine().count() as u32,
        detail,
    }
}

/// Which outcome of several samples speaks for all: a wrong result is worse than none.
fn gravity(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Unsupported => 1,
        Outcome::Timeout => 2,
        Outcome::Crashed => 3,
        Outcome::Wrong => 4,
    }
}

fn interval_remark(estimate: &Estimate) -> String {
    match estimate.confidence {
        confidence if confidence >= super::estimate::CONFIDENCE => String::new(),
        0.0 => "one sample: no interval".to_owned(),
        confidence => format!("interval is the range ({:.0} % confidence)", confidence * 100.0),
    }
}

fn failure<'a>(
    details: &[DetailRow],
    mine: impl Iterator<Item = &'a SampleRow>,
    outcome: Outcome,
) -> String {
    let failed: Vec<&SampleRow> = mine.filter(|row| row.outcome == outcome).collect();
    let explains = |detail: &&DetailRow| {
        failed.iter().any(|row| {
            (&row.strategy, &row.workload, row.sample)
                == (&detail.strategy, &detail.workload, detail.sample)
        })
    };
    details.iter().find(explains).map(|row| row.detail.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sample: u32, seconds: Option<f64>, outcome: Outcome) -> SampleRow {
        SampleRow {
            strategy: "s".into(),
            workload: "w".into(),
            sample,
            iterations: 1000,
            seconds,
            outcome,
        }
    }

    #[test]
    fn good_samples_give_their_median_in_nanoseconds() {
        let samples = [1.0, 3.0, 2.0].map(|s| row(s as u32, Some(s * 1e-6), Outcome::Ok));
        let summary = summarise(&samples, &[]);
        assert_eq!(summary.len(), 1);
        assert!((summary[0].ns_per_iteration.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(summary[0].samples, 3);
        assert_eq!(summary[0].detail, "interval is the range (75 % confidence)");
    }

    #[test]
    fn one_wrong_sample_takes_the_time_away_and_says_why() {
        let samples = [row(0, Some(1.0), Outcome::Ok), row(1, None, Outcome::Wrong)];
        let detail = DetailRow {
            strategy: "s".into(),
            workload: "w".into(),
            sample: 1,
            detail: "checksum 1 instead of 2".into(),
        };
        let summary = &summarise(&samples, &[detail])[0];
        assert_eq!(summary.outcome, Outcome::Wrong);
        assert_eq!(summary.ns_per_iteration, None);
        assert_eq!(summary.detail, "checksum 1 instead of 2");
    }

    #[test]
    fn times_that_no_clock_gives_are_no_times() {
        let mut samples =
            [f64::NAN, -1.0, 0.0, f64::INFINITY, 1.0].map(|s| row(0, Some(s), Outcome::Ok));
        samples[4].iterations = 0;
        assert_eq!(ns_per_iteration(&samples, "s", "w"), []);
        assert_eq!(summarise(&samples, &[])[0].detail, "no sample has a time");
    }

    #[test]
    fn rows_keep_the_order_of_the_samples() {
        let mut samples = vec![row(0, Some(1.0), Outcome::Ok); 3];
        samples[0].strategy = "z".into();
        samples[2].workload = "a".into();
        let summary = summarise(&samples, &[]);
        let order: Vec<_> = summary.iter().map(|r| (&*r.strategy, &*r.workload)).collect();
        assert_eq!(order, [("z", "w"), ("s", "w"), ("s", "a")]);
    }
}
