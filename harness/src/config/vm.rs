//! A virtual machine: what it boots, what it is made of, and what runs its CPU.

use super::experiment::check;
use super::{ConfigError, Size, Source, Time, options, target};
use crate::strategies::{Options, Variant};
use machine::PhysicalAddress;
use machine::boot::{FlatEntry, ImageKind};
use machine::clock::ClockSource;
use machine::cpu::CpuModel;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use strategy::StrategyId;
use toml::Spanned;

/// Guest memory when nothing is said.
const DEFAULT_MEMORY: u64 = 128 << 20;

/// A checked virtual machine: the files that it names are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vm {
    /// The kernel. None with a ROM.
    pub kernel: Option<PathBuf>,
    /// A saved machine to go on with. What it is made of comes from there, and what is booted here
    /// is booted when it resets itself.
    pub resume: Option<PathBuf>,
    /// What kind of image the kernel is.
    pub kind: Kind,
    /// Where a flat image goes; its first byte is its entry.
    pub address: Option<u32>,
    /// A ROM image that ends at 4 GiB, to start from as after power-up.
    pub rom: Option<PathBuf>,
    /// The initial RAM disk, or the first multiboot module.
    pub initrd: Option<PathBuf>,
    /// Multiboot modules: a file each, with the arguments behind the first space.
    pub modules: Vec<String>,
    /// The kernel's command line.
    pub append: String,
    /// The raw image of the ATA disk.
    pub disk: Option<PathBuf>,
    /// Whether guest writes to the disk are refused.
    pub disk_read_only: bool,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// The CPU that the guest sees.
    pub cpu: CpuModel,
    /// Where guest time comes from.
    pub clock: ClockSource,
    /// What runs the CPU.
    pub strategy: Variant,
    /// The options of strategies: for those that the command line names.
    pub options: Options,
    /// How long the guest may run.
    pub timeout: Option<Duration>,
    /// Whether the debug console (port 0xE9) is shown on the standard error.
    pub debug_console: bool,
    /// Whether a reset by the guest boots it again, rather than ending the run.
    pub reboot: bool,
}

/// What kind of image a kernel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Found out by looking at it.
    #[default]
    Auto,
    /// A multiboot 1 image.
    Multiboot,
    /// A Linux bzImage.
    Linux,
    /// Bytes, entered in 32-bit protected mode.
    Flat32,
    /// Bytes, entered in real mode: a boot sector, for one.
    Flat16,
}

/// A virtual machine as the command line gives it; what is given replaces what a file says.
#[derive(Clone, Default, Debug, clap::Args)]
pub struct VmOptions {
    /// The kernel to boot: a multiboot image or a Linux bzImage
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Go on with a saved machine instead of booting one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["memory", "cpu"])]
    pub resume: Option<PathBuf>,
    /// What the kernel is: auto, multiboot, linux, flat32 or flat16
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// A ROM image to start from instead of a kernel
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub rom: Option<PathBuf>,
    /// The initial RAM disk, or the first multiboot module
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// The raw image of the disk
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Refuse guest writes to the disk
    #[arg(long)]
    pub disk_read_only: bool,
    /// Guest memory, such as 64M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// The CPU that the guest sees (see `ringside list`)
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// What runs the guest's CPU (see `ringside list`)
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Option<String>,
    /// Stop the guest after this time, such as 90s
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Show the debug console (port 0xE9) on the standard error
    #[arg(long)]
    pub debug_console: bool,
    /// End when the guest resets itself, rather than boot it again
    #[arg(long)]
    pub no_reboot: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct File {
    kernel: Option<Spanned<PathBuf>>,
    kind: Option<Spanned<String>>,
    address: Option<Spanned<u32>>,
    rom: Option<Spanned<PathBuf>>,
    initrd: Option<Spanned<PathBuf>>,
    modules: Vec<Spanned<String>>,
    append: Option<String>,
    disk: Option<Spanned<PathBuf>>,
    disk_read_only: bool,
    memory: Option<Spanned<Size>>,
    cpu: Option<Spanned<String>>,
    clock: Option<Spanned<String>>,
    strategy: Option<Spanned<String>>,
    timeout: Option<Spanned<Time>>,
    debug_console: bool,
    reboot: Option<bool>,
    options: options::File,
}

