//! Every strategy against the baseline, by group: what the slowdown plot and the tables show.

use super::{Estimate, geometric_mean_ratio, ns_per_iteration, ratio_of_medians};
use crate::records::{Outcome, Run};
use std::collections::HashMap;

/// Every strategy against the baseline.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// What the ratios are relative to.
    pub baseline: String,
    /// By group, in the order in which they are shown.
    pub groups: Vec<GroupComparison>,
}

/// Every strategy against the baseline in one group.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupComparison {
    /// The group.
    pub name: String,
    /// Its workloads that were measured.
    pub workloads: Vec<String>,
    /// All strategies but the baseline.
    pub strategies: Vec<StrategyComparison>,
}

/// One strategy against the baseline in one group.
#[derive(Clone, PartialEq, Debug)]
pub struct StrategyComparison {
    /// The strategy or peer.
    pub strategy: String,
    /// The slowdown in each workload that both finished with the right result.
    pub ratios: Vec<(String, Estimate)>,
    /// The geometric mean of the ratios.
    pub mean: Option<Estimate>,
}

impl Comparison {
    /// Compares, or nothing where no strategy has any time.
    #[must_use]
    pub fn new(run: &Run) -> Option<Comparison> {
        run.baseline().map(|baseline| Comparison::against(run, baseline))
    }

    /// Compares with a baseline of the caller's choice.
    #[must_use]
    pub fn against(run: &Run, baseline: &str) -> Comparison {
        let times = Times::new(run);
        let groups = run.groups();
        let compare_group = |(name, workloads): (&str, Vec<&str>)| GroupComparison {
            name: name.to_owned(),
            strategies: run
                .strategies()
                .into_iter()
                .filter(|&strategy| strategy != baseline && run.has_any(strategy, &workloads))
                .map(|strategy| times.compare(strategy, baseline, &workloads))
                .collect(),
            workloads: workloads.into_iter().map(str::to_owned).collect(),
        };
        let groups = groups.into_iter().map(compare_group).collect();
        Comparison { baseline: baseline.to_owned(), groups }
    }

    /// The slowdown of one strategy in one workload.
    #[must_use]
    pub fn ratio(&self, strategy: &str, workload: &str) -> Option<Estimate> {
        let rows = self.groups.iter().flat_map(|group| &group.strategies);
        rows.filter(|row| row.strategy == strategy)
            .flat_map(|row| &row.ratios)
            .find_map(|(name, ratio)| (name == workload).then_some(*ratio))
    }
}

/// The times of all strategies and workloads whose result was right.
struct Times<'a>(HashMap<(&'a str, &'a str), Vec<f64>>);

impl<'a> Times<'a> {
    fn new(run: &'a Run) -> Times<'a> {
        let good = run.summary.iter().filter(|row| row.outcome == Outcome::Ok);
        let times = good.map(|row| {
            let (strategy, workload) = (row.strategy.as_str(), row.workload.as_str());
            ((strategy, workload), ns_per_iteration(&run.samples, strategy, workload))
        });
        Times(times.filter(|(_, times)| !times.is_empty()).collect())
    }

    fn compare(&self, strategy: &str, baseline: &str, workloads: &[&str]) -> StrategyComparison {
        let pairs = workloads.iter().filter_map(|&workload| {
            let mine = self.0.get(&(strategy, workload))?;
            let base = self.0.get(&(baseline, workload))?;
            Some((workload, (mine.as_slice(), base.as_slice())))
        });
        let (names, pairs): (Vec<&str>, Vec<_>) = pairs.unzip();
        let ratios = names.iter().zip(&pairs).filter_map(|(name, (mine, base))| {
            Some(((*name).to_owned(), ratio_of_medians(mine, base)?))
        });
        StrategyComparison {
            strategy: strategy.to_owned(),
            ratios: ratios.collect(),
            mean: geometric_mean_ratio(&pairs),
        }
    }
}
