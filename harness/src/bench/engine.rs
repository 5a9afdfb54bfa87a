//! The runs of an experiment, one guest at a time: for each workload, every target is calibrated,
//! and then samples are taken in turns, so that a change of the host's mood meets all alike.

mod linux;

use super::budget::Budget;
use super::calibrate;
use super::progress::Progress;
use super::recorder::{Pair, Recorder};
use super::scratch::{Files, Scratch};
use crate::config::{Experiment, Target};
use crate::guest::{End, Job, Report, Verdict};
use crate::process::Stop;
use crate::records::Outcome;
use crate::{strategies, worker};
use std::time::{Duration, Instant};
use strategy::Support;
use workloads::{Group, Workload};

/// Guests of one target and workload that run before its first sample, about.
const CALIBRATION_RUNS: u32 = 4;

/// Runs the whole experiment. Returns whether it came to its end.
///
/// # Errors
/// When the host fails: a file cannot be written, a process cannot be started.
pub(super) fn run(
    experiment: &Experiment,
    recorder: Recorder,
    stop: &Stop,
    sandbox: bool,
) -> anyhow::Result<bool> {
    let mut engine = Engine {
        experiment,
        recorder,
        stop,
        sandbox,
        scratch: Scratch::new()?,
        progress: Progress::new(experiment),
        targets: usable_targets(experiment),
        begin: Instant::now(),
    };
    for (index, workload) in experiment.workloads.iter().enumerate() {
        if workload.group != Group::Linux {
            engine.measure(index, workload)?;
        }
        if stop.is_raised() {
            return Ok(false);
        }
    }
    engine.measure_linux()?;
    if stop.is_raised() {
        return Ok(false);
    }
    engine.progress.finish();
    Ok(true)
}

/// The targets with what they find here. A peer that is not here is left out: it is no part of what
/// is compared. A strategy that is not usable has its rows.
fn usable_targets(experiment: &Experiment) -> Vec<(Target, Support)> {
    let targets = experiment.targets.iter().map(|&target| (target, support(target)));
    targets
        .filter(|(target, support)| {
            let why = reason_to_leave_out(experiment, *target, support);
            if let Some(why) = &why {
                eprintln!("{} is left out: {why}", target.name());
            }
            why.is_none()
        })
        .collect()
}

fn reason_to_leave_out(
    experiment: &Experiment,
    target: Target,
    support: &Support,
) -> Option<String> {
    match (target, support) {
        (Target::Strategy(_), _) | (_, Support::Full) => None,
        (Target::Peer(_), Support::Missing(why)) => Some(why.clone()),
        (Target::Peer(peer), Support::Qualified(remark)) => experiment
            .leave_out_slow_peers
            .then(|| format!("{remark} (--peer {} measures it all the same)", peer.name())),
    }
}

/// What a target finds on this host.
pub(crate) fn support(target: Target) -> Support {
    match target {
        Target::Strategy(variant) => strategies::support(variant.id),
        Target::Peer(id) => id.support(),
    }
}

struct Engine<'a> {
    experiment: &'a Experiment,
    recorder: Recorder,
    stop: &'a Stop,
    /// Whether the processes of guests are confined.
    sandbox: bool,
    scratch: Scratch,
    progress: Progress,
    targets: Vec<(Target, Support)>,
    begin: Instant,
}

/// The samples of one target under one workload.
struct Series {
    target: Target,
    pair: Pair,
    /// Iterations of a sample, as calibrated.
    iterations: u32,
    /// Samples that there are.
    taken: u32,
    /// Time used for all of its guests.
    spent: Duration,
    /// Whether more may be taken: not after one that was not ok.
    open: bool,
    /// Whether it is recorded what the probes saw.
    probed: bool,
    /// A run of one iteration, until the exits are recorded.
    single: Option<Report>,
    /// The times of the samples taken now, in nanoseconds an iteration.
    times: Vec<f64>,
}

