//! `ringside run`: a virtual machine with its serial port on the terminal.
//!
//! The guest runs in a process of its own (`vm_worker`); this one holds the terminal, so that it
//! is restored even when a guest takes its monitor down.

mod gdb;
mod line;
mod plan;
mod recorded;
mod saves;
mod screen;
mod session;
mod terminal;
mod vm_worker;
mod wire;

pub use plan::CourseOptions;
pub(crate) use vm_worker::machine;
pub use vm_worker::{WorkerArguments, main as worker_main};

use crate::cli::{Failure, RunArguments};
use crate::config::Vm;
use crate::process::{self, Stop};
use crate::worker::obituary;
use crate::{interrupt, strategies};
use anyhow::Context;
use gdb::Relay;
use host::sandbox::record::CrashRecord;
use line::Line;
use plan::Plan;
use saves::Saves;
use screen::Screen;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use strategy::Support;
use terminal::{EscapeFilter, RawTerminal};
use vm_worker::{Report, VmEnd};

/// Behind the options in `ringside run --help`.
pub const HELP: &str = "\
The serial port, or the screen, is on the terminal; leave with Ctrl-] or Ctrl-A x.

Exit status: 2v+1 when the guest writes v to port 0xF4, as with QEMU's isa-debug-exit; 0 when the
guest switches itself off or the user leaves; 2 when something is wrong with the description or an
image; 4 after a triple fault; 6 when the guest halts for ever; 8 when the monitor fails; 10 when a
replay leaves its log, or a recorded strategy the architecture; 124 after --timeout; 130 after Ctrl-C or a signal.";

/// The monitor failed, and could not say so itself.
const FAILED_STATUS: u8 = 8;

/// How long past its deadline a worker may take to notice it.
const GRACE: Duration = Duration::from_secs(3);
/// The same where the emulator has to follow first, and a log is to be ended.
const RECORDING_GRACE: Duration = Duration::from_secs(30);

/// Characters that are printed of what the guest's process says.
const LONGEST_SENTENCE: usize = 500;

/// How often it is looked whether the guest has ended: often while it is young, so that short runs are
/// short; later seldom, so that an idle guest costs next to nothing.
const GLANCE: Duration = Duration::from_millis(5);
const LATER_GLANCE: Duration = Duration::from_millis(20);
const YOUNG: Duration = Duration::from_secs(2);

/// Runs the machine that `arguments` describe.
///
/// # Errors
/// When the description makes no sense, or the host fails.
pub fn main(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let vm = Vm::load(arguments.vm.as_deref(), &arguments.options).map_err(Failure::setup)?;
    let asked = arguments.options.strategy.as_deref();
    let mut plan = Plan::new(vm, &arguments.course, asked).map_err(Failure::setup)?;
    for strategy in plan.strategies() {
        if let Support::Missing(why) = strategies::support(strategy.id) {
            let error = anyhow::anyhow!("{strategy} is not usable on this host: {why}");
            return Err(Failure::setup(error).into());
        }
    }
    let stop = interrupt::watch(terminal::restore);
    let folder = tempfile::Builder::new().prefix("ringside-").tempdir()?;
    let files = Files::within(folder.path());
    let mut saves = Saves::begin(&mut plan.course, files.saved.clone()).map_err(Failure::setup)?;
    std::fs::write(&files.plan, toml::to_string(&plan)?)?;
    let gdb = arguments.course.gdb.map(|port| Relay::listen(port, &files.line)).transpose();
    let gdb = gdb.map_err(Failure::setup)?;
    let line = arguments.course.record.is_some().then(|| Line::listen(&files.line)).transpose()?;
    let mut child = start(arguments, &files)?;
    if let Some(relay) = gdb {
        eprintln!("[waiting for gdb: target remote 127.0.0.1:{}]", relay.port()?);
        relay.start();
    }

    let raw = RawTerminal::enter().context("the terminal cannot be made raw")?;
    if raw.is_some() {
        eprint!("[{} under {}; {}]\r\n", vm_name(&plan.vm), plan.vm.strategy, terminal::LEAVE);
    }
    let left = Stop::default();
    forward_input(child.stdin.take(), raw.is_some(), left.clone());
    let mut screen = arguments.screen.then(|| Screen::open(&files.frames)).transpose()?;
    let glance = || {
        if let Some(screen) = &mut screen {
            screen.refresh();
        }
        saves.look()
    };
    // What a debugger takes its time over does not count.
    let timeout = plan.vm.timeout.filter(|_| arguments.course.gdb.is_none());
    let patience = if line.is_some() { RECORDING_GRACE } else { GRACE };
    let deadline = timeout.map(|timeout| timeout.saturating_add(patience));
    let outcome = wait(&mut child, deadline, (&left, &stop), glance)?;
    end(&mut child, &outcome, line.as_ref())?;
    drop(screen);
    drop(raw);
    saves.look()?;
    if let Some(path) = &arguments.screenshot
        && std::fs::metadata(&files.frames)?.len() > 0
    {
        save_screen(&files.frames, path)?;
    }
    let status = finish(&outcome, &files)?;
    for name in saves.missed() {
        eprintln!("ringside: the guest ended before it was saved to {}", name.display());
    }
    Ok(status)
}

/// The files over which this process and the guest's talk.
struct Files {
    plan: PathBuf,
    report: PathBuf,
    record: PathBuf,
    frames: PathBuf,
    saved: PathBuf,
    line: PathBuf,
}

