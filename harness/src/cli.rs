//! The command line, and what a failure means for the exit status.

use crate::config::VmOptions;
use crate::{audit, bench, check, compare, doctor, list, patches, peers, run, translate, worker};
use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// The status when what was asked for makes no sense or cannot be begun; clap uses the same.
const SETUP_STATUS: u8 = 2;

/// The variable that asks for debug logs, such as `RINGSIDE_LOG=debug`.
const LOG_VARIABLE: &str = "RINGSIDE_LOG";

/// Runs one IA-32 guest under several ways of virtualizing the CPU and compares them.
///
/// Without a command, the built-in experiment runs: every workload under every strategy, with QEMU
/// beside them where it is installed.
#[derive(Parser, Debug)]
#[command(name = "ringside", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measure workloads under strategies and peers
    Bench(BenchArguments),
    /// Boot a virtual machine with its serial port on this terminal
    Run(Box<RunArguments>),
    /// Draw the plots of finished runs again and write their reports
    Plot(PlotArguments),
    /// Count the privileged and sensitive instructions in a kernel, and say what becomes of them
    Audit(audit::Arguments),
    /// Run two strategies in lockstep and show the first difference
    Compare(compare::Arguments),
    /// Run random programs under every strategy, and make smaller what makes a difference
    Check(check::Arguments),
    /// Show what binary translation makes of the code at an address in a kernel
    Translate(translate::Arguments),
    /// Show what code patching makes of a kernel, or of a guest as it runs, and how often each site ran
    Patches(patches::Arguments),
    /// Show the strategies, peers, workloads and CPU models
    List,
    /// Show what this host can do, and why not
    Doctor,
    #[command(hide = true)]
    CheckWorker(check::WorkerArguments),
    #[command(hide = true)]
    CompareWorker(compare::Arguments),
    #[command(hide = true)]
    PatchesWorker(patches::WorkerArguments),
    #[command(hide = true)]
    Worker(worker::Arguments),
    #[command(hide = true)]
    NativeWorker(peers::NativeArguments),
    #[command(hide = true)]
    VmWorker(run::WorkerArguments),
}

/// `ringside bench`
#[derive(Args, Default, Debug)]
pub struct BenchArguments {
    /// The experiment; the built-in one if none is named
    #[arg(value_name = "EXPERIMENT.toml")]
    pub experiment: Option<PathBuf>,
    /// Strategies to measure; without --peer, no peers
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub strategy: Option<Vec<String>>,
    /// Workloads and groups to measure
    #[arg(long, visible_alias = "group", value_name = "NAMES", value_delimiter = ',')]
    pub workload: Option<Vec<String>>,
    /// Peers to measure
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub peer: Option<Vec<String>>,
    /// Samples of each workload under each strategy
    #[arg(long, value_name = "NUMBER")]
    pub samples: Option<u32>,
    /// The folder for the results; an interrupted run of the same experiment in it is continued
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Continue the interrupted run in this folder
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with_all = ["experiment", "strategy", "workload", "peer", "samples", "out"]
    )]
    pub resume: Option<PathBuf>,
    /// Let the processes of guests keep all rights, for debugging: a hostile guest may then do
    /// whatever you may
    #[arg(long)]
    pub no_sandbox: bool,
}

/// `ringside run`
#[derive(Args, Debug)]
#[command(after_help = run::HELP)]
pub struct RunArguments {
    /// The description of the virtual machine
    #[arg(value_name = "VM.toml")]
    pub vm: Option<PathBuf>,
    /// What the command line changes in it.
    #[command(flatten)]
    pub options: VmOptions,
    /// What is done with it besides.
    #[command(flatten)]
    pub course: run::CourseOptions,
    /// Show the guest's text screen instead of its serial port, and type on its keyboard
    #[arg(long)]
    pub screen: bool,
    /// Write the text screen as it is in the end to this PNG file
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
    /// Let the guest's process keep all rights, for debugging: a hostile guest may then do whatever
    /// you may
    #[arg(long)]
    pub no_sandbox: bool,
}

#[derive(Args, Debug)]
struct PlotArguments {
    /// The folders of the runs
    #[arg(value_name = "FOLDER", required = true)]
    folders: Vec<PathBuf>,
}

/// An error with the exit status that it leads to.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// What was asked for makes no sense or cannot be begun: status 2.
    pub fn setup(error: impl Into<anyhow::Error>) -> Failure {
        Failure { status: SETUP_STATUS, message: format!("{:#}", error.into()) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The `ringside` program.
#[must_use]
pub fn main() -> ExitCode {
    start_logging();
    machine::host_time::sleep_exactly();
    match dispatch(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ringside: {error:#}");
            ExitCode::from(error.downcast_ref::<Failure>().map_or(1, |failure| failure.status))
        }
    }
}

fn dispatch(command: Option<Command>) -> anyhow::Result<ExitCode> {
    match command {
        None => bench::main(&BenchArguments::default()),
        Some(Command::Bench(arguments)) => bench::main(&arguments),
        Some(Command::Run(arguments)) => run::main(&arguments),
        Some(Command::Plot(PlotArguments { folders })) => {
            folders.iter().try_for_each(|folder| bench::draw(folder))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Audit(arguments)) => audit::main(&arguments),
        Some(Command::Check(arguments)) => check::main(&arguments),
        Some(Command::CheckWorker(arguments)) => check::worker_main(&arguments),
        Some(Command::Compare(arguments)) => compare::main(&arguments),
        Some(Command::CompareWorker(arguments)) => compare::worker_main(&arguments),
        Some(Command::Translate(arguments)) => translate::main(&arguments),
        Some(Command::Patches(arguments)) => patches::main(&arguments),
        Some(Command::PatchesWorker(arguments)) => patches::worker_main(&arguments),
        Some(Command::List) => print(&list::text()),
        Some(Command::Doctor) => print(&doctor::text()),
        Some(Command::Worker(arguments)) => {
            worker::main(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::NativeWorker(arguments)) => {
            peers::native_main(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::VmWorker(arguments)) => run::worker_main(&arguments),
    }
}

/// Prints, without regard to a reader that has seen enough (`ringside list | head`).
fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn start_logging() {
    let Ok(wanted) = std::env::var(LOG_VARIABLE) else { return };
    let level = wanted.parse().unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