impl Vm {
    /// The machine in the file `path`, if one is named, as `options` change it.
    ///
    /// # Errors
    /// When the file or the options make no sense, or a file that they name cannot be read.
    pub fn load(path: Option<&Path>, options: &VmOptions) -> Result<Vm, ConfigError> {
        match path {
            Some(path) => Vm::parse(path, &super::read(path)?, options),
            None => Vm::parse(Path::new("command line"), "", options),
        }
    }

    /// The machine that `text` describes, with the files beside `path`, as `options` change it.
    ///
    /// # Errors
    /// As [`Vm::load`].
    pub fn parse(path: &Path, text: &str, options: &VmOptions) -> Result<Vm, ConfigError> {
        let source = Source::new(path, text);
        let file: File = source.parse()?;
        let mut vm = file.check(&source)?;
        vm.change(options)?;
        match (&vm.kernel, &vm.rom) {
            (None, None) if vm.resume.is_none() => {
                Err(source.error("nothing to boot: key \"kernel\" or \"rom\" is missing"))
            }
            (Some(_), Some(_)) => {
                Err(source.error("keys \"kernel\" and \"rom\" exclude each other"))
            }
            (None, Some(_)) if vm.initrd.is_some() => {
                Err(source.error("key \"initrd\" needs a kernel, not a ROM"))
            }
            _ => Ok(vm),
        }
    }

    fn change(&mut self, options: &VmOptions) -> Result<(), ConfigError> {
        let folder = Path::new("");
        for (name, given, value) in [
            ("--kernel", &options.kernel, &mut self.kernel),
            ("--rom", &options.rom, &mut self.rom),
            ("--resume", &options.resume, &mut self.resume),
            ("--initrd", &options.initrd, &mut self.initrd),
            ("--disk", &options.disk, &mut self.disk),
        ] {
            if let Some(path) = given {
                *value = Some(existing(folder, path).map_err(|message| said(name, &message))?);
            }
        }
        if options.rom.is_some() {
            self.kernel = None;
        }
        if let Some(append) = &options.append {
            self.append.clone_from(append);
        }
        self.disk_read_only |= options.disk_read_only;
        self.debug_console |= options.debug_console;
        self.reboot &= !options.no_reboot;
        take("--kind", options.kind.as_deref(), &mut self.kind, kind)?;
        take("--memory", options.memory.as_deref(), &mut self.memory_bytes, |text| {
            memory_in_range(&text.parse()?)
        })?;
        take("--cpu", options.cpu.as_deref(), &mut self.cpu, str::parse)?;
        let find = |name: &str| target::variant(name, &self.options);
        take("--strategy", options.strategy.as_deref(), &mut self.strategy, find)?;
        take("--timeout", options.timeout.as_deref(), &mut self.timeout, |text| {
            timeout_in_range(&text.parse()?).map(Some)
        })
    }
}

impl File {
    fn check(&self, source: &Source) -> Result<Vm, ConfigError> {
        let folder = source.folder();
        let file = |key, value: &Option<Spanned<PathBuf>>| {
            check(source, key, value.as_ref(), |path| existing(folder, path))
        };
        let name = self.strategy.iter().map(|name| name.get_ref().as_str());
        let options = self.options.check(source, name)?;
        let find = |name: &String| target::variant(name, &options);
        let strategy = check(source, "strategy", self.strategy.as_ref(), find)?;
        Ok(Vm {
            kernel: file("kernel", &self.kernel)?,
            resume: None,
            kind: check(source, "kind", self.kind.as_ref(), |name| kind(name))?.unwrap_or_default(),
            address: self.address.as_ref().map(|address| *address.get_ref()),
            rom: file("rom", &self.rom)?,
            initrd: file("initrd", &self.initrd)?,
            modules: self.modules(source)?,
            append: self.append.clone().unwrap_or_default(),
            disk: file("disk", &self.disk)?,
            disk_read_only: self.disk_read_only,
            memory_bytes: check(source, "memory", self.memory.as_ref(), memory_in_range)?
                .unwrap_or(DEFAULT_MEMORY),
            cpu: check(source, "cpu", self.cpu.as_ref(), |name| name.parse())?.unwrap_or_default(),
            clock: check(source, "clock", self.clock.as_ref(), |name| clock(name))?
                .unwrap_or_default(),
            strategy: strategy.unwrap_or(StrategyId::Interpretation.into()),
            options,
            timeout: check(source, "timeout", self.timeout.as_ref(), timeout_in_range)?,
            debug_console: self.debug_console,
            reboot: self.reboot.unwrap_or(true),
        })
    }

