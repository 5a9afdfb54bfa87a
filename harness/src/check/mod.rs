//! `ringside check`: random programs under every strategy, in lockstep with the reference.
//!
//! Each strategy is held against the reference, which is the emulator; two that agree with it agree
//! with each other, so that this covers all pairs. A program that makes a difference is made smaller
//! as long as it does (`smaller`), and written into a file that reproduces it.
//!
//! Programs run in processes of their own, some after the other in each (`worker`); what a process
//! says is a guest's word, for a guest may have taken it over. One that dies is a finding too.

mod child;
mod file;
mod judge;
mod repertoire;
mod share;
mod smaller;
mod worker;

pub use worker::{WorkerArguments, main as worker_main};

use crate::cli::Failure;
use crate::config;
use crate::process::{self, Stop};
use crate::strategies::{self, Options, Variant};
use anyhow::{Context, bail};
use child::{Child, Ended};
use file::{Saved, Series};
use share::Share;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strategy::{StrategyId, Support};
use workloads::programs::VERSION;

/// A difference was found.
const DIFFERENT_STATUS: u8 = 1;

/// Programs of one process at most: their machines are made before it is confined.
const BATCH: u64 = 40;
/// Time after which a process begins no new program.
const TURN: Duration = Duration::from_secs(4);

/// Behind the options in `ringside check --help`.
const HELP: &str = "\
Each strategy is held against the reference (the emulator), which covers all pairs: two that agree with
it agree with each other. The same seed gives the same programs; the time says how many of them run.

Exit status: 0 when no difference was found; 1 after a difference; 2 when something is wrong with what
was asked for; 8 when the monitor fails; 130 after Ctrl-C.";

/// `ringside check`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// How long, all strategies together
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = minutes)]
    minutes: Duration,
    /// What the programs are made from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u32,
    /// Strategies, or named settings of them; all strategies that work here if none is named
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    strategy: Vec<String>,
    /// The folder for programs that make a difference; it is made for the first of them
    #[arg(long, value_name = "DIR", default_value = "check")]
    out: PathBuf,
    /// Differences after which a strategy is left alone
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    most: u64,
    /// Begin with the program of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    first: u64,
    /// Programs of each strategy at most
    #[arg(long, value_name = "NUMBER")]
    programs: Option<u64>,
    /// Run the program in this file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minutes", "seed", "out", "most"])]
    reproduce: Option<PathBuf>,
    /// Use the strategy's variant with an error in it, for tests of this command
    #[arg(long, hide = true)]
    planted_error: bool,
    /// Let the processes of guests keep all rights, for debugging
    #[arg(long)]
    no_sandbox: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number is expected".to_owned())?;
    match Duration::try_from_secs_f64(number * 60.0) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("a number of minutes above 0 is expected".to_owned()),
    }
}

