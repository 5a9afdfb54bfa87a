//! `ringside compare`: two strategies in lockstep, and the first difference.
//!
//! Interpretation follows the other strategy with the inputs that this one had. Where neither is
//! interpretation, first the one and then the other is held against it.
//!
//! The guest runs in a process of its own, which is confined before the first instruction.

mod worker;

pub use worker::main as worker_main;

use crate::cli::Failure;
use crate::process;
use anyhow::Context;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Strategies differ.
const DIFFERENT_STATUS: u8 = 1;
/// It could not be told whether they do.
const UNDECIDED_STATUS: u8 = 3;
/// The monitor failed.
const FAILED_STATUS: u8 = 8;

/// Behind the options in `ringside compare --help`.
const HELP: &str = "\
Exit status: 0 when no difference was found; 1 after a difference; 2 when something is wrong with what
was asked for; 3 when the reference takes too long, so that nobody can tell; 8 when the monitor fails.";

/// `ringside compare`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// A strategy, or a named setting of one
    leader: String,
    /// Another one; where neither is interpretation, both are held against it
    follower: String,
    /// The description of the virtual machine
    #[arg(value_name = "VM.toml", required_unless_present_any = ["workload", "from"])]
    vm: Option<PathBuf>,
    /// A workload instead
    #[arg(long, value_name = "NAME", conflicts_with = "vm")]
    workload: Option<String>,
    /// Its iterations
    #[arg(long, value_name = "NUMBER", requires = "workload")]
    iterations: Option<u32>,
    /// Begin behind so many instructions, which interpretation executes alone; or from a saved
    /// machine
    #[arg(long, value_name = "NUMBER|FILE")]
    from: Option<String>,
    /// Compare so many instructions at most
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// Save the machine behind so many compared instructions
    #[arg(long, value_name = "NUMBER=FILE")]
    save_at: Option<String>,
    /// Instructions between two comparisons, on average
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    stretch: u64,
    /// What the lengths of stretches come from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Compare all memory each time: slow
    #[arg(long)]
    all_memory: bool,
    /// Let the guest's process keep all rights, for debugging
    #[arg(long)]
    no_sandbox: bool,
}

/// Compares in a process of its own.
///
/// # Errors
/// When that cannot be started.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    worker::check(arguments).map_err(Failure::setup)?;
    if arguments.no_sandbox {
        process::warn_of_no_sandbox();
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("compare-worker").args(std::env::args_os().skip(2));
    command.env("RUST_BACKTRACE", "0");
    process::bind_to_us(&mut command);
    let stop = crate::interrupt::watch(|| ());
    let mut child = command.spawn().context("the guest's process cannot be started")?;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.code().is_none() {
                eprintln!("ringside: the monitor died: {}", process::in_words(status));
            }
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(FAILED_STATUS)));
        }
        if stop.is_raised() {
            child.kill()?;
            child.wait()?;
            return Ok(ExitCode::from(crate::interrupt::STATUS));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
