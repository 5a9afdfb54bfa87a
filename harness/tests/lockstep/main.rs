//! Strategies in lockstep over workloads, and the errors that it has to find.
//!
//! Trials run one after the other: direct execution has one window in a process.

mod guest;
mod planted;

use guest::Pair;
use libtest_mimic::{Arguments, Failed, Trial};
use ringside::lockstep::{End, Lockstep, Options};
use ringside::strategies;
use std::process::ExitCode;
use strategy::{Stop, Strategy, StrategyId, Support};

/// Workloads that all strategies run right, with iterations for a few million instructions at most.
const WORKLOADS: [(&str, u32); 12] = [
    ("sieve", 20),
    ("fib", 20),
    ("matmul-sse", 10),
    ("callret", 200_000),
    ("syscall", 20_000),
    ("pgfault", 10_000),
    ("ptemod", 20_000),
    ("timer", 60),
    ("disk", 4),
    ("console", 10_000),
    ("idle", 10),
    ("forkwait", 40),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let usable = usable();
    let mut trials = Vec::new();
    for &id in &usable {
        for (workload, iterations) in WORKLOADS {
            trials.push(Trial::test(format!("{id}/{workload}"), move || {
                agree(id, workload, iterations).map_err(Failed::from)
            }));
        }
    }
    trials.extend(planted::trials(&usable));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn usable() -> Vec<StrategyId> {
    let works = |id: &StrategyId| match strategies::support(*id) {
        Support::Missing(why) => {
            eprintln!("{id} does not work here and is left out: {why}");
            false
        }
        Support::Full | Support::Qualified(_) => true,
    };
    StrategyId::ALL.into_iter().filter(|&id| strategies::is_built(id)).filter(works).collect()
}

fn make(id: StrategyId) -> Box<dyn Strategy> {
    strategies::make(id).expect("a strategy that works here")
}

fn agree(id: StrategyId, workload: &str, iterations: u32) -> Result<(), String> {
    let Pair { leader, reference, disk: _disk } = Pair::boot(workload, iterations);
    let options = Options::default();
    let lockstep = Lockstep::new(make(id), leader, reference, options);
    let mut lockstep = lockstep.map_err(|error| error.to_string())?;
    let end = lockstep.run(u64::MAX).map_err(|error| error.to_string())?;
    let progress = lockstep.progress();
    println!("{id}/{workload}: {progress:?}");
    match end {
        End::Stopped(Stop::Exit(0)) if progress.stretches > 1 => Ok(()),
        End::Different(finding) => Err(finding.to_string()),
        end => Err(format!("{end:?} after {progress:?}")),
    }
}
