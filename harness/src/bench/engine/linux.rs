//! The workloads of the group `linux`: one boot does all of them, so each run is a sample of each.
//!
//! A boot takes seconds to minutes, so nothing is calibrated, an iteration is the whole item, and a
//! guest has five minutes whatever the experiment says.

use super::{Engine, Pair};
use crate::config::Target;
use crate::guest::{End, ItemReport, Job, LinuxBoot, Report, Verdict};
use crate::records::Outcome;
use crate::{strategies, worker};
use std::time::{Duration, Instant};
use strategy::{StrategyId, Support};
use workloads::Workload;
use workloads::linux::{self, Installed, Part};

/// How long one guest may run.
const TIMEOUT: Duration = Duration::from_secs(300);
/// As well, under a strategy that can tell where a guest left the architecture: such guests run
/// natively, and one that is lost hangs.
const NATIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// One target with its rows of the tables.
struct Runner {
    target: Target,
    rows: Vec<Row>,
}

struct Row {
    part: Part,
    pair: Pair,
    /// Samples that there are.
    taken: u32,
    /// Whether more may be taken.
    open: bool,
    /// Seconds of the samples taken now.
    times: Vec<f64>,
}

impl Engine<'_> {
    /// Measures those workloads of the experiment that are parts of a Linux guest.
    pub(super) fn measure_linux(&mut self) -> anyhow::Result<()> {
        let is_part = |workload: &&Workload| linux::part(workload).is_some();
        let workloads: Vec<Workload> =
            self.experiment.workloads.iter().filter(is_part).copied().collect();
        let Some(first) = workloads.first() else { return Ok(()) };
        let installed = Installed::find();
        let mut runners = self.runners(&workloads);
        for round in 0..self.experiment.samples {
            let late = self.experiment.budget.is_some_and(|budget| self.begin.elapsed() > budget);
            if (late && round > 0) || self.stop.is_raised() {
                break;
            }
            for runner in runners.iter_mut().filter(|runner| runner.wants(round)) {
                self.progress.at("linux", runner.target.name());
                let report = match self.reason_not_to_run(runner.target, &installed) {
                    Some(why) => Report::only(End::Unsupported(why)),
                    None => self.boot(first, runner, &installed)?,
                };
                if !self.stop.is_raised() {
                    self.record(runner, round, &report)?;
                }
            }
        }
        for workload in &workloads {
            let rows = runners.iter().flat_map(|runner| &runner.rows);
            let times = rows.filter(|row| row.pair.1 == workload.name).filter_map(|row| {
                Some((row.pair.0.as_str(), crate::stats::median(&row.times)? * 1e9))
            });
            self.progress.done(workload.name, times);
        }
        Ok(())
    }

    fn runners(&self, workloads: &[Workload]) -> Vec<Runner> {
        let row = |target: Target, workload: &Workload| {
            let pair = (target.name().to_owned(), workload.name.to_owned());
            let done = self.recorder.done(&pair);
            Some(Row {
                part: linux::part(workload)?,
                taken: done.map_or(0, |done| done.samples),
                open: done.is_none_or(|done| done.ok),
                pair,
                times: Vec::new(),
            })
        };
        let runner = |target: Target| Runner {
            target,
            rows: workloads.iter().filter_map(|workload| row(target, workload)).collect(),
        };
        let targets = self.targets.iter().map(|&(target, _)| target);
        targets.filter(|target| target.runs(&workloads[0])).map(runner).collect()
    }

    fn reason_not_to_run(
        &self,
        target: Target,
        installed: &Result<Installed, String>,
    ) -> Option<String> {
        let support = self.targets.iter().find(|(each, _)| *each == target);
        match (installed, support) {
            (Err(why), _) | (_, Some((_, Support::Missing(why)))) => Some(why.clone()),
            _ => None,
        }
    }

    /// Boots the guest for what is still open.
    fn boot(
        &mut self,
        workload: &Workload,
        runner: &Runner,
        installed: &Result<Installed, String>,
    ) -> anyhow::Result<Report> {
        let installed = installed.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
        let append = linux::command_line(&runner.items());
        let job = Job {
            workload,
            iterations: 1,
            image: &installed.kernel,
            disk: None,
            linux: Some(LinuxBoot { initrd: &installed.initrd, append: &append }),
            memory_bytes: workload.memory_bytes,
            cpu: self.experiment.cpu,
            timeout: timeout(runner.target),
            sandbox: self.sandbox,
        };
        let begin = Instant::now();
        let mut report = match runner.target {
            Target::Strategy(variant) if self.is_beside_the_reference(runner.target) => {
                let sentence = worker::lockstep(variant, &job, self.stop)?;
                Report::only(sentence.map_or(End::Timeout, End::Late))
            }
            Target::Strategy(variant) => worker::start(variant, &job, self.stop)?,
            Target::Peer(id) => id.run(&job, self.stop)?,
        };
        tracing::debug!(target: "bench", "{} linux: {report:?} in {:?}", runner.target.name(), begin.elapsed());
        if let (Target::Strategy(variant), None) = (runner.target, report.first)
            && !matches!(report.end, End::Unsupported(_))
            && strategies::can_watch(variant)
            && let Some(sentence) =
                worker::watch(variant, &Job { timeout: TIMEOUT, ..job }, self.stop)?
        {
            let verdict = report.verdict(0);
            report.end = End::Died(format!("{sentence}; {}", verdict.detail));
        }
        Ok(report)
    }

    /// Whether the strategy's substitute for hardware is far too slow to come to the end: then it is
    /// of more use to know whether it goes the right way.
    fn is_beside_the_reference(&self, target: Target) -> bool {
        let is_qualified = |support: &Support| matches!(support, Support::Qualified(_));
        target == Target::Strategy(StrategyId::HardwareAssist.into())
            && self.targets.iter().any(|(each, support)| *each == target && is_qualified(support))
    }

    fn record(&mut self, runner: &mut Runner, round: u32, report: &Report) -> anyhow::Result<()> {
        for row in runner.rows.iter_mut().filter(|row| row.wants(round)) {
            let verdict = verdict(report, row.part);
            self.recorder.sample(&row.pair, row.taken, 1, &verdict)?;
            row.taken += 1;
            match verdict.seconds {
                Some(seconds) => row.times.push(seconds),
                None => {
                    row.open = false;
                    self.progress.failed(&row.pair, &verdict);
                }
            }
        }
        Ok(())
    }
}

