//! The hidden `ringside check-worker`: programs under one strategy, one after the other, in a process
//! that is confined before the first of them.
//!
//! What it says goes to its standard output, a line for each program when it begins and when it ends:
//! when the process dies, it is known over which. The text of a difference is the last that it says.

use super::file::{self, Series};
use super::{judge, repertoire};
use crate::lockstep::{End, Finding, Lockstep, Options};
use crate::strategies::{self, Variant};
use anyhow::Context;
use host::sandbox::Policy;
use host::sandbox::record::CrashRecord;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::signals::{Request, Signals};
use machine::{LinearAddress, Machine, MachineConfig};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use strategy::{Stop, Strategy};
use workloads::programs::{Program, layout};

/// How long a program may take: most are over after some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether one takes longer.
const GLANCE: Duration = Duration::from_millis(50);
/// Instructions of a program that is watched, at some microseconds each.
const WATCHED: u64 = 30_000;

/// Instructions of a stretch that is, and of what comes behind an instruction that was found.
const STRETCH: u64 = 5_000;
const NEAR: u64 = 200;

/// What a worker is told.
#[derive(clap::Args, Debug)]
pub struct WorkerArguments {
    /// The strategy
    #[arg(long)]
    strategy: String,
    /// A file with one program
    #[arg(long)]
    file: Option<PathBuf>,
    /// The seed of a series of programs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first of them, by number
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Milliseconds after which no new one is begun
    #[arg(long)]
    millis: u64,
    /// Instructions of a program at most
    #[arg(long)]
    limit: u64,
    /// The file for the crash record
    #[arg(long)]
    record: PathBuf,
    /// The strategy's error that is meant to be found
    #[arg(long)]
    planted_error: bool,
    /// Keep all rights
    #[arg(long)]
    no_sandbox: bool,
}

/// What one program came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// No difference.
    Same(String),
    /// A difference that is stated of the strategy.
    Stated(String),
    /// A difference that the architecture leaves open.
    Open(String),
    /// Nobody can tell in time whether there is one.
    Undecided,
    /// A difference.
    Different(String),
}

/// How far a program went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    pub(super) stretches: u64,
}

/// The worker itself.
///
/// # Errors
/// When something cannot be set up, or the host fails.
pub fn main(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let variant = crate::config::variant(&arguments.strategy, &Default::default());
    let variant = variant.map_err(anyhow::Error::msg)?;
    let mut jobs = Vec::new();
    for (number, program) in programs(arguments, variant)? {
        jobs.push(Job::new(variant, number, &program)?);
    }
    let record =
        File::options().read(true).write(true).create(true).truncate(true).open(&arguments.record);
    CrashRecord::keep_in(&record?).context("the crash record cannot be kept")?;
    // Made now, for later there is no right to.
    let mut strategy = match arguments.planted_error {
        true => strategies::make_with_planted_error(variant.id)?,
        false => strategies::make(variant)?,
    };
    let deadlines = Deadlines::default();
    let policy = Policy { file_bytes: None, ..strategies::policy(variant.id) };
    let prepared = (!arguments.no_sandbox).then(|| strategies::confine(&policy)).transpose()?;
    deadlines.start();
    if let Some(prepared) = prepared {
        prepared.seal()?;
    }
    let begun = Instant::now();
    for job in jobs {
        if begun.elapsed() >= Duration::from_millis(arguments.millis) {
            break;
        }
        say(&format!("begin {}", job.number))?;
        let (number, seed) = (job.number, job.seed);
        let judged = job.run(strategy, arguments.limit, &deadlines)?;
        say(&judged.line(number))?;
        if let Verdict::Different(text) = judged.verdict {
            say(&format!("Program {number}, made from {seed:#018x}:\n{text}"))?;
            break;
        }
        match judged.given_back {
            Some(given_back) => strategy = given_back,
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{text}")?;
    output.flush()
}

fn programs(arguments: &WorkerArguments, variant: Variant) -> anyhow::Result<Vec<(u64, Program)>> {
    let series = Series { seed: arguments.seed, first: arguments.first, count: arguments.count };
    let mut programs: Vec<_> = series.programs(variant).collect();
    if let Some(path) = &arguments.file {
        programs.push((arguments.first + arguments.count, file::read(path)?.program));
    }
    Ok(programs)
}

/// A program that is ready to run.
struct Job {
    variant: Variant,
    number: u64,
    seed: u64,
    leader: Machine,
    reference: Machine,
    /// For strategies whose guests can go wrong by design.
    watched: Option<Machine>,
}

/// What a program came to.
struct Judged {
    verdict: Verdict,
    counts: Counts,
    /// The instruction at which a difference was found.
    place: Option<LinearAddress>,
    /// The strategy, if it can go on.
    given_back: Option<Box<dyn Strategy>>,
}

impl Judged {
    /// The line about it.
    fn line(&self, number: u64) -> String {
        let (word, text) = match &self.verdict {
            Verdict::Same(how) => ("same", how.clone()),
            Verdict::Stated(why) => ("stated", why.clone()),
            Verdict::Open(why) => ("open", why.clone()),
            Verdict::Undecided => ("undecided", String::new()),
            Verdict::Different(_) => {
                ("different", self.place.map_or(String::new(), |place| place.0.to_string()))
            }
        };
        format!("{word} {number} {} {} {text}", self.counts.instructions, self.counts.stretches)
    }
}

impl Job {
    fn new(variant: Variant, number: u64, program: &Program) -> anyhow::Result<Job> {
        let image = program.assemble().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Job {
            variant,
            number,
            seed: program.seed,
            leader: machine(&image)?,
            reference: machine(&image)?,
            watched: strategies::can_watch(variant).then(|| machine(&image)).transpose()?,
        })
    }

    /// Holds the strategy against the reference over the whole program, and gives it back if it can
    /// go on.
    fn run(
        self,
        strategy: Box<dyn Strategy>,
        limit: u64,
        deadlines: &Deadlines,
    ) -> anyhow::Result<Judged> {
        let options = Options {
            stretch: [10, 100, 1_000, 20_000][(self.seed % 4) as usize],
            seed: self.seed,
            all_memory: true,
            patience: Some(PATIENCE),
        };
        deadlines.begin(self.leader.signals());
        let mut lockstep = Lockstep::new(strategy, self.leader, self.reference, options)?;
        let end = lockstep.run(limit);
        deadlines.end();
        let progress = lockstep.progress();
        let counts = Counts { instructions: progress.instructions, stretches: progress.stretches };
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                let lost = error.downcast_ref().and_then(repertoire::lost);
                let verdict = Verdict::Stated(lost.ok_or(error)?);
                return Ok(Judged { verdict, counts, place: None, given_back: None });
            }
        };
        let (verdict, finding) = match end {
            End::Stopped(stop) => (Verdict::Same(word(stop).to_owned()), None),
            End::Limit if counts.instructions < limit => (Verdict::Same("time".to_owned()), None),
            End::Limit => (Verdict::Same("limit".to_owned()), None),
            End::Undecided => (Verdict::Undecided, None),
            End::Different(finding) => (judge::judge(self.variant, &finding), Some(finding)),
        };
        let (Verdict::Different(_), Some(finding)) = (&verdict, finding) else {
            let given_back = Some(lockstep.into_strategy());
            return Ok(Judged { verdict, counts, place: None, given_back });
        };
        // A process has one window at linear address 0, so that the strategy goes.
        let machines = [Some(lockstep.into_leader()), self.watched];
        let verdict = explain(self.variant, machines, &finding)?.unwrap_or(verdict);
        let is_located = !judge::is_unlocated(&finding);
        let place = is_located.then(|| finding.before.instruction_address());
        Ok(Judged { verdict, counts, place, given_back: None })
    }
}

