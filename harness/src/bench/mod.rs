//! `ringside bench`: an experiment from its plan to its report.
//!
//! What may fail for reasons of the set-up (the experiment, the results folder) fails before the
//! first guest runs. From then on each result is on disk as soon as it is there.

mod budget;
mod calibrate;
mod directory;
mod engine;
mod progress;
mod recorder;
mod scratch;

use crate::cli::{BenchArguments, Failure};
use crate::config::{Experiment, Overrides};
use crate::process::{self, Stop};
use crate::{host_info, interrupt, plot, records, report, stats};
use anyhow::Context;
use directory::Directory;
pub(crate) use directory::utc;
pub(crate) use engine::support;
use std::path::Path;
use std::process::ExitCode;

/// Runs the experiment that `arguments` name.
///
/// # Errors
/// When the experiment or the results folder cannot be used, or the host fails.
pub fn main(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let stop = interrupt::watch(|| {});
    let experiment = load(arguments)?;
    let out = arguments.resume.as_deref().or(arguments.out.as_deref());
    let directory = Directory::open(out, &experiment).map_err(Failure::setup)?;
    if arguments.no_sandbox {
        process::warn_of_no_sandbox();
    }
    let mut host = host_info::describe(&experiment);
    host.sandbox = arguments.no_sandbox.then(|| "off".to_owned());
    let recorder = directory.recorder(&host).map_err(Failure::setup)?;
    let finished = engine::run(&experiment, recorder, &stop, !arguments.no_sandbox)?;
    finish(directory.path(), &stop)?;
    if finished {
        Ok(ExitCode::SUCCESS)
    } else {
        let path = directory.path().display();
        eprintln!("interrupted; what was measured is kept: ringside bench --resume {path}");
        Ok(ExitCode::from(interrupt::STATUS))
    }
}

fn load(arguments: &BenchArguments) -> anyhow::Result<Experiment> {
    let overrides = Overrides {
        strategies: arguments.strategy.clone(),
        peers: arguments.peer.clone(),
        workloads: arguments.workload.clone(),
        samples: arguments.samples,
    };
    let saved = arguments.resume.as_ref().map(|folder| folder.join(records::EXPERIMENT));
    let file = saved.as_deref().or(arguments.experiment.as_deref());
    Ok(Experiment::load(file, &overrides).map_err(Failure::setup)?)
}

/// Everything that is made from the files of a run.
fn finish(folder: &Path, stop: &Stop) -> anyhow::Result<()> {
    let samples: Vec<records::SampleRow> = records::read(&folder.join(records::SAMPLES))?;
    if samples.is_empty() {
        eprintln!("nothing was measured");
        return Ok(());
    }
    let details: Vec<records::DetailRow> = records::read(&folder.join(records::DETAILS))?;
    let summary = stats::summarise(&samples, &details);
    records::write(&folder.join(records::SUMMARY), &summary)?;
    if stop.is_raised() {
        return Ok(());
    }
    draw(folder)
}

/// Draws the plots of a run and writes its report.
///
/// # Errors
/// When the folder holds no run or cannot be written.
pub fn draw(folder: &Path) -> anyhow::Result<()> {
    plot::draw(folder).context("the plots cannot be drawn")?;
    let report = report::write(folder).context("the report cannot be written")?;
    println!("report: {}", report.display());
    Ok(())
}