impl Runner {
    fn wants(&self, round: u32) -> bool {
        self.rows.iter().any(|row| row.wants(round))
    }

    /// What the guest has to do: all items if the whole list is measured.
    fn items(&self) -> Vec<&'static str> {
        let list = self.rows.iter().any(|row| row.part == Part::List);
        let asked = |item: &'static str| {
            let is_item = |row: &Row| matches!(row.part, Part::Item { name, .. } if name == item);
            list || self.rows.iter().any(is_item)
        };
        linux::items().map(|(name, _)| name).filter(|name| asked(name)).collect()
    }
}

impl Row {
    fn wants(&self, round: u32) -> bool {
        self.open && self.taken <= round
    }
}

fn timeout(target: Target) -> Duration {
    match target {
        Target::Strategy(variant) if strategies::can_watch(variant) => NATIVE_TIMEOUT,
        _ => TIMEOUT,
    }
}

/// What a run says about one part of it.
fn verdict(report: &Report, part: Part) -> Verdict {
    match part {
        Part::Boot => report.first.map_or_else(|| missing(report), right),
        Part::Item { name, checksum } => item(report, name, checksum),
        Part::List => {
            let verdicts = linux::items().map(|(name, checksum)| item(report, name, checksum));
            verdicts.reduce(sum).unwrap_or_else(|| missing(report))
        }
    }
}

fn item(report: &Report, name: &str, checksum: u32) -> Verdict {
    match report.items.iter().find(|item| item.name == name) {
        Some(&ItemReport { seconds: Some(seconds), checksum: Some(seen), .. })
            if seen == checksum =>
        {
            right(seconds)
        }
        Some(&ItemReport { checksum: Some(seen), .. }) => Verdict {
            outcome: Outcome::Wrong,
            seconds: None,
            detail: format!("checksum {seen:08x}, expected {checksum:08x}"),
        },
        _ => missing(report),
    }
}

/// The time of two items together; of what is not right, the first.
fn sum(one: Verdict, other: Verdict) -> Verdict {
    match (one.seconds, other.seconds) {
        (Some(a), Some(b)) => right(a + b),
        (None, _) => one,
        (_, None) => other,
    }
}

fn right(seconds: f64) -> Verdict {
    Verdict { outcome: Outcome::Ok, seconds: Some(seconds), detail: String::new() }
}

/// Why a part of a run is not there.
fn missing(report: &Report) -> Verdict {
    match report.end {
        End::Exit(value) => Verdict {
            outcome: Outcome::Crashed,
            seconds: None,
            detail: format!("the guest left with status {value} and did not report it"),
        },
        _ => report.verdict(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(end: End, items: &[(&str, u32)]) -> Report {
        let item = |&(name, checksum): &(&str, u32)| ItemReport {
            name: name.to_owned(),
            seconds: Some(0.5),
            checksum: Some(checksum),
        };
        Report { first: Some(4.0), items: items.iter().map(item).collect(), ..Report::only(end) }
    }

    fn all() -> Vec<(&'static str, u32)> {
        linux::items().collect()
    }

    #[test]
    fn a_whole_run_has_a_time_for_each_part() {
        let report = report(End::Exit(0), &all());
        assert_eq!(verdict(&report, Part::Boot).seconds, Some(4.0));
        for (name, checksum) in linux::items() {
            assert_eq!(verdict(&report, Part::Item { name, checksum }).seconds, Some(0.5));
        }
        assert_eq!(verdict(&report, Part::List).seconds, Some(0.5 * all().len() as f64));
    }

    #[test]
    fn a_wrong_item_spoils_itself_and_the_list() {
        let mut items = all();
        items[1].1 ^= 1;
        let report = report(End::Exit(0), &items);
        let (name, checksum) = all()[1];
        assert_eq!(verdict(&report, Part::Item { name, checksum }).outcome, Outcome::Wrong);
        assert_eq!(verdict(&report, Part::List).outcome, Outcome::Wrong);
        assert_eq!(verdict(&report, Part::Boot).outcome, Outcome::Ok);
    }

    #[test]
    fn what_a_guest_did_before_it_died_counts() {
        let report = report(End::Timeout, &all()[..1]);
        let part = |at: usize| Part::Item { name: all()[at].0, checksum: all()[at].1 };
        assert_eq!(verdict(&report, part(0)).outcome, Outcome::Ok);
        assert_eq!(verdict(&report, part(1)).outcome, Outcome::Timeout);
        assert_eq!(verdict(&report, Part::List).outcome, Outcome::Timeout);
    }

    #[test]
    fn a_guest_that_leaves_early_has_crashed() {
        let report = Report::only(End::Exit(0));
        assert_eq!(verdict(&report, Part::Boot).outcome, Outcome::Crashed);
        let report = Report::only(End::Unsupported("not installed".to_owned()));
        assert_eq!(verdict(&report, Part::Boot).outcome, Outcome::Unsupported);
    }
}
