//! A run's folder, read back as a whole.

use super::{
    DETAILS, DetailRow, EXITS, Error, ExitRow, Host, PROBES, ProbeRow, Row, SAMPLES, SUMMARY,
    SampleRow, SummaryRow, read,
};
use crate::strategies::Variant;
use std::path::Path;

/// Strategies and peers in the order in which they are shown; others follow by name.
fn display_rank(name: &str) -> usize {
    let peers = ["qemu-tcg", "qemu-kvm", "native"];
    let strategies = Variant::all().map(Variant::name);
    let known = strategies.chain(peers).position(|known| known == name);
    known.unwrap_or(usize::MAX)
}

/// Everything that a run wrote.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where and with what.
    pub host: Host,
    /// Every measurement.
    pub samples: Vec<SampleRow>,
    /// Why measurements failed.
    pub details: Vec<DetailRow>,
    /// One row for each strategy and workload.
    pub summary: Vec<SummaryRow>,
    /// Exits by kind.
    pub exits: Vec<ExitRow>,
    /// What probes saw.
    pub probes: Vec<ProbeRow>,
}

impl Run {
    /// Reads a run's folder. Only `host.toml` and `samples.csv` must be there: a run that was
    /// interrupted has no summary yet, and is summarised here.
    ///
    /// # Errors
    /// When a file cannot be read, or there are no samples.
    pub fn load(dir: &Path) -> Result<Run, Error> {
        let samples: Vec<SampleRow> = read(&dir.join(SAMPLES))?;
        if samples.is_empty() {
            return Err(Error::Empty { path: dir.join(SAMPLES) });
        }
        let details = read_if_there(&dir.join(DETAILS))?;
        let mut summary = read_if_there(&dir.join(SUMMARY))?;
        if summary.is_empty() {
            summary = crate::stats::summarise(&samples, &details);
        }
        Ok(Run {
            host: Host::load(dir)?,
            summary,
            exits: read_if_there(&dir.join(EXITS))?,
            probes: read_if_there(&dir.join(PROBES))?,
            samples,
            details,
        })
    }

    /// The strategies and peers that were measured, in the order in which they are shown.
    #[must_use]
    pub fn strategies(&self) -> Vec<&str> {
        let measured = self.summary.iter().map(|row| row.strategy.as_str());
        let probed = self.probes.iter().map(|row| row.strategy.as_str());
        let mut names: Vec<&str> = measured.chain(probed).collect();
        names.sort_by_key(|&name| (display_rank(name), name));
        names.dedup();
        names
    }

    /// What stands in tables and plots for a strategy or peer.
    #[must_use]
    pub fn label<'a>(&'a self, strategy: &'a str) -> &'a str {
        self.host.labels.get(strategy).map_or(strategy, String::as_str)
    }

    /// The groups with those of their workloads that were measured. Workloads of no group come last.
    #[must_use]
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let is_measured = |name: &str| self.summary.iter().any(|row| row.workload == name);
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for group in &self.host.groups {
            let workloads = group.workloads.iter().map(String::as_str);
            groups.push((&group.name, workloads.filter(|name| is_measured(name)).collect()));
        }
        let mut rest: Vec<&str> = Vec::new();
        for row in &self.summary {
            let name = row.workload.as_str();
            let known = groups.iter().any(|(_, workloads)| workloads.contains(&name));
            if !known && !rest.contains(&name) {
                rest.push(name);
            }
        }
        groups.push(("other", rest));
        groups.retain(|(_, workloads)| !workloads.is_empty());
        groups
    }

    /// The summary of one strategy and workload.
    #[must_use]
    pub fn summary_of(&self, strategy: &str, workload: &str) -> Option<&SummaryRow> {
        self.summary.iter().find(|row| row.strategy == strategy && row.workload == workload)
    }

    /// Whether the strategy or peer was measured, or tried, with any of the workloads.
    #[must_use]
    pub fn has_any(&self, strategy: &str, workloads: &[&str]) -> bool {
        workloads.iter().any(|workload| self.summary_of(strategy, workload).is_some())
    }

    /// What slowdowns are relative to: the choice in `host.toml`, where it has any time. Else the
    /// first of `native`, `qemu-tcg`, `hardware-assist` and `interpretation` that has a time in every
    /// group, or, where none has, the one that has times in the most groups.
    #[must_use]
    pub fn baseline(&self) -> Option<&str> {
        let chosen = self.host.baseline.as_deref().filter(|name| self.groups_timed(name) > 0);
        let usual = ["native", "qemu-tcg", "hardware-assist", "interpretation"];
        let mut candidates: Vec<&str> = usual.into_iter().chain(self.strategies()).collect();
        candidates.retain(|name| self.groups_timed(name) > 0);
        // `max_by_key` takes the last of equals, and the first is wanted.
        let widest = candidates.into_iter().rev().max_by_key(|name| self.groups_timed(name));
        chosen.or(widest)
    }

    /// In how many groups a strategy or peer has a time.
    fn groups_timed(&self, strategy: &str) -> usize {
        let is_timed = |workload: &&str| {
            let row = self.summary_of(strategy, workload);
            row.is_some_and(|row| row.ns_per_iteration.is_some())
        };
        let groups = self.groups();
        groups.iter().filter(|(_, workloads)| workloads.iter().any(is_timed)).count()
    }
}

fn read_if_there<R: Row>(path: &Path) -> Result<Vec<R>, Error> {
    match read(path) {
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => other,
    }
}