/// Runs programs until the time is over.
///
/// # Errors
/// When something is wrong with what was asked for, or a process cannot be started.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.no_sandbox {
        process::warn_of_no_sandbox();
    }
    let stop = crate::interrupt::watch(|| ());
    if let Some(path) = &arguments.reproduce {
        return reproduce(arguments, path, &stop);
    }
    let variants = variants(&arguments.strategy).map_err(Failure::setup)?;
    if arguments.out.exists() && !arguments.out.is_dir() {
        let error = anyhow::anyhow!("{} is no folder", arguments.out.display());
        return Err(Failure::setup(error).into());
    }
    let mut check =
        Check { arguments, stop, shares: variants.into_iter().map(Share::new).collect() };
    check.run()?;
    print!("{}", share::summary(&check.shares, arguments.seed));
    let found = check.shares.iter().any(|share| share.different > 0);
    Ok(match (found, check.stop.is_raised()) {
        (true, _) => ExitCode::from(DIFFERENT_STATUS),
        (false, true) => ExitCode::from(crate::interrupt::STATUS),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// The strategies that were asked for, or all that work here, without named settings of their options.
fn variants(names: &[String]) -> anyhow::Result<Vec<Variant>> {
    let mut variants = Vec::new();
    for name in names {
        let variant = config::variant(name, &Options::default()).map_err(anyhow::Error::msg)?;
        if let Support::Missing(why) = strategies::support(variant.id) {
            bail!("{variant} is not usable on this host: {why}");
        }
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    if variants.is_empty() {
        let usable = |id: &StrategyId| strategies::support(*id).is_usable();
        variants = StrategyId::ALL.into_iter().filter(usable).map(Variant::from).collect();
    }
    Ok(variants)
}

/// A check under way.
struct Check<'a> {
    arguments: &'a Arguments,
    stop: Stop,
    shares: Vec<Share>,
}

impl Check<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + self.arguments.minutes;
        while !self.stop.is_raised() {
            let left = end.saturating_duration_since(Instant::now());
            let most = self.arguments.programs.unwrap_or(u64::MAX);
            let Some(number) = share::next(&self.shares, most).filter(|_| !left.is_zero()) else {
                break;
            };
            self.turn(number, left, most)?;
        }
        Ok(())
    }

    /// Lets one strategy run some programs.
    fn turn(&mut self, number: usize, left: Duration, most: u64) -> anyhow::Result<()> {
        let (arguments, share) = (self.arguments, &self.shares[number]);
        let series = Series {
            seed: arguments.seed.into(),
            first: arguments.first + share.programs,
            count: BATCH.min(most - share.programs),
        };
        let child = Child {
            strategy: share.strategy,
            series: Some(series),
            file: None,
            turn: TURN.min(left),
            planted_error: arguments.planted_error,
            sandbox: !arguments.no_sandbox,
        };
        let begun = Instant::now();
        let told = child.run(&self.stop)?;
        let share = &mut self.shares[number];
        share.spent += begun.elapsed();
        share.add(&told);
        let (Ended::Different { .. } | Ended::Died { .. }) = &told.ended else { return Ok(()) };
        share.different += 1;
        if share.different >= arguments.most {
            share.done = true;
        }
        self.report(&child, series, &told.ended)
    }

    /// Makes the program smaller, and writes it into a file.
    fn report(&self, child: &Child<'_>, series: Series, ended: &Ended) -> anyhow::Result<()> {
        let (number, place, text) = match ended {
            Ended::Different { number, place, text } => (*number, *place, text.clone()),
            Ended::Died { number, how } => (*number, None, format!("Program {number}: {how}")),
            Ended::Well | Ended::Stopped => return Ok(()),
        };
        println!("{}: {text}", child.strategy);
        let out = &self.arguments.out;
        std::fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        let path = out.join(format!("{}-{}-{number}.toml", child.strategy, series.seed));
        let before = Series { count: number - series.first, ..series };
        let mut saved = Saved {
            version: VERSION,
            strategy: child.strategy,
            after: Some(before).filter(|before| before.count > 0),
            program: file::program(child.strategy, series.seed, number),
        };
        file::write(&path, &saved, &text)?;
        println!("{}: as it was found: making it smaller …", path.display());
        match smaller::smaller(child, &saved.program, place, &self.stop)? {
            Some((program, text)) => {
                saved.after = None;
                saved.program = program;
                file::write(&path, &saved, &text)?;
                println!(
                    "{}: {} instructions are left",
                    path.display(),
                    saved.program.instructions()
                );
                println!("{text}");
            }
            None => println!(
                "{}: not made smaller: by itself it makes no difference; the file says which programs \
                 run before it",
                path.display()
            ),
        }
        Ok(())
    }
}

/// Runs the program of a file.
fn reproduce(arguments: &Arguments, path: &Path, stop: &Stop) -> anyhow::Result<ExitCode> {
    let saved = file::read(path).map_err(Failure::setup)?;
    if let Support::Missing(why) = strategies::support(saved.strategy.id) {
        let error = anyhow::anyhow!("{} is not usable on this host: {why}", saved.strategy);
        return Err(Failure::setup(error).into());
    }
    let child = Child {
        strategy: saved.strategy,
        series: saved.after,
        file: Some(path),
        turn: Duration::from_secs(60),
        planted_error: arguments.planted_error,
        sandbox: !arguments.no_sandbox,
    };
    let told = child.run(stop)?;
    Ok(match told.ended {
        Ended::Different { text, .. } => {
            println!("{text}");
            ExitCode::from(DIFFERENT_STATUS)
        }
        Ended::Died { how, .. } => {
            println!("{}: {how}", saved.strategy);
            ExitCode::from(DIFFERENT_STATUS)
        }
        Ended::Stopped => ExitCode::from(crate::interrupt::STATUS),
        Ended::Well => {
            for line in &told.lines {
                println!("{}: {line}", saved.strategy);
            }
            ExitCode::SUCCESS
        }
    })
}