    fn modules(&self, source: &Source) -> Result<Vec<String>, ConfigError> {
        let mut modules = Vec::new();
        for module in &self.modules {
            let checked = check(source, "modules", Some(module), |text| {
                let (file, arguments) = split_module(text);
                let file = existing(source.folder(), Path::new(file))?;
                Ok(format!("{} {arguments}", file.display()).trim_end().to_owned())
            })?;
            modules.extend(checked);
        }
        Ok(modules)
    }
}

/// A module's file and its arguments.
#[must_use]
pub fn split_module(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

impl Vm {
    /// The format of the image and, for a flat one, its place.
    #[must_use]
    pub fn format(&self) -> (Option<ImageKind>, FlatEntry) {
        let at = |default| self.address.unwrap_or(default);
        match self.kind {
            _ if self.rom.is_some() => (Some(ImageKind::Rom), FlatEntry::default()),
            Kind::Auto => (None, FlatEntry::default()),
            Kind::Multiboot => (Some(ImageKind::Multiboot), FlatEntry::default()),
            Kind::Linux => (Some(ImageKind::LinuxBzImage), FlatEntry::default()),
            Kind::Flat32 => {
                let entry = FlatEntry::Flat32(PhysicalAddress(u64::from(at(0x10_0000))));
                (Some(ImageKind::Flat), entry)
            }
            Kind::Flat16 => (Some(ImageKind::Flat), real_mode_entry(at(0x7c00))),
        }
    }
}

/// A real-mode entry at a linear address: segment 0 where that reaches, as boot sectors expect.
fn real_mode_entry(address: u32) -> FlatEntry {
    match u16::try_from(address) {
        Ok(offset) => FlatEntry::Flat16 { segment: 0, offset },
        Err(_) => FlatEntry::Flat16 {
            segment: u16::try_from(address >> 4).unwrap_or(u16::MAX),
            offset: (address & 0xf) as u16,
        },
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    Ok(match name {
        "auto" => Kind::Auto,
        "multiboot" => Kind::Multiboot,
        "linux" => Kind::Linux,
        "flat32" => Kind::Flat32,
        "flat16" => Kind::Flat16,
        _ => {
            let known = ["auto", "multiboot", "linux", "flat32", "flat16"];
            return Err(super::suggest::unknown("kind", name, &known));
        }
    })
}

/// Takes an option over, if it is given.
fn take<T>(
    name: &str,
    given: Option<&str>,
    value: &mut T,
    convert: impl Fn(&str) -> Result<T, String>,
) -> Result<(), ConfigError> {
    if let Some(text) = given {
        *value = convert(text).map_err(|message| said(name, &message))?;
    }
    Ok(())
}

fn said(option: &str, message: &str) -> ConfigError {
    let message = format!("{option}: {message}");
    ConfigError { path: "command line".into(), line: None, message }
}

/// The file `path`, as seen from `folder`; it must be there and readable.
fn existing(folder: &Path, path: &Path) -> Result<PathBuf, String> {
    let path = folder.join(path);
    let cannot = |why: &str| format!("{} {why}", path.display());
    match std::fs::File::open(&path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err(cannot("is a folder, not a file")),
        Ok(_) => Ok(path),
        Err(error) => Err(cannot(&format!("cannot be read: {error}"))),
    }
}

fn clock(name: &str) -> Result<ClockSource, String> {
    match name {
        "host" => Ok(ClockSource::Host),
        "virtual" => Ok(ClockSource::Virtual),
        _ => Err(super::suggest::unknown("clock", name, &["host", "virtual"])),
    }
}

/// Bytes of memory that a machine can have.
fn memory_in_range(size: &Size) -> Result<u64, String> {
    if size.0.is_multiple_of(4096) && (1 << 20..=3 << 30).contains(&size.0) {
        Ok(size.0)
    } else {
        Err(format!("memory of {size} makes no sense: a multiple of 4K from 1M to 3G"))
    }
}

fn timeout_in_range(time: &Time) -> Result<Duration, String> {
    if time.0 >= Duration::from_millis(1) {
        Ok(time.0)
    } else {
        Err(format!("{time} is no time at all"))
    }
}
