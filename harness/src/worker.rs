//! The hidden `ringside worker`: one guest in a process of its own, and its report on the standard
//! output. Whatever the guest does to its monitor ends this process and costs one sample.
//!
//! Before the first guest instruction the process enters the [`sandbox`](host::sandbox). What it
//! says afterwards is a guest's word: it is looked at before it is used.

mod lockstep;

use crate::guest::{End, Job, Report};
use crate::process::{self, Ending, Finished, Stop, Watch};
use crate::strategies::{self, Options, Variant};
use anyhow::Context;
use host::sandbox::record::CrashRecord;
use machine::boot::{BootSource, ImageKind, Kernel, Module};
use machine::config::DiskConfig;
use machine::cpu::{CpuModel, Cr0};
use machine::{Machine, MachineConfig};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strategy::{Limit, Strategy, StrategyId};

/// How long past the guest's deadline a worker may take to notice it, before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// Instructions of a guest that is watched; some microseconds each.
const WATCHED: u64 = 1_000_000;

/// Instructions that the reference executes between two looks whether paging is on, and how often it
/// does so: some minutes.
const UNPAGED_SLICE: u64 = 10_000;
const UNPAGED_SLICES: u64 = 500_000;

/// Characters of what is said about one.
const LONGEST_FINDING: usize = 400;

/// What a worker is told: a [`Job`] with its strategy, as command-line arguments.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The strategy
    #[arg(long)]
    strategy: String,
    /// The options of strategies, as TOML
    #[arg(long, default_value = "")]
    options: String,
    /// The multiboot image
    #[arg(long)]
    image: PathBuf,
    /// The disk
    #[arg(long)]
    disk: Option<PathBuf>,
    /// The initial RAM disk: the image is then a Linux kernel
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Bytes of memory
    #[arg(long)]
    memory_bytes: u64,
    /// The CPU model
    #[arg(long)]
    cpu: CpuModel,
    /// Milliseconds until the guest is stopped
    #[arg(long)]
    timeout_ms: u64,
    /// The file for the crash record
    #[arg(long)]
    record: Option<PathBuf>,
    /// Keep all rights
    #[arg(long)]
    no_sandbox: bool,
    /// Do not report; find the first instruction at which the guest leaves the architecture
    #[arg(long)]
    watch: bool,
    /// Do not report; run the guest beside the reference until its time is over
    #[arg(long)]
    lockstep: bool,
}

/// Runs a guest under `strategy` in a worker.
///
/// # Errors
/// When the worker cannot be started; nothing that the guest does is an error.
pub fn start(strategy: Variant, job: &Job, stop: &Stop) -> anyhow::Result<Report> {
    start_from(&program()?, strategy, job, stop)
}

/// As [`start`], with the worker in the file `program`.
///
/// # Errors
/// As [`start`].
pub fn start_from(
    program: &Path,
    strategy: impl Into<Variant>,
    job: &Job,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    let (finished, record) = run(command.arg("worker"), strategy.into(), job, stop)?;
    Ok(report(&finished, &record))
}

/// Runs a guest that went wrong once more, in a worker, and tells in a sentence at which instruction
/// it left the architecture, as far as that can be told.
///
/// # Errors
/// As [`start`].
pub fn watch(strategy: Variant, job: &Job, stop: &Stop) -> anyhow::Result<Option<String>> {
    if !strategies::can_watch(strategy) {
        return Ok(None);
    }
    finding("--watch", strategy, job, stop)
}

/// Runs a guest in lockstep with the reference for as long as it may run, in a worker, and tells in a
/// sentence how far they came and whether they came apart.
///
/// # Errors
/// As [`start`].
pub fn lockstep(strategy: Variant, job: &Job, stop: &Stop) -> anyhow::Result<Option<String>> {
    finding("--lockstep", strategy, job, stop)
}

/// What a worker that does not report says.
fn finding(
    option: &str,
    strategy: Variant,
    job: &Job,
    stop: &Stop,
) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(program()?);
    let (finished, _) = run(command.args(["worker", option]), strategy, job, stop)?;
    let said: Vec<u8> = finished.output.iter().map(|&(byte, _)| byte).collect();
    let sentence = process::printable(String::from_utf8_lossy(&said).trim(), LONGEST_FINDING);
    let is_whole = matches!(finished.ending, Ending::Itself(status) if status.success());
    Ok(Some(sentence).filter(|sentence| is_whole && !sentence.is_empty()))
}

