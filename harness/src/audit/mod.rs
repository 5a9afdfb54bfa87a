//! `ringside audit`: a static look through a kernel for privileged and sensitive instructions.
//!
//! [`Audit::of`] decodes a program ([`image`]) and lists the [`Site`]s; `kind` says what each
//! strategy does at one, `room` what code patching finds around it. Nothing runs. What is counted
//! is code as it lies in the image: how often it runs, or whether ever, only a run tells.

mod classify;
mod decode;
mod follow;
pub mod image;
mod kind;
mod pointers;
mod room;
mod sites;
mod sweep;
mod text;

pub use classify::{Outcome, classify};
pub use decode::{Coverage, Site};
pub use kind::{Class, Hardware, Kind, Patch, Translation};
pub use sites::{SiteRow, rows};

use crate::cli::Failure;
use crate::plot;
use anyhow::{Context, anyhow};
use decode::Code;
use image::{CodeSize, Flat, Program};
use machine::boot::Kernel;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use strategy::StrategyId;

/// Where flat binaries go when nothing is said: as `ringside run` has it.
const FLAT_ADDRESS: [(CodeSize, u32); 2] =
    [(CodeSize::Bits16, 0x7c00), (CodeSize::Bits32, 0x10_0000)];

/// What kind of image it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum ImageKind {
    /// Found out by looking at it: ELF, Linux bzImage or multiboot
    #[default]
    Auto,
    /// Bytes of 32-bit code
    Flat32,
    /// Bytes of 16-bit code, for real mode
    Flat16,
}

/// `ringside audit`
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The kernel: an ELF file (vmlinux), a Linux bzImage, a multiboot image or a flat binary
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// What it is
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub kind: ImageKind,
    /// Where a flat binary goes, such as 0x100000; its first byte is its entry
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub address: Option<u32>,
    /// Follow control flow from here too, where nothing tells code from data
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub entry: Vec<u32>,
    /// Decode executable bytes in order, even where nothing tells code from data
    #[arg(long)]
    pub sweep: bool,
    /// List each site
    #[arg(long)]
    pub list: bool,
    /// Write the sites to this CSV file
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Draw the sites by kind into this file, SVG or PNG by its extension
    #[arg(long, value_name = "FILE", value_parser = plot_file)]
    pub plot: Option<PathBuf>,
}

pub(crate) fn address(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a number below 2^32, such as 0x100000".to_owned())
}

pub(crate) fn plot_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(path),
        _ => Err("expected a name that ends in .svg or .png".to_owned()),
    }
}

/// How code was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Executable bytes in order.
    Sweep,
    /// From the entry and from functions along control flow.
    Follow,
}

/// What code patching does at one site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patched {
    /// It jumps to a stub.
    Stub,
    /// It is replaced by one byte that traps, because there is no room for a jump.
    Crowded,
    /// It is replaced by one byte that traps, because the monitor has to do the work.
    TrapByte,
    /// It stays, and traps by itself.
    Left,
}

impl Patched {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Patched; 4] =
        [Patched::Stub, Patched::Crowded, Patched::TrapByte, Patched::Left];

    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Patched::Stub => "stub",
            Patched::Crowded => "no room",
            Patched::TrapByte => "trap byte",
            Patched::Left => "left",
        }
    }
}

/// What was found in a program.
#[derive(Debug)]
pub struct Audit {
    /// The program.
    pub program: Program,
    /// How code was found.
    pub method: Method,
    /// How much of it.
    pub coverage: Coverage,
    /// The sites, by address, each with what code patching does there.
    pub sites: Vec<(Site, Patched)>,
}

impl Audit {
    /// Looks through `program`.
    #[must_use]
    pub fn of(program: Program, method: Method) -> Audit {
        let mut code = Code::new(&program);
        match method {
            Method::Sweep => sweep::sweep(&mut code, program.size),
            Method::Follow => follow::follow(&mut code, program.size),
        }
        for symbol in program.symbols.iter() {
            code.note_target(symbol.address);
        }
        pointers::note(&mut code);
        let mut sites = std::mem::take(&mut code.sites);
        sites.sort_by_key(|site| (site.piece, site.offset));
        sites.dedup_by_key(|site| (site.piece, site.offset, site.size));
        let sites = sites.into_iter().map(|site| (site, patched(&code, &site))).collect();
        let coverage = code.coverage();
        Audit { method, coverage, sites, program }
    }

