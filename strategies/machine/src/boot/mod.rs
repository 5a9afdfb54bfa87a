//! Loading boot images: what a boot loader does, done from outside.
//!
//! [`load`] takes the place of firmware and boot loader: it checks an image, writes it and what goes
//! with it (modules, command line, memory map) into memory, and leaves the CPU at the entry in the
//! state that the image's boot protocol promises. Images may be hostile: every length and address is
//! checked, and what is wrong is said with the place in the file. Devices stay as after power-up:
//! no protocol here promises more, and kernels set them up themselves.

mod acpi;
mod bda;
mod elf;
mod entry;
mod fault;
mod flat;
mod image;
mod layout;
mod linux;
mod multiboot;
mod rom;

use crate::memory::MAX_RAM;
use crate::{Error, Machine};
use fault::Fault;
use image::Image;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use flat::FlatEntry;
pub use layout::{MapEntry, memory_map};
pub use rom::check_rom;

/// The formats of boot images.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ImageKind {
    /// Bytes to be put at a given address and entered there, see [`FlatEntry`].
    Flat,
    /// Multiboot 1: an ELF32 file, or any file whose header gives the addresses.
    Multiboot,
    /// A Linux bzImage, entered by the 32-bit boot protocol.
    LinuxBzImage,
    /// A ROM that ends at 4 GiB, entered at the reset vector.
    Rom,
}

impl ImageKind {
    /// All formats.
    pub const ALL: [ImageKind; 4] = [Self::Flat, Self::Multiboot, Self::LinuxBzImage, Self::Rom];

    /// The name in TOML and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Multiboot => "multiboot",
            Self::LinuxBzImage => "linux",
            Self::Rom => "rom",
        }
    }

    /// The format of `bytes`, if it is one that can be told: flat binaries and ROMs cannot.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Option<ImageKind> {
        if linux::is_linux(bytes) {
            Some(Self::LinuxBzImage)
        } else if multiboot::is_multiboot(bytes) {
            Some(Self::Multiboot)
        } else {
            None
        }
    }
}

impl std::fmt::Display for ImageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for ImageKind {
    type Err = String;

    fn from_str(name: &str) -> Result<ImageKind, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown image kind {name:?}: expected one of {names}")
        })
    }
}

/// The image to boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kernel {
    /// Its file, or what it is called where it has none. Errors name it; multiboot kernels see it.
    pub path: PathBuf,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl Kernel {
    /// Reads a kernel from a file.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than any guest's memory.
    pub fn read(path: &Path) -> Result<Kernel, Error> {
        Ok(Kernel { path: path.to_owned(), bytes: read_file(path)? })
    }
}

/// A file that goes with the kernel: a multiboot module, or Linux's initial RAM disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Module {
    /// What a multiboot kernel sees as the module's string: by custom its name and arguments.
    pub command_line: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl Module {
    /// Reads a module from a file; its string is the file's name and then `arguments`, if any.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than any guest's memory.
    pub fn read(path: &Path, arguments: &str) -> Result<Module, Error> {
        let bytes = read_file(path)?;
        Ok(Module { command_line: with_arguments(path, arguments), bytes })
    }
}

/// What to boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootSource {
    /// The image.
    pub kernel: Kernel,
    /// Its format; found out where it is `None`.
    pub kind: Option<ImageKind>,
    /// What goes with it. Linux takes at most one: its initial RAM disk.
    pub modules: Vec<Module>,
    /// The kernel's arguments.
    pub command_line: String,
    /// Where a flat binary goes and how it is entered.
    pub flat: FlatEntry,
    /// Whether the machine has a disk: kernels that ask are told that they came from it.
    pub boot_disk: bool,
}

/// Writes the image into memory and puts the CPU at its entry. Memory that the image does not use
/// keeps its contents; after an error, memory holds anything.
///
/// # Errors
/// [`Error::Image`] when the image is damaged, of an unknown kind, or does not fit.
pub fn load(machine: &mut Machine, source: &BootSource) -> Result<(), Error> {
    let image = Image::new(&source.kernel.bytes);
    let loaded = kind_of(source).and_then(|kind| match kind {
        ImageKind::Flat => flat::load(machine, source),
        ImageKind::Multiboot => multiboot::load(machine, source, &image),
        ImageKind::LinuxBzImage => linux::load(machine, source, &image),
        ImageKind::Rom => rom::load(machine, source),
    });
    machine.tlb.flush();
    loaded.map_err(|fault| fault.at(&source.kernel.path))
}

fn kind_of(source: &BootSource) -> Result<ImageKind, Fault> {
    let bytes = &source.kernel.bytes;
    match source.kind.or_else(|| ImageKind::detect(bytes)) {
        _ if bytes.is_empty() => Err(Fault::Empty),
        Some(kind) => Ok(kind),
        None if elf::is_elf(bytes) => Err(Fault::PlainElf),
        None => Err(Fault::Unknown { size: bytes.len() as u64 }),
    }
}

/// Reads a file that is to fit into a guest. Devices and pipes have no size to check beforehand, so
/// reading stops where no guest has more memory.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(file_error)?;
    file.take(MAX_RAM + 1).read_to_end(&mut bytes).map_err(file_error)?;
    if bytes.len() as u64 > MAX_RAM {
        return Err(Fault::TooLarge { limit: MAX_RAM }.at(path));
    }
    Ok(bytes)
}

/// A name and its arguments, as boot loaders put them into one string.
fn with_arguments(path: &Path, arguments: &str) -> String {
    match arguments {
        "" => path.display().to_string(),
        _ => format!("{} {arguments}", path.display()),
    }
}