/// Runs `command`, which begins a worker, with the job.
fn run(
    command: &mut Command,
    strategy: Variant,
    job: &Job,
    stop: &Stop,
) -> anyhow::Result<(Finished, CrashRecord)> {
    command.arg("--strategy").arg(strategy.name());
    command.arg("--options").arg(toml::to_string(strategy.options())?);
    command.arg("--image").arg(job.image);
    if let Some(disk) = job.disk {
        command.arg("--disk").arg(disk);
    }
    if let Some(linux) = job.linux {
        command.arg("--initrd").arg(linux.initrd).arg("--append").arg(linux.append);
    }
    command.arg("--memory-bytes").arg(job.memory_bytes.to_string());
    command.arg("--cpu").arg(job.cpu.name());
    command.arg("--timeout-ms").arg(job.timeout.as_millis().to_string());
    if !job.sandbox {
        command.arg("--no-sandbox");
    }
    let record = tempfile::NamedTempFile::new().context("a crash record cannot be made")?;
    command.arg("--record").arg(record.path());
    // A panic that looked for its lines in the program's file would end as a forbidden call.
    command.env("RUST_BACKTRACE", "0");
    let watch = Watch { timeout: job.timeout + GRACE, stop, fatal: None };
    let finished = process::run(command, &watch).context("a worker cannot be started")?;
    let record = CrashRecord::read(record.as_file());
    Ok((finished, record))
}

/// This program, even if its file was replaced since it was started.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Ok(link.to_owned()) } else { Ok(std::env::current_exe()?) }
}

/// What a worker that has ended came to.
pub(crate) fn report(finished: &Finished, record: &CrashRecord) -> Report {
    let died = |how: &str| {
        let said = process::last_words(&finished.errors);
        let colon = if said.is_empty() { "" } else { ": " };
        Report::only(End::Died(format!("{}{colon}{said}", obituary(how, record))))
    };
    match finished.ending {
        Ending::TimedOut => Report::only(End::Timeout),
        Ending::Stopped => Report::only(End::Interrupted),
        Ending::Fatal => died("killed"),
        Ending::Itself(status) if !status.success() => died(&process::in_words(status)),
        Ending::Itself(_) => {
            let bytes: Vec<u8> = finished.output.iter().map(|&(byte, _)| byte).collect();
            Report::received(&bytes, finished.took)
                .unwrap_or_else(|why| died(&format!("its report is unreadable ({why})")))
        }
    }
}

/// How a monitor's process ended, with what its crash record knows of the guest.
pub(crate) fn obituary(how: &str, record: &CrashRecord) -> String {
    match (record.escape, record.entered) {
        (Some(escape), _) => format!(
            "the guest left 32-bit mode and was found in 64-bit code at {:#010x}: {how}",
            escape.rip
        ),
        (None, Some(eip)) => {
            format!("the monitor died: {how}, native guest code last entered at EIP {eip:#010x}")
        }
        (None, None) => format!("the monitor died: {how}"),
    }
}

/// The worker itself.
///
/// # Errors
/// When the guest cannot be set up or the host fails while it runs.
pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let report = match Guest::new(arguments)? {
        Ok(guest) if arguments.watch => {
            print!("{}", guest.watch(arguments)?.unwrap_or_default());
            return Ok(());
        }
        Ok(guest) if arguments.lockstep => {
            print!("{}", guest.lockstep(arguments)?);
            return Ok(());
        }
        Ok(guest) => guest.run(arguments)?,
        Err(unsupported) => unsupported,
    };
    print!("{}", toml::to_string(&report)?);
    Ok(())
}

/// A guest that is ready to run.
pub struct Guest {
    /// The machine, with the image loaded.
    pub machine: Machine,
    variant: Variant,
    strategy: Box<dyn Strategy>,
    /// When it began to be made.
    begin: Instant,
}