    /// The kinds that were found, each with how many, the most frequent first.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, usize)> {
        let count = |kind: Kind| self.sites.iter().filter(|(site, _)| site.kind == kind).count();
        let counts = Kind::ALL.iter().map(|&kind| (kind, count(kind)));
        let mut kinds: Vec<_> = counts.filter(|&(_, count)| count > 0).collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        kinds
    }

    /// What each strategy does at the sites of this kind, in words, in the order of the strategies.
    #[must_use]
    pub fn fates(&self, kind: Kind) -> [String; StrategyId::ALL.len()] {
        let sites = || self.sites.iter().filter(move |(site, _)| site.kind == kind);
        StrategyId::ALL.map(|id| match id {
            StrategyId::Interpretation => "executed".to_owned(),
            StrategyId::TrapAndEmulate => tally(Outcome::ALL.map(|outcome| {
                (outcome.name(), sites().filter(|(site, _)| site.outcome == outcome).count())
            })),
            StrategyId::CodePatching => tally(Patched::ALL.map(|patched| {
                (patched.name(), sites().filter(|(_, found)| *found == patched).count())
            })),
            StrategyId::BinaryTranslation => kind.translation().name().to_owned(),
            StrategyId::HardwareAssist => kind.hardware().to_string(),
        })
    }

    /// How many sites are of this class.
    #[must_use]
    pub fn count_class(&self, class: Class) -> usize {
        self.sites.iter().filter(|(site, _)| site.kind.class() == class).count()
    }
}

/// The names that apply, with their numbers if there are several.
fn tally<const N: usize>(counts: [(&str, usize); N]) -> String {
    let found: Vec<_> = counts.into_iter().filter(|&(_, count)| count > 0).collect();
    match found[..] {
        [(name, _)] => name.to_owned(),
        _ => found
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn patched(code: &Code<'_>, site: &Site) -> Patched {
    match site.kind.patch() {
        Patch::Leave => Patched::Left,
        Patch::TrapByte => Patched::TrapByte,
        Patch::Stub if room::has_room(code, site) => Patched::Stub,
        Patch::Stub => Patched::Crowded,
    }
}

/// Audits the image that `arguments` name, and writes what they ask for.
///
/// # Errors
/// When the image cannot be read or is damaged, or a file cannot be written.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let program = read_with_entries(arguments).map_err(Failure::setup)?;
    let method =
        if program.is_told_apart || arguments.sweep { Method::Sweep } else { Method::Follow };
    let audit = Audit::of(program, method);
    let name = file_name(&arguments.image);
    if let Some(path) = &arguments.csv {
        sites::write(&audit, path).map_err(Failure::setup)?;
    }
    if let Some(path) = &arguments.plot {
        plot::save_audit(&audit, &name, path).map_err(Failure::setup)?;
    }
    match print(&audit, &name, arguments.list) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Reads an image of this kind; flat ones go to `address`, or where they usually do.
pub(crate) fn read(path: &Path, kind: ImageKind, address: Option<u32>) -> anyhow::Result<Program> {
    // Its message has the cause already.
    let kernel = Kernel::read(path).map_err(|error| anyhow!("{error}"))?;
    let size = match kind {
        ImageKind::Auto if address.is_some() => {
            return Err(anyhow!("--address is for flat binaries: say --kind flat32 or flat16"));
        }
        ImageKind::Auto => None,
        ImageKind::Flat32 => Some(CodeSize::Bits32),
        ImageKind::Flat16 => Some(CodeSize::Bits16),
    };
    let program = match size {
        None => Program::read(&kernel.bytes),
        Some(size) => {
            let usual = FLAT_ADDRESS.iter().find(|(known, _)| *known == size);
            let usual = usual.map_or(0, |&(_, address)| address);
            let address = address.unwrap_or(usual);
            Program::flat(&kernel.bytes, Flat { address, size })
        }
    };
    program.with_context(|| path.display().to_string())
}

/// Reads the image, and where to look in it.
fn read_with_entries(arguments: &Arguments) -> anyhow::Result<Program> {
    let path = &arguments.image;
    let mut program = read(path, arguments.kind, arguments.address)?;
    if let Some(entry) = arguments.entry.iter().find(|&&at| program.find_code(at).is_none()) {
        return Err(anyhow!("{}: --entry {entry:#x}: no code is there", path.display()));
    }
    program.entries.extend(&arguments.entry);
    Ok(program)
}

pub(crate) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn print(audit: &Audit, name: &str, list: bool) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    out.write_all(text::summary(audit, name).as_bytes())?;
    if list {
        text::list(audit, &mut out)?;
    }
    out.flush()
}
