//! A guest that runs to be looked at: its process is started, waited for, and asked what it found.

use super::worker::{LONGEST_REPORT, Plan, Report};
use super::{Arguments, Found, Modes, USUAL_TIME, show};
use crate::cli::Failure;
use crate::config::{Vm, VmOptions};
use crate::process::{self, Stop};
use crate::worker::obituary;
use crate::{audit, interrupt, strategies};
use anyhow::{Context, anyhow, bail, ensure};
use code_patching::{Mode, Moment, Options, Site};
use host::sandbox::record::CrashRecord;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use strategy::{StrategyId, Support};
use tempfile::TempDir;

/// The monitor failed.
const FAILED_STATUS: u8 = 8;
/// How long past its time a guest's process may take to tell what it found.
const GRACE: Duration = Duration::from_secs(20);
/// Bytes of an instruction.
const LONGEST_INSTRUCTION: usize = 15;
/// Characters of how it ended.
const LONGEST_SENTENCE: usize = 200;

/// A guest's run in one mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Course {
    /// How its code was patched.
    pub options: Options,
    /// How it ended, if not because its time was over.
    pub end: Option<String>,
    /// What was counted as it ran.
    pub moments: Vec<Moment>,
    /// The sites that were found, by address.
    pub sites: Vec<Site>,
}

impl Course {
    /// The mode in words.
    #[must_use]
    pub fn title(&self) -> String {
        match self.options.mode {
            Mode::Prescan => Mode::Prescan.name().to_owned(),
            Mode::OnTrap => {
                format!("{}, threshold {}", Mode::OnTrap.name(), self.options.threshold)
            }
        }
    }

    /// How it ended, as the end of a sentence.
    #[must_use]
    pub fn end_in_words(&self) -> String {
        self.end.as_ref().map_or(String::new(), |end| format!(", and ended: {end}"))
    }
}

/// Runs the guest, once or in both modes, and shows what was found.
pub(super) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("ringside-").tempdir()?;
    let (name, vm) = subject(arguments, &folder).map_err(Failure::setup)?;
    let options = options(arguments, &vm).map_err(Failure::setup)?;
    if let Support::Missing(why) = strategies::support(StrategyId::CodePatching) {
        let error = anyhow!("{} is not usable on this host: {why}", StrategyId::CodePatching);
        return Err(Failure::setup(error).into());
    }
    if arguments.no_sandbox {
        process::warn_of_no_sandbox();
    }
    let stop = interrupt::watch(|| ());
    let time = arguments.time.unwrap_or(USUAL_TIME);
    let mut courses = Vec::new();
    for options in options {
        let plan = Plan { vm: vm.clone(), options, time };
        let report = match run(&plan, folder.path(), arguments.no_sandbox, &stop)? {
            Outcome::Told(report) => report,
            Outcome::Interrupted => return Ok(ExitCode::from(interrupt::STATUS)),
            Outcome::Failed(why) => {
                eprintln!("ringside: {why}");
                return Ok(ExitCode::from(FAILED_STATUS));
            }
        };
        if let Some(message) = report.setup {
            return Err(Failure::setup(anyhow!("{message}")).into());
        }
        let Report { end, moments, sites, .. } = report;
        courses.push(Course { options, end, moments, sites });
    }
    show(arguments, &name, &Found::Courses(courses))?;
    Ok(ExitCode::SUCCESS)
}

/// The machine to run, and what it is called.
fn subject(arguments: &Arguments, folder: &TempDir) -> anyhow::Result<(String, Vm)> {
    for (option, is_given) in [
        ("--kind", arguments.kind.is_some()),
        ("--address", arguments.address.is_some()),
        ("--entry", !arguments.entry.is_empty()),
        ("--sweep", arguments.sweep),
    ] {
        ensure!(!is_given, "{option} is for an image that is only looked at");
    }
    match (&arguments.workload, &arguments.subject) {
        (Some(name), _) => Ok((name.clone(), workload(name, arguments.iterations, folder.path())?)),
        (None, Some(path)) => {
            let options = VmOptions { resume: arguments.resume.clone(), ..VmOptions::default() };
            Ok((audit::file_name(path), Vm::load(Some(path), &options)?))
        }
        (None, None) => bail!("nothing to run"),
    }
}