impl Guest {
    /// Makes everything for which files have to be opened; a report where the strategy cannot work
    /// here.
    ///
    /// # Errors
    /// When a file cannot be used, or the host fails.
    pub fn new(arguments: &Arguments) -> anyhow::Result<Result<Guest, Report>> {
        let begin = Instant::now();
        let options: Options = toml::from_str(&arguments.options)?;
        let variant = Variant::find(&arguments.strategy, &options);
        let variant = variant.with_context(|| format!("no strategy {:?}", arguments.strategy))?;
        if let Some(path) = &arguments.record {
            let file = File::options().read(true).write(true).open(path)?;
            CrashRecord::keep_in(&file).context("the crash record cannot be kept")?;
        }
        let machine = machine(arguments)?;
        match strategies::make(variant) {
            Ok(strategy) => Ok(Ok(Guest { machine, variant, strategy, begin })),
            Err(strategy::Error::Unsupported { reason, .. }) => {
                Ok(Err(Report::only(End::Unsupported(reason))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Enters the sandbox and runs the guest to its end.
    ///
    /// # Errors
    /// When this process cannot be confined, or the host fails.
    pub fn run(mut self, arguments: &Arguments) -> anyhow::Result<Report> {
        self.confine(arguments)?;
        let deadline = Instant::now() + Duration::from_millis(arguments.timeout_ms);
        let end = match self.strategy.run(&mut self.machine, &Limit::until(deadline)) {
            Ok(strategy::Stop::Exit(value)) => End::Exit(value),
            Ok(strategy::Stop::Limit) => End::Timeout,
            Ok(stop) => End::Died(format!("{stop} at EIP {:#010x}", self.machine.cpu.eip)),
            Err(strategy::Error::Unsupported { reason, .. }) => End::Unsupported(reason),
            Err(error) => return Err(error.into()),
        };
        let console = self.machine.bus.devices.debug_console.take_marks();
        let mut report =
            Report::new(self.begin, end, console.into_iter().map(|mark| (mark.byte, mark.at)));
        let exits = self.strategy.exits().iter().filter(|&(_, count)| count > 0);
        report.exits = exits.map(|(kind, count)| (kind.name().to_owned(), count)).collect();
        Ok(report)
    }

    /// Enters the sandbox and finds where the guest leaves the architecture.
    fn watch(mut self, arguments: &Arguments) -> anyhow::Result<Option<String>> {
        self.confine(arguments)?;
        let found = strategies::watch(self.variant, &mut self.machine, WATCHED)?;
        if found.is_some() || self.machine.cpu.cr0.contains(Cr0::PG) || !self.unpack()? {
            return Ok(found);
        }
        Ok(strategies::watch(self.variant, &mut self.machine, WATCHED)?)
    }

    /// A kernel that unpacks itself does so for seconds, in user-level code. The reference does it
    /// here, until paging is on: that is the kernel proper. False if it never came there.
    fn unpack(&mut self) -> anyhow::Result<bool> {
        let mut reference = strategies::make(StrategyId::Interpretation)?;
        let limit = Limit::instructions(UNPAGED_SLICE);
        for _ in 0..UNPAGED_SLICES {
            if reference.run(&mut self.machine, &limit)? != strategy::Stop::Limit {
                return Ok(false);
            }
            if self.machine.cpu.cr0.contains(Cr0::PG) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn confine(&self, arguments: &Arguments) -> anyhow::Result<()> {
        if !arguments.no_sandbox {
            let applied = strategies::confine(&strategies::policy(self.variant.id))?.seal()?;
            tracing::debug!(target: "sandbox", "{applied}");
        }
        Ok(())
    }
}

fn machine(arguments: &Arguments) -> anyhow::Result<Machine> {
    let config = MachineConfig {
        memory_bytes: arguments.memory_bytes,
        cpu: arguments.cpu,
        disk: arguments.disk.clone().map(|path| DiskConfig { path, read_only: true }),
        ..MachineConfig::default()
    };
    let mut machine = Machine::new(&config)?;
    let mut source = BootSource {
        kernel: Kernel::read(&arguments.image)?,
        kind: Some(ImageKind::Multiboot),
        ..BootSource::default()
    };
    if let Some(initrd) = &arguments.initrd {
        source.kind = Some(ImageKind::LinuxBzImage);
        source.modules.push(Module::read(initrd, "")?);
        source.command_line.clone_from(&arguments.append);
    }
    machine::boot::load(&mut machine, &source)?;
    Ok(machine)
}