impl Engine<'_> {
    fn measure(&mut self, index: usize, workload: &Workload) -> anyhow::Result<()> {
        let begin = Instant::now();
        let budget = self.budget(index);
        let share = budget.share();
        let mut all = Vec::new();
        for (target, support) in self.targets.clone() {
            if !target.runs(workload) {
                continue;
            }
            self.progress.at(workload.name, target.name());
            let known = fewest_iterations(&all).unwrap_or(0).max(workload.first_iterations);
            all.push(self.open((workload, known), target, &support, &budget)?);
        }
        for round in 0..self.experiment.samples {
            let budget = Budget { used: self.begin.elapsed(), ..budget };
            if !budget.allows(round, begin.elapsed(), share) {
                break;
            }
            let rows = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let is_due = |series: &&mut Series| {
                let affordable = budget.affords(round, series.spent, share, rows);
                series.open && series.taken <= round && affordable
            };
            for series in all.iter_mut().filter(is_due) {
                self.progress.at(workload.name, series.target.name());
                self.sample(workload, series, &budget)?;
            }
        }
        self.progress.done(workload.name, all.iter().filter_map(Series::in_words));
        Ok(())
    }

    fn budget(&self, index: usize) -> Budget {
        let left = self.experiment.workloads.len() - index;
        Budget {
            whole: self.experiment.budget,
            used: self.begin.elapsed(),
            workloads: u32::try_from(left).unwrap_or(u32::MAX),
        }
    }

    /// A series that is ready for samples: found again, or calibrated. `known` iterations are few
    /// enough for all before it.
    fn open(
        &mut self,
        (workload, known): (&Workload, u32),
        target: Target,
        support: &Support,
        budget: &Budget,
    ) -> anyhow::Result<Series> {
        let pair = (target.name().to_owned(), workload.name.to_owned());
        let mut series = Series::new(target, pair);
        if let Some(done) = self.recorder.done(&series.pair) {
            (series.iterations, series.taken) = (done.iterations, done.samples);
            (series.open, series.probed) = (done.ok, true);
        } else if let Support::Missing(why) = support {
            let report = Report::only(End::Unsupported(why.clone()));
            self.reject(&mut series, 1, &report, &report.verdict(0))?;
        } else {
            self.calibrate((workload, known), &mut series, budget)?;
        }
        Ok(series)
    }

    /// Runs the guest with one iteration (ours only: peers start slowly and count no exits), and
    /// then with more until a run is long enough for a sample.
    fn calibrate(
        &mut self,
        (workload, known): (&Workload, u32),
        series: &mut Series,
        budget: &Budget,
    ) -> anyhow::Result<()> {
        let least = self.experiment.sample_time;
        let mut single = None;
        if matches!(series.target, Target::Strategy(_)) {
            let Some(run) = self.accepted(workload, series, 1, budget)? else { return Ok(()) };
            self.probed(series, &run.report)?;
            single = run.verdict.seconds;
            series.single = Some(run.report);
        }
        let suggested = if single.is_some() { workload.first_iterations } else { known };
        let iterations = calibrate::begin(suggested, single, least);
        series.iterations = iterations;
        if iterations == 1 && single.is_some() {
            return Ok(());
        }
        let Some(run) = self.long_enough(workload, series, budget)? else { return Ok(()) };
        self.probed(series, &run.report)
    }

    /// Records what the probes saw, once.
    fn probed(&mut self, series: &mut Series, report: &Report) -> anyhow::Result<()> {
        if !std::mem::replace(&mut series.probed, true) {
            self.recorder.probes(&series.pair, report)?;
        }
        Ok(())
    }

    fn sample(
        &mut self,
        workload: &Workload,
        series: &mut Series,
        budget: &Budget,
    ) -> anyhow::Result<()> {
        let Some(run) = self.long_enough(workload, series, budget)? else { return Ok(()) };
        let iterations = series.iterations;
        if let Some(single) = series.single.take() {
            self.recorder.exits(&series.pair, &run.report, iterations, &single)?;
        }
        self.recorder.sample(&series.pair, series.taken, iterations, &run.verdict)?;
        series.taken += 1;
        let seconds = run.verdict.seconds.unwrap_or(0.0);
        series.times.push(seconds * 1e9 / f64::from(iterations));
        Ok(())
    }

    /// A run that is long enough for a sample. The host may have become faster since the
    /// calibration; the iterations then grow for the samples to come as well.
    fn long_enough(
        &mut self,
        workload: &Workload,
        series: &mut Series,
        budget: &Budget,
    ) -> anyhow::Result<Option<Run>> {
        loop {
            let iterations = series.iterations;
            let Some(run) = self.accepted(workload, series, iterations, budget)? else {
                return Ok(None);
            };
            let seconds = run.verdict.seconds.unwrap_or(0.0);
            let (least, resolution) = (self.experiment.sample_time, series.target.resolution());
            match calibrate::next(iterations, seconds, least, resolution) {
                Some(more) => series.iterations = more,
                None => return Ok(Some(run)),
            }
        }
    }

    /// Runs the guest. What is not ok is recorded and closes the series; none is returned then, nor
    /// when the run was interrupted.
    fn accepted(
        &mut self,
        workload: &Workload,
        series: &mut Series,
        iterations: u32,
        budget: &Budget,
    ) -> anyhow::Result<Option<Run>> {
        if self.stop.is_raised() {
            series.open = false;
            return Ok(None);
        }
        let begin = Instant::now();
        let run = self.guest(workload, series.target, iterations, budget)?;
        series.spent += begin.elapsed();
        if run.verdict.outcome == Outcome::Ok {
            return Ok(Some(run));
        }
        if self.stop.is_raised() {
            series.open = false;
        } else {
            let verdict = self.explained(workload, series.target, iterations, run.verdict)?;
            self.reject(series, iterations, &run.report, &verdict)?;
        }
        Ok(None)
    }

    /// Records a run that was not ok: the series ends with it.
    fn reject(
        &mut self,
        series: &mut Series,
        iterations: u32,
        report: &Report,
        verdict: &Verdict,
    ) -> anyhow::Result<()> {
        series.open = false;
        self.probed(series, report)?;
        self.recorder.sample(&series.pair, series.taken, iterations, verdict)?;
        self.progress.failed(&series.pair, verdict);
        Ok(())
    }

    /// A verdict on a guest that went wrong, with where it did, if the strategy can tell.
    fn explained(
        &mut self,
        workload: &Workload,
        target: Target,
        iterations: u32,
        verdict: Verdict,
    ) -> anyhow::Result<Verdict> {
        let went_wrong = matches!(verdict.outcome, Outcome::Wrong | Outcome::Crashed);
        let Target::Strategy(variant) = target else { return Ok(verdict) };
        if !went_wrong {
            return Ok(verdict);
        }
        let files = self.scratch.files(workload, iterations)?;
        let job = self.job(workload, iterations, &files, self.experiment.timeout);
        Ok(match worker::watch(variant, &job, self.stop)? {
            Some(sentence) => {
                let detail = format!("{sentence}; {}", verdict.detail);
                Verdict { detail, ..verdict }
            }
            None => verdict,
        })
    }

    fn job<'a>(
        &self,
        workload: &'a Workload,
        iterations: u32,
        files: &'a Files,
        timeout: Duration,
    ) -> Job<'a> {
        Job {
            workload,
            iterations,
            image: &files.image,
            disk: files.disk.as_deref(),
            linux: None,
            memory_bytes: workload.memory_bytes,
            cpu: self.experiment.cpu,
            timeout,
            sandbox: self.sandbox,
        }
    }

    fn guest(
        &mut self,
        workload: &Workload,
        target: Target,
        iterations: u32,
        budget: &Budget,
    ) -> anyhow::Result<Run> {
        let files = self.scratch.files(workload, iterations)?;
        let job = self.job(workload, iterations, &files, self.timeout(budget));
        let begin = Instant::now();
        let report = match target {
            Target::Strategy(variant) => worker::start(variant, &job, self.stop)?,
            Target::Peer(id) => id.run(&job, self.stop)?,
        };
        let verdict = report.verdict(files.checksum);
        tracing::debug!(
            target: "bench",
            "{} {} x{iterations}: {} in {:?} of {:?} {}",
            target.name(),
            workload.name,
            verdict.outcome.name(),
            verdict.seconds.map(Duration::from_secs_f64),
            begin.elapsed(),
            verdict.detail
        );
        Ok(Run { report, verdict })
    }

    fn timeout(&self, budget: &Budget) -> Duration {
        let runs = self.experiment.samples.saturating_add(CALIBRATION_RUNS);
        let targets = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        budget.timeout(self.experiment.timeout, runs.saturating_mul(targets))
    }
}

/// The iterations of the slowest row: where each run takes long to start, the best to begin with.
fn fewest_iterations(all: &[Series]) -> Option<u32> {
    all.iter().filter(|series| series.open).map(|series| series.iterations).min()
}

/// One run of a guest.
struct Run {
    report: Report,
    verdict: Verdict,
}

impl Series {
    fn new(target: Target, pair: Pair) -> Series {
        Series {
            target,
            pair,
            iterations: 1,
            taken: 0,
            spent: Duration::ZERO,
            open: true,
            probed: false,
            single: None,
            times: Vec::new(),
        }
    }

    /// The target and its time, for the progress display.
    fn in_words(&self) -> Option<(&'static str, f64)> {
        Some((self.target.name(), crate::stats::median(&self.times)?))
    }
}
