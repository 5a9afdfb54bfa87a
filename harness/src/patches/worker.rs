//! The hidden `ringside patches-worker`: the process in which a guest runs to be looked at. What was
//! found goes into a file that is opened before the first guest instruction.

use crate::config::Vm;
use crate::strategies;
use anyhow::Context;
use code_patching::{CodePatching, Moment, Options, Site};
use host::sandbox::Policy;
use host::sandbox::record::CrashRecord;
use machine::Machine;
use machine::boot::BootSource;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy, StrategyId};

/// Bytes of what is found, at most.
pub(super) const LONGEST_REPORT: u64 = 256 << 20;

/// What a worker is told.
#[derive(clap::Args, Debug)]
pub struct WorkerArguments {
    /// What is run, and how
    plan: PathBuf,
    /// Where it is written what was found
    report: PathBuf,
    /// The file for the crash record
    record: PathBuf,
    /// Keep all rights
    #[arg(long)]
    no_sandbox: bool,
}

/// What is run, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The machine. Its strategy does not matter.
    pub(super) vm: Vm,
    /// How its code is patched.
    pub(super) options: Options,
    /// For how long.
    pub(super) time: Duration,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Why the guest could not be set up, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) setup: Option<String>,
    /// How it ended, if not because its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<String>,
    /// What was counted as it ran.
    #[serde(default)]
    pub(super) moments: Vec<Moment>,
    /// Its sites.
    #[serde(default)]
    pub(super) sites: Vec<Site>,
}

/// The worker itself.
///
/// # Errors
/// When the files by which it is told, or tells, cannot be used, or the host fails.
pub fn main(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let plan = std::fs::read_to_string(&arguments.plan).context("the plan cannot be read")?;
    let plan: Plan = toml::from_str(&plan).context("the plan is damaged")?;
    // Later there is no right to make it.
    let mut file = File::create(&arguments.report).context("the report cannot be made")?;
    let record =
        File::options().read(true).write(true).create(true).truncate(true).open(&arguments.record);
    CrashRecord::keep_in(&record?).context("the crash record cannot be kept")?;
    let report = match Guest::new(&plan) {
        Ok(guest) => guest.confine_and_run(&plan, arguments)?,
        Err(error) => Report { setup: Some(format!("{error:#}")), ..Report::default() },
    };
    file.write_all(toml::to_string(&report)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

struct Guest {
    machine: Machine,
    source: Option<BootSource>,
    strategy: CodePatching,
}

impl Guest {
    /// Opens and makes all that the run takes.
    fn new(plan: &Plan) -> anyhow::Result<Guest> {
        let (mut machine, source) = crate::run::machine(&plan.vm)?;
        machine.bus.devices.serial.set_output(Box::new(std::io::stderr()));
        let strategy = CodePatching::watched(plan.options)?;
        Ok(Guest { machine, source: source.filter(|_| plan.vm.reboot), strategy })
    }

    fn confine_and_run(
        mut self,
        plan: &Plan,
        arguments: &WorkerArguments,
    ) -> anyhow::Result<Report> {
        if !arguments.no_sandbox {
            let bytes = self.machine.bus.devices.disk.bytes().max(LONGEST_REPORT);
            let policy = strategies::policy(StrategyId::CodePatching);
            let policy = Policy { file_bytes: Some(bytes), ..policy };
            let applied = strategies::confine(&policy)?.seal()?;
            tracing::debug!(target: "sandbox", "{applied}");
        }
        let end = self.run(Instant::now() + plan.time)?;
        let moments = self.strategy.moments().to_vec();
        Ok(Report { setup: None, end, moments, sites: self.strategy.sites() })
    }

    /// Runs the guest, through resets; gives how it ended before its time was over.
    fn run(&mut self, deadline: Instant) -> anyhow::Result<Option<String>> {
        loop {
            let stop = self.strategy.run(&mut self.machine, &Limit::until(deadline))?;
            match (stop, &self.source) {
                (Stop::Limit, _) => return Ok(None),
                (Stop::Requested, _) => {}
                (Stop::Reset, Some(source)) => {
                    self.machine.reset();
                    self.machine.memory.forget_code();
                    machine::boot::load(&mut self.machine, source)?;
                }
                (stop, _) => {
                    return Ok(Some(format!("{stop} at EIP {:#010x}", self.machine.cpu.eip)));
                }
            }
        }
    }
}
