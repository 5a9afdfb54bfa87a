//! What is shown while an experiment runs, on the standard error: a bar where that is a terminal,
//! plain lines where it is not.

use super::recorder::Pair;
use crate::config::Experiment;
use crate::guest::Verdict;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// The display.
pub(super) struct Progress {
    /// None where the standard error is no terminal.
    bar: Option<ProgressBar>,
    workloads: usize,
    finished: usize,
}

impl Progress {
    pub(super) fn new(experiment: &Experiment) -> Progress {
        let workloads = experiment.workloads.len();
        let bar = std::io::stderr().is_terminal().then(|| bar(workloads as u64));
        Progress { bar, workloads, finished: 0 }
    }

    /// A guest is about to run.
    pub(super) fn at(&self, workload: &str, target: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{workload} under {target}"));
        }
    }

    /// A pair ended with something that is not ok.
    pub(super) fn failed(&self, (target, workload): &Pair, verdict: &Verdict) {
        let outcome = verdict.outcome.name();
        self.line(&format!("{workload} under {target}: {outcome}: {}", verdict.detail));
    }

    /// A workload is finished, with the median times of an iteration in nanoseconds.
    pub(super) fn done<'a>(&mut self, workload: &str, times: impl Iterator<Item = (&'a str, f64)>) {
        self.finished += 1;
        let times: Vec<String> =
            times.map(|(target, ns)| format!("{target} {}", in_words(ns))).collect();
        let place = format!("[{}/{}]", self.finished, self.workloads);
        self.line(&format!("{place} {workload}: {}", times.join(", ")));
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// The experiment is at its end.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(workloads: u64) -> ProgressBar {
    let bar = ProgressBar::new(workloads);
    if let Ok(style) = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// A time in the unit that suits it, with three digits or so.
fn in_words(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns >= 1e9 => format!("{:.3} s", ns / 1e9),
        ns if ns >= 1e6 => format!("{:.3} ms", ns / 1e6),
        ns if ns >= 1e3 => format!("{:.3} µs", ns / 1e3),
        ns => format!("{ns:.3} ns"),
    }
}
