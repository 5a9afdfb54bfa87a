//! The hidden `ringside check-worker`: programs under one strategy, one after the other, in a process
//! that is confined before the first of them.
//!
//! What it says goes to its standard output, a line for each program when it begins and when it ends:
//! when the process dies, it is known over which. The text of a difference is the last that it says.

use super::file::{self, Series};
use super::repertoire;
use crate::lockstep::{End, Finding, Lockstep, Options};
use crate::strategies;
use anyhow::Context;
use host::sandbox::Policy;
use host::sandbox::record::CrashRecord;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::signals::{Request, Signals};
use machine::{Machine, MachineConfig};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use strategy::{Stop, Strategy, StrategyId};
use workloads::programs::{Program, layout};

/// How long a program may take: most are over after some milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether one takes longer.
const GLANCE: Duration = Duration::from_millis(50);
/// Instructions of a program that is watched, at some microseconds each.
const WATCHED: u64 = 30_000;

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
    let id = crate::config::strategy(&arguments.strategy).map_err(anyhow::Error::msg)?;
    let mut jobs = Vec::new();
    for (number, program) in programs(arguments, id)? {
        jobs.push(Job::new(id, number, &program)?);
    }
    let record =
        File::options().read(true).write(true).create(true).truncate(true).open(&arguments.record);
    CrashRecord::keep_in(&record?).context("the crash record cannot be kept")?;
    // Made now, for later there is no right to.
    let mut strategy = match arguments.planted_error {
        true => strategies::make_with_planted_error(id)?,
        false => strategies::make(id)?,
    };
    let deadlines = Deadlines::default();
    let policy = Policy { file_bytes: None, ..strategies::policy(id) };
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
        let (verdict, counts, given_back) = job.run(strategy, arguments.limit, &deadlines)?;
        say(&line(number, &verdict, counts))?;
        if let Verdict::Different(text) = verdict {
            say(&format!("Program {number}, made from {seed:#018x}:\n{text}"))?;
            break;
        }
        match given_back {
            Some(given_back) => strategy = given_back,
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The line about a program that has ended.
fn line(number: u64, verdict: &Verdict, counts: Counts) -> String {
    let (word, text) = match verdict {
        Verdict::Same(how) => ("same", how.as_str()),
        Verdict::Stated(why) => ("stated", why.as_str()),
        Verdict::Open(why) => ("open", why.as_str()),
        Verdict::Different(_) => ("different", ""),
    };
    format!("{word} {number} {} {} {text}", counts.instructions, counts.stretches)
}

fn say(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{text}")?;
    output.flush()
}

fn programs(arguments: &WorkerArguments, id: StrategyId) -> anyhow::Result<Vec<(u64, Program)>> {
    let series = Series { seed: arguments.seed, first: arguments.first, count: arguments.count };
    let mut programs: Vec<_> = series.programs(id).collect();
    if let Some(path) = &arguments.file {
        programs.push((arguments.first + arguments.count, file::read(path)?.program));
    }
    Ok(programs)
}

/// A program that is ready to run.
struct Job {
    number: u64,
    seed: u64,
    leader: Machine,
    reference: Machine,
    /// For strategies whose guests can go wrong by design.
    watched: Option<Machine>,
}

/// What a program came to, and the strategy, if it can go on.
type Judged = (Verdict, Counts, Option<Box<dyn Strategy>>);

impl Job {
    fn new(id: StrategyId, number: u64, program: &Program) -> anyhow::Result<Job> {
        let image = program.assemble().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Job {
            number,
            seed: program.seed,
            leader: machine(&image)?,
            reference: machine(&image)?,
            watched: strategies::can_watch(id).then(|| machine(&image)).transpose()?,
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
        let id = strategy.id();
        let options = Options {
            stretch: [10, 100, 1_000, 20_000][(self.seed % 4) as usize],
            seed: self.seed,
            all_memory: false,
            patience: Some(PATIENCE),
        };
        deadlines.begin(self.leader.signals());
        let mut lockstep = Lockstep::new(strategy, self.leader, self.reference, options)?;
        let end = lockstep.run(limit)?;
        deadlines.end();
        let progress = lockstep.progress();
        let counts = Counts { instructions: progress.instructions, stretches: progress.stretches };
        let finding = match end {
            End::Stopped(stop) => {
                let same = Verdict::Same(word(stop).to_owned());
                return Ok((same, counts, Some(lockstep.into_strategy())));
            }
            End::Limit => {
                let same = Verdict::Same("limit".to_owned());
                return Ok((same, counts, Some(lockstep.into_strategy())));
            }
            End::Different(finding) => finding,
        };
        match repertoire::judge(id, &finding) {
            Verdict::Different(text) => {
                // A process has one window at linear address 0.
                drop(lockstep);
                Ok((explain(id, self.watched, &finding, text)?, counts, None))
            }
            verdict => Ok((verdict, counts, Some(lockstep.into_strategy()))),
        }
    }
}

/// Whether the guest has left the architecture: at the instruction that was found, if one was.
fn explain(
    id: StrategyId,
    machine: Option<Machine>,
    finding: &Finding,
    text: String,
) -> anyhow::Result<Verdict> {
    let Some(mut machine) = machine else { return Ok(Verdict::Different(text)) };
    let here = format!(" at {}:", finding.before.instruction_address());
    let is_it = |sentence: &String| repertoire::is_unlocated(finding) || sentence.contains(&here);
    Ok(match strategies::watch(id, &mut machine, WATCHED)?.filter(is_it) {
        Some(sentence) => Verdict::Stated(sentence),
        None => Verdict::Different(text),
    })
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
