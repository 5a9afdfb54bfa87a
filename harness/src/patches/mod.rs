//! `ringside patches`: what code patching makes of the instructions that cannot run as they are, in an
//! image that is only looked at or in a guest that runs.
//!
//! An image is read as `ringside audit` reads it, and examined from its entry, or all of its code where
//! sections tell that from data. A guest runs in a
//! sandboxed process of its own, under stubs that count, and tells in the end what every site was, what
//! it became, and how often it ran.

mod rows;
mod running;
mod text;
mod worker;

pub(crate) use rows::{BEYOND, UNDEFINED};
pub use rows::{Row, kind, rows};
pub use running::Course;
pub(crate) use text::{FATES, fate_of, how};
pub use worker::{WorkerArguments, main as worker_main};

use crate::audit::{self, ImageKind, address, image::CodeSize, image::Program};
use crate::cli::Failure;
use crate::config::Time;
use crate::plot;
use anyhow::{Context, bail, ensure};
use code_patching::{Mode, Site};
use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a guest runs when nothing is said.
const USUAL_TIME: Duration = Duration::from_secs(5);

/// Behind the options in `ringside patches --help`.
pub const HELP: &str = "\
What ends in .toml is the description of a virtual machine: it is run, with its serial port on the
standard error. Anything else is an image: it is examined from its entry, or all of its executable
sections where it has some, and nothing runs.

Exit status: 0; 2 when something is wrong with what was asked for; 8 when the monitor fails; 130 after
Ctrl-C or a signal.";

/// When instructions are patched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Modes {
    /// Before they are executed for the first time
    Prescan,
    /// When they have trapped often
    OnTrap,
    /// First the one and then the other, to compare
    Both,
}

/// `ringside patches`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// A kernel to look at, or the description of a virtual machine to run
    #[arg(value_name = "IMAGE|VM.toml", required_unless_present = "workload")]
    subject: Option<PathBuf>,
    /// A workload to run instead
    #[arg(long, value_name = "NAME", conflicts_with = "subject")]
    workload: Option<String>,
    /// Its iterations
    #[arg(long, value_name = "NUMBER", requires = "workload")]
    iterations: Option<u32>,
    /// Go on with a saved machine instead of booting one
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// How long the guest runs, such as 5s
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// When instructions are patched, instead of what the description says
    #[arg(long, value_name = "MODE", value_enum)]
    mode: Option<Modes>,
    /// In on-trap mode, the traps of an instruction before it is patched
    #[arg(long, value_name = "TRAPS")]
    threshold: Option<NonZeroU64>,
    /// What the image is
    #[arg(long, value_name = "KIND", value_enum)]
    kind: Option<ImageKind>,
    /// Where a flat binary goes, such as 0x100000; its first byte is its entry
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<u32>,
    /// Examine what is reached from here too
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    entry: Vec<u32>,
    /// Examine all executable bytes, even where nothing tells code from data
    #[arg(long)]
    sweep: bool,
    /// List so many sites at most, those that ran most first
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    most: usize,
    /// Write all sites to this CSV file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw the sites by kind, and what was counted as the guest ran, into this file, SVG or PNG by its
    /// extension
    #[arg(long, value_name = "FILE", value_parser = audit::plot_file)]
    plot: Option<PathBuf>,
    /// Let the guest's process keep all rights, for debugging: a hostile guest may then do whatever
    /// you may
    #[arg(long)]
    no_sandbox: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let time: Time = text.parse()?;
    if time.0.is_zero() { Err("no time at all".to_owned()) } else { Ok(time.0) }
}

/// Shows the sites of what `arguments` name.
///
/// # Errors
/// When it cannot be read, makes no sense, or the host fails.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let is_vm = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    match &arguments.subject {
        Some(path) if !is_vm(path) => {
            let (name, found) = look_at(path, arguments).map_err(Failure::setup)?;
            show(arguments, &name, &found)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => running::main(arguments),
    }
}

/// What there is to show.
pub enum Found {
    /// An image that nobody ran.
    Image {
        /// Its sites, by address.
        sites: Vec<Site>,
        /// Whether all that is executable was examined, and not what is reached alone.
        is_swept: bool,
    },
    /// What became of a guest, in one mode or in both.
    Courses(Vec<Course>),
}

impl Found {
    /// The sites, with the mode that they were found in.
    pub fn sites(&self) -> impl Iterator<Item = (Option<Mode>, &Site)> {
        let (image, courses): (&[Site], &[Course]) = match self {
            Found::Image { sites, .. } => (sites, &[]),
            Found::Courses(courses) => (&[], courses),
        };
        let of_courses = courses
            .iter()
            .flat_map(|course| course.sites.iter().map(|site| (Some(course.options.mode), site)));
        image.iter().map(|site| (None, site)).chain(of_courses)
    }
}

/// Examines an image.
fn look_at(path: &Path, arguments: &Arguments) -> anyhow::Result<(String, Found)> {
    for (option, is_given) in [
        ("--resume", arguments.resume.is_some()),
        ("--for", arguments.time.is_some()),
        ("--mode", arguments.mode.is_some()),
        ("--threshold", arguments.threshold.is_some()),
        ("--no-sandbox", arguments.no_sandbox),
    ] {
        ensure!(
            !is_given,
            "{option} is for a guest that runs, and {} is only looked at (a description of a virtual \
             machine ends in .toml)",
            path.display()
        );
    }
    let kind = arguments.kind.unwrap_or_default();
    let program = audit::read(path, kind, arguments.address)?;
    if program.size == CodeSize::Bits16 {
        bail!(
            "{}: 16-bit code is not patched: each site becomes a byte that traps",
            path.display()
        );
    }
    if let Some(entry) = arguments.entry.iter().find(|&&at| program.find_code(at).is_none()) {
        bail!("{}: --entry {entry:#x}: no code is there", path.display());
    }
    let entries: Vec<u32> = program.entries.iter().chain(&arguments.entry).copied().collect();
    let is_swept = program.is_told_apart || arguments.sweep;
    let code = program.pieces.iter().filter(|piece| piece.is_code && is_swept);
    let swept: Vec<_> =
        code.map(|piece| piece.address..piece.address + piece.bytes.len() as u32).collect();
    let sites = code_patching::survey(&entries, &swept, |at| byte(&program, at));
    Ok((audit::file_name(path), Found::Image { sites, is_swept }))
}

fn byte(program: &Program, address: u32) -> Option<u8> {
    let (piece, offset) = program.find_code(address)?;
    Some(program.pieces[piece].bytes[offset])
}

/// Writes what `arguments` ask for.
fn show(arguments: &Arguments, name: &str, found: &Found) -> anyhow::Result<()> {
    if let Some(path) = &arguments.csv {
        rows::write(found, path).map_err(Failure::setup)?;
    }
    if let Some(path) = &arguments.plot {
        plot::save_patches(found, name, path).map_err(Failure::setup)?;
    }
    let text = text::all(found, name, arguments.most);
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
    .context("the standard output cannot be written")
}