fn workload(name: &str, iterations: Option<u32>, folder: &Path) -> anyhow::Result<Vm> {
    let all = workloads::all();
    let workload = all.iter().find(|each| each.name == name);
    let workload = workload.with_context(|| format!("no workload {name:?}"))?;
    let image = workload.assemble(iterations.unwrap_or(workload.first_iterations))?;
    let (kernel, disk) = (folder.join("guest.bin"), folder.join("disk.img"));
    std::fs::write(&kernel, &image.bytes)?;
    let has_disk = image.disk_sectors > 0;
    if has_disk {
        std::fs::write(&disk, workloads::disk_image(image.disk_sectors))?;
    }
    let options = VmOptions {
        kernel: Some(kernel),
        kind: Some("multiboot".to_owned()),
        disk: has_disk.then_some(disk),
        disk_read_only: true,
        memory: Some(format!("{}K", workload.memory_bytes >> 10)),
        ..VmOptions::default()
    };
    Ok(Vm::load(None, &options)?)
}

/// In which ways the guest is run.
fn options(arguments: &Arguments, vm: &Vm) -> anyhow::Result<Vec<Options>> {
    let said = match vm.strategy.id {
        StrategyId::CodePatching => vm.strategy.options().code_patching,
        _ => vm.options.code_patching,
    };
    let modes = match arguments.mode {
        None => vec![said.mode],
        Some(Modes::Prescan) => vec![Mode::Prescan],
        Some(Modes::OnTrap) => vec![Mode::OnTrap],
        Some(Modes::Both) => vec![Mode::Prescan, Mode::OnTrap],
    };
    if arguments.threshold.is_some() && !modes.contains(&Mode::OnTrap) {
        bail!("--threshold is for on-trap mode: say --mode on-trap as well");
    }
    let threshold = arguments.threshold.unwrap_or(said.threshold);
    Ok(modes.into_iter().map(|mode| Options { mode, threshold }).collect())
}

/// How the wait for a guest's process ended.
enum Outcome {
    Told(Report),
    Interrupted,
    Failed(String),
}

/// Runs the guest in a process of its own.
fn run(plan: &Plan, folder: &Path, no_sandbox: bool, stop: &Stop) -> anyhow::Result<Outcome> {
    let [told, report, record] =
        ["plan.toml", "report.toml", "crash"].map(|name| folder.join(name));
    std::fs::write(&told, toml::to_string(plan)?)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("patches-worker").args([&told, &report, &record]);
    // A panic that looked for its lines in the program's file would end as a forbidden call.
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::null());
    if no_sandbox {
        command.arg("--no-sandbox");
    }
    process::bind_to_us(&mut command);
    let mut child = command.spawn().context("the guest's process cannot be started")?;
    let deadline = Instant::now() + plan.time + GRACE;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let is_late = Instant::now() >= deadline;
        if stop.is_raised() || is_late {
            child.kill()?;
            child.wait()?;
            let late = "the monitor does not come back from its guest".to_owned();
            return Ok(if is_late { Outcome::Failed(late) } else { Outcome::Interrupted });
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match read(&report) {
        Some(report) if ended.success() => Ok(Outcome::Told(report)),
        _ => {
            let record = File::open(&record).map(|file| CrashRecord::read(&file));
            let how = process::in_words(ended);
            Ok(Outcome::Failed(obituary(&how, &record.unwrap_or_default())))
        }
    }
}

/// What a guest's process told, if it has the shape of what one tells: the guest may have taken it over.
fn read(path: &Path) -> Option<Report> {
    let bytes = std::fs::metadata(path).ok()?.len();
    if bytes > LONGEST_REPORT {
        return None;
    }
    let mut report: Report = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let printable = |text: String| process::printable(&text, LONGEST_SENTENCE);
    report.end = report.end.map(printable);
    report.setup = report.setup.map(printable);
    let is_site = |site: &Site| (1..=LONGEST_INSTRUCTION).contains(&site.bytes.len());
    report.sites.iter().all(is_site).then_some(report)
}