/// Whether the guest has left the architecture: soon behind the place that was found, on the machine that
/// is there; or at the instruction that was found, if one was, in the whole program on another machine, in
/// which interrupts come elsewhere.
fn explain(
    variant: Variant,
    [here, anew]: [Option<Machine>; 2],
    finding: &Finding,
) -> anyhow::Result<Option<Verdict>> {
    let is_located = !judge::is_unlocated(finding);
    let address = format!(" at {}:", finding.before.instruction_address());
    let is_it = |sentence: &String| !is_located || sentence.contains(&address);
    // An attempt that stops too soon looks right, so that the place can be before the instruction.
    let soon = if is_located { NEAR } else { STRETCH };
    let attempts = [(here, soon, false), (anew, WATCHED, true)];
    for (machine, most, is_whole) in attempts {
        let Some(mut machine) = machine.filter(|_| strategies::can_watch(variant)) else {
            continue;
        };
        let left = strategies::watch(variant, &mut machine, most)?;
        if let Some(sentence) = left.filter(|left| !is_whole || is_it(left)) {
            return Ok(Some(Verdict::Stated(sentence)));
        }
    }
    Ok(None)
}

/// How a program ended, in a word.
fn word(stop: Stop) -> &'static str {
    match stop {
        Stop::Exit(0) => "end",
        Stop::Exit(_) => "exit",
        Stop::Reset => "reset",
        Stop::PowerOff => "power-off",
        Stop::Limit | Stop::Requested => "limit",
        Stop::Halted => "halted",
        Stop::TripleFault => "triple-fault",
    }
}

/// A machine into which an image is loaded.
fn machine(image: &[u8]) -> anyhow::Result<Machine> {
    let config = MachineConfig { memory_bytes: layout::MEMORY, ..MachineConfig::default() };
    let mut machine = Machine::new(&config)?;
    let kernel = Kernel { path: "program".into(), bytes: image.to_vec() };
    let kind = Some(ImageKind::Multiboot);
    machine::boot::load(&mut machine, &BootSource { kernel, kind, ..Default::default() })?;
    Ok(machine)
}

/// Wakes guests that wait for an interrupt which their own code has made impossible: the host's
/// request to stop ends the stretch, and then the comparison sees how late it is.
#[derive(Clone, Default)]
struct Deadlines(Arc<Mutex<Option<Deadline>>>);

/// Whom to stop, and when.
type Deadline = (Arc<Signals>, Instant);

impl Deadlines {
    fn begin(&self, signals: &Arc<Signals>) {
        *self.lock() = Some((signals.clone(), Instant::now() + PATIENCE));
    }

    fn end(&self) {
        *self.lock() = None;
    }

    /// Starts the thread that looks; it ends with the process. When this returns, the thread has begun,
    /// and with that made the system calls that are its library's.
    fn start(&self) {
        let watched = self.clone();
        let (begin, begun) = mpsc::channel();
        std::thread::spawn(move || {
            // The receiver waits for this, so it is there.
            let _ = begin.send(());
            loop {
                std::thread::sleep(GLANCE);
                if let Some((signals, deadline)) = &mut *watched.lock()
                    && Instant::now() >= *deadline
                {
                    signals.request(Request::Stop);
                    *deadline = Instant::now() + PATIENCE;
                }
            }
        });
        // An error means that the thread has ended already: nothing to wait for.
        let _ = begun.recv();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Signals>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