impl Files {
    fn within(folder: &Path) -> Files {
        Files {
            plan: folder.join("plan.toml"),
            report: folder.join("end.toml"),
            record: folder.join("crash"),
            frames: folder.join("frames"),
            saved: folder.join("saved"),
            line: folder.join("line"),
        }
    }
}

/// Starts the guest's process.
fn start(arguments: &RunArguments, files: &Files) -> anyhow::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("vm-worker").args([&files.plan, &files.report, &files.record]);
    command.arg("--saved").arg(&files.saved).stdin(Stdio::piped());
    if arguments.screen || arguments.screenshot.is_some() {
        File::create(&files.frames)?;
        command.arg("--frames").arg(&files.frames);
    }
    if arguments.screen {
        command.arg("--keyboard");
    }
    if arguments.course.gdb.is_some() || arguments.course.record.is_some() {
        command.arg("--line").arg(&files.line);
    }
    // A panic that looked for its lines in the program's file would end as a forbidden call.
    command.env("RUST_BACKTRACE", "0");
    if arguments.no_sandbox {
        process::warn_of_no_sandbox();
        command.arg("--no-sandbox");
    }
    process::bind_to_us(&mut command);
    command.spawn().context("the guest's process cannot be started")
}

/// Says how it ended, and what the exit status is.
fn finish(outcome: &Outcome, files: &Files) -> anyhow::Result<ExitCode> {
    let report = std::fs::read_to_string(&files.report).ok();
    let report = report.and_then(|text| toml::from_str::<Report>(&text).ok());
    if let Some(state) = report.as_ref().and_then(|report| report.state.as_ref()) {
        say(&format!("final state {state}"));
    }
    let ended = match outcome {
        Outcome::Left => return Ok(ExitCode::SUCCESS),
        Outcome::Interrupted => return Ok(ExitCode::from(interrupt::STATUS)),
        Outcome::TimedOut => return status(&VmEnd::Timeout),
        Outcome::Ended(ended) => *ended,
    };
    match report {
        Some(report) => status(&report.end),
        None => {
            let record = File::open(&files.record).map(|file| CrashRecord::read(&file));
            let how = process::in_words(ended);
            eprintln!("ringside: {}", obituary(&how, &record.unwrap_or_default()));
            Ok(ExitCode::from(FAILED_STATUS))
        }
    }
}

fn save_screen(frames: &Path, path: &Path) -> anyhow::Result<()> {
    screen::save(frames, path)
        .with_context(|| format!("the screen cannot be written to {}", path.display()))
}

fn vm_name(vm: &Vm) -> String {
    let path = vm.resume.as_ref().or(vm.kernel.as_ref()).or(vm.rom.as_ref());
    let name = path.and_then(|path| path.file_name()).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// How the wait for the guest ended.
enum Outcome {
    Ended(ExitStatus),
    Left,
    Interrupted,
    TimedOut,
}

fn wait(
    child: &mut Child,
    longest: Option<Duration>,
    (left, stop): (&Stop, &Stop),
    mut glance: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let deadline = longest.and_then(|longest| begin.checked_add(longest));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Outcome::Ended(status));
        }
        if left.is_raised() {
            return Ok(Outcome::Left);
        }
        if stop.is_raised() {
            return Ok(Outcome::Interrupted);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Outcome::TimedOut);
        }
        glance()?;
        std::thread::sleep(if begin.elapsed() < YOUNG { GLANCE } else { LATER_GLANCE });
    }
}

/// Ends a guest's process that has not ended by itself: by asking, where there is a line to it.
fn end(child: &mut Child, outcome: &Outcome, line: Option<&Line>) -> std::io::Result<()> {
    if let Outcome::Ended(_) = outcome {
        return Ok(());
    }
    let is_leaving = !matches!(outcome, Outcome::TimedOut) && line.is_some_and(Line::ask);
    let deadline = Instant::now() + RECORDING_GRACE;
    while is_leaving && Instant::now() < deadline {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(LATER_GLANCE);
    }
    child.kill()?;
    child.wait().map(|_| ())
}

/// Passes what is typed to the guest, in a thread that ends with the process; looks for the leaving
/// keys if a person types.
fn forward_input(pipe: Option<ChildStdin>, typed: bool, left: Stop) {
    let Some(mut pipe) = pipe else { return };
    std::thread::spawn(move || {
        let mut filter = EscapeFilter::default();
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut part) {
            let (passed, leave) = match typed {
                true => filter.pass(&part[..length]),
                false => (part[..length].to_vec(), false),
            };
            if leave {
                left.raise();
            }
            if leave || pipe.write_all(&passed).is_err() {
                return;
            }
        }
    });
}

/// Says what may be the words of a guest that has taken its monitor over.
fn say(words: &str) {
    eprintln!("ringside: {}", process::printable(words, LONGEST_SENTENCE));
}

/// Says how the guest ended, where that is worth a word, and what the exit status is.
fn status(end: &VmEnd) -> anyhow::Result<ExitCode> {
    match end {
        VmEnd::Exit(_) | VmEnd::PowerOff | VmEnd::Left | VmEnd::Replayed => {}
        VmEnd::Setup(message) => return Err(Failure::setup(anyhow::anyhow!("{message}")).into()),
        VmEnd::TripleFault(place) => say(&format!("triple fault at {place}")),
        VmEnd::Halted(place) => say(&format!("halted with interrupts off at {place}")),
        VmEnd::Timeout => say("the time that --timeout allows is over"),
        VmEnd::Diverged(how) => say(how),
        VmEnd::Failed(how) => say(&format!("the monitor failed: {how}")),
    }
    Ok(ExitCode::from(end.status()))
}
