//! Results on their way to the files, each written when it is there; and what an interrupted run
//! already has.

use crate::guest::{Report, Verdict};
use crate::records::{
    Appender, DETAILS, DetailRow, EXITS, Error, ExitRow, Outcome, PROBES, ProbeRow, Row, SAMPLES,
    SampleRow, read, write,
};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A row of the tables: the name of a target and of a workload.
pub(super) type Pair = (String, String);

/// What a run already has of one pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    /// How many samples.
    pub samples: u32,
    /// The iterations of the last.
    pub iterations: u32,
    /// Whether all of them were ok; if not, no more are taken.
    pub ok: bool,
}

/// The files that results go to.
pub(super) struct Recorder {
    samples: Appender<SampleRow>,
    details: Appender<DetailRow>,
    exits: Appender<ExitRow>,
    probes: Appender<ProbeRow>,
    done: HashMap<Pair, Done>,
}

impl Recorder {
    /// Opens the files in `folder`, with what an interrupted run left there.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Recorder> {
        let samples = Appender::open(&folder.join(SAMPLES))?;
        let done = done(&read(&folder.join(SAMPLES))?);
        // Exits and probes are written before a pair's first sample: an interruption in between
        // leaves some that will come again.
        let kept: HashSet<&Pair> = done.keys().collect();
        let of = |strategy: &str, workload: &str| {
            kept.contains(&(strategy.to_owned(), workload.to_owned()))
        };
        prune(&folder.join(EXITS), |row: &ExitRow| of(&row.strategy, &row.workload))?;
        prune(&folder.join(PROBES), |row: &ProbeRow| of(&row.strategy, &row.workload))?;
        prune(&folder.join(DETAILS), |row: &DetailRow| of(&row.strategy, &row.workload))?;
        Ok(Recorder {
            samples,
            details: Appender::open(&folder.join(DETAILS))?,
            exits: Appender::open(&folder.join(EXITS))?,
            probes: Appender::open(&folder.join(PROBES))?,
            done,
        })
    }

    /// What there already is of a pair.
    pub(super) fn done(&self, pair: &Pair) -> Option<Done> {
        self.done.get(pair).copied()
    }

    /// A sample, with the reason if it is not ok.
    pub(super) fn sample(
        &mut self,
        (strategy, workload): &Pair,
        sample: u32,
        iterations: u32,
        verdict: &Verdict,
    ) -> Result<(), Error> {
        if verdict.outcome != Outcome::Ok {
            self.details.append(&DetailRow {
                strategy: strategy.clone(),
                workload: workload.clone(),
                sample,
                detail: verdict.detail.clone(),
            })?;
        }
        self.samples.append(&SampleRow {
            strategy: strategy.clone(),
            workload: workload.clone(),
            sample,
            iterations: u64::from(iterations),
            seconds: verdict.seconds,
            outcome: verdict.outcome,
        })
    }

    /// What the probes of a run saw.
    pub(super) fn probes(
        &mut self,
        (strategy, workload): &Pair,
        report: &Report,
    ) -> Result<(), Error> {
        report.probe_rows(strategy, workload).iter().try_for_each(|row| self.probes.append(row))
    }

    /// The exits of the measured part of `report`, a run of `iterations` iterations: what it has
    /// more than `single`, a run of one iteration, which did everything else as well.
    pub(super) fn exits(
        &mut self,
        (strategy, workload): &Pair,
        report: &Report,
        iterations: u32,
        single: &Report,
    ) -> Result<(), Error> {
        for (kind, _) in &report.exits {
            let per_iteration = exits_per_iteration(report, iterations, single, kind);
            if per_iteration > 0.0 {
                self.exits.append(&ExitRow {
                    strategy: strategy.clone(),
                    workload: workload.clone(),
                    kind: kind.clone(),
                    count: (per_iteration * f64::from(iterations)).round() as u64,
                    per_iteration,
                })?;
            }
        }
        Ok(())
    }
}

/// Exits of a kind in one iteration. Where there is only one, the whole run counts as it.
fn exits_per_iteration(report: &Report, iterations: u32, single: &Report, kind: &str) -> f64 {
    let count = report.exits_of(kind);
    match iterations {
        0 | 1 => count as f64,
        _ => count.saturating_sub(single.exits_of(kind)) as f64 / f64::from(iterations - 1),
    }
}

fn done(samples: &[SampleRow]) -> HashMap<Pair, Done> {
    let mut done = HashMap::new();
    for row in samples {
        let pair = (row.strategy.clone(), row.workload.clone());
        let entry = done.entry(pair).or_insert(Done { samples: 0, iterations: 1, ok: true });
        entry.samples += 1;
        entry.iterations = u32::try_from(row.iterations).unwrap_or(u32::MAX);
        entry.ok &= row.outcome == Outcome::Ok;
    }
    done
}

/// Leaves only the rows of which `keep` is true in a file, if there is one.
fn prune<R: Row>(path: &Path, keep: impl Fn(&R) -> bool) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    let rows: Vec<R> = read(path)?;
    let kept: Vec<R> = rows.into_iter().filter(|row| keep(row)).collect();
    write(path, &kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{End, ProbeReport};

    fn pair() -> Pair {
        ("interpretation".to_owned(), "in".to_owned())
    }

    fn report(port_io: u64) -> Report {
        let probe = ProbeReport { name: "ring0".to_owned(), difference: None };
        Report {
            exits: vec![("port-io".to_owned(), port_io)],
            probes: vec![probe],
            ..Report::only(End::Exit(0))
        }
    }

    fn ok() -> Verdict {
        Verdict { outcome: Outcome::Ok, seconds: Some(0.02), detail: String::new() }
    }

    #[test]
    fn exits_are_those_of_the_iterations_only() {
        assert_eq!(exits_per_iteration(&report(1031), 1001, &report(31), "port-io"), 1.0);
        assert_eq!(exits_per_iteration(&report(5), 1, &report(5), "port-io"), 5.0);
        assert_eq!(exits_per_iteration(&report(5), 10, &report(9), "port-io"), 0.0);
    }

    #[test]
    fn an_interrupted_run_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Recorder::open(folder.path()).unwrap();
        first.probes(&pair(), &report(1)).unwrap();
        first.exits(&pair(), &report(2001), 1001, &report(1)).unwrap();
        first.sample(&pair(), 0, 1001, &ok()).unwrap();
        first.sample(&pair(), 1, 1001, &ok()).unwrap();
        let torn = ("interpretation".to_owned(), "sieve".to_owned());
        first.probes(&torn, &report(1)).unwrap();
        drop(first);

        let again = Recorder::open(folder.path()).unwrap();
        assert_eq!(again.done(&pair()), Some(Done { samples: 2, iterations: 1001, ok: true }));
        assert_eq!(again.done(&torn), None);
        let probes: Vec<ProbeRow> = read(&folder.path().join(PROBES)).unwrap();
        assert_eq!(probes.len(), 1);
        let exits: Vec<ExitRow> = read(&folder.path().join(EXITS)).unwrap();
        assert_eq!(exits[0].per_iteration, 2.0);
    }
}
