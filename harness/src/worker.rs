//! The hidden `ringside worker`: one guest in a process of its own, and its report on the standard
//! output. Whatever the guest does to its monitor ends this process and costs one sample.

use crate::guest::{End, Job, Report};
use crate::process::{self, Ending, Finished, Stop, Watch};
use crate::strategies;
use anyhow::Context;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::config::DiskConfig;
use machine::cpu::CpuModel;
use machine::{Machine, MachineConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strategy::{Limit, StrategyId};

/// How long past the guest's deadline a worker may take to notice it, before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// What a worker is told: a [`Job`] with its strategy, as command-line arguments.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The strategy
    #[arg(long)]
    strategy: String,
    /// The multiboot image
    #[arg(long)]
    image: PathBuf,
    /// The disk
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Bytes of memory
    #[arg(long)]
    memory_bytes: u64,
    /// The CPU model
    #[arg(long)]
    cpu: CpuModel,
    /// Milliseconds until the guest is stopped
    #[arg(long)]
    timeout_ms: u64,
}

/// Runs a guest under `strategy` in a worker.
///
/// # Errors
/// When the worker cannot be started; nothing that the guest does is an error.
pub fn start(strategy: StrategyId, job: &Job, stop: &Stop) -> anyhow::Result<Report> {
    start_from(&program()?, strategy, job, stop)
}

/// As [`start`], with the worker in the file `program`.
///
/// # Errors
/// As [`start`].
pub fn start_from(
    program: &Path,
    strategy: StrategyId,
    job: &Job,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    command.arg("worker").arg("--strategy").arg(strategy.name());
    command.arg("--image").arg(job.image);
    if let Some(disk) = job.disk {
        command.arg("--disk").arg(disk);
    }
    command.arg("--memory-bytes").arg(job.memory_bytes.to_string());
    command.arg("--cpu").arg(job.cpu.name());
    command.arg("--timeout-ms").arg(job.timeout.as_millis().to_string());
    let watch = Watch { timeout: job.timeout + GRACE, stop, fatal: None };
    let finished = process::run(&mut command, &watch).context("a worker cannot be started")?;
    Ok(report(&finished))
}

/// This program, even if its file was replaced since it was started.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Ok(link.to_owned()) } else { Ok(std::env::current_exe()?) }
}

/// What a worker that has ended came to.
pub(crate) fn report(finished: &Finished) -> Report {
    let died = |how: String| {
        let said = process::last_words(&finished.errors);
        let colon = if said.is_empty() { "" } else { ": " };
        Report::only(End::Died(format!("the monitor died: {how}{colon}{said}")))
    };
    match finished.ending {
        Ending::TimedOut => Report::only(End::Timeout),
        Ending::Stopped => Report::only(End::Interrupted),
        Ending::Fatal => died("killed".to_owned()),
        Ending::Itself(status) if !status.success() => died(process::in_words(status)),
        Ending::Itself(_) => {
            let bytes: Vec<u8> = finished.output.iter().map(|&(byte, _)| byte).collect();
            toml::from_str(&String::from_utf8_lossy(&bytes))
                .unwrap_or_else(|error| died(format!("its report is unreadable ({error})")))
        }
    }
}

/// The worker itself.
///
/// # Errors
/// When the guest cannot be set up or the host fails while it runs.
pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let report = run(arguments)?;
    print!("{}", toml::to_string(&report)?);
    Ok(())
}

fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let id = StrategyId::ALL.into_iter().find(|id| id.name() == arguments.strategy);
    let id = id.with_context(|| format!("no strategy {:?}", arguments.strategy))?;
    let config = MachineConfig {
        memory_bytes: arguments.memory_bytes,
        cpu: arguments.cpu,
        disk: arguments.disk.clone().map(|path| DiskConfig { path, read_only: true }),
        ..MachineConfig::default()
    };
    let mut machine = Machine::new(&config)?;
    let kernel = Kernel::read(&arguments.image)?;
    let kind = Some(ImageKind::Multiboot);
    machine::boot::load(&mut machine, &BootSource { kernel, kind, ..BootSource::default() })?;
    let mut strategy = match strategies::make(id) {
        Err(strategy::Error::Unsupported { reason, .. }) => {
            return Ok(Report::only(End::Unsupported(reason)));
        }
        other => other?,
    };
    let deadline = Instant::now() + Duration::from_millis(arguments.timeout_ms);
    let end = match strategy.run(&mut machine, &Limit::until(deadline)) {
        Ok(strategy::Stop::Exit(value)) => End::Exit(value),
        Ok(strategy::Stop::Limit) => End::Timeout,
        Ok(stop) => End::Died(format!("{stop} at EIP {:#010x}", machine.cpu.eip)),
        Err(strategy::Error::Unsupported { reason, .. }) => End::Unsupported(reason),
        Err(error) => return Err(error.into()),
    };
    let console = machine.bus.devices.debug_console.take_marks();
    let mut report = Report::new(end, console.into_iter().map(|mark| (mark.byte, mark.at)));
    let exits = strategy.exits().iter().filter(|&(_, count)| count > 0);
    report.exits = exits.map(|(kind, count)| (kind.name().to_owned(), count)).collect();
    Ok(report)
}
