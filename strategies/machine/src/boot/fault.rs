//! What can be wrong with a boot image, with the place where it is wrong.

use crate::Error;
use std::path::Path;

/// A reason not to load an image. Callers outside see it as the text of [`Error::Image`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the image is empty")]
    Empty,
    #[error("the file is larger than {limit} bytes, more than any guest has memory")]
    TooLarge { limit: u64 },
    #[error(
        "no Linux setup header at 0x202 and no multiboot header in the first 8 KiB of its {size} \
         bytes: the image is damaged, or, if it is a flat binary or a ROM, its kind is to be given"
    )]
    Unknown { size: u64 },
    #[error("an ELF file without a multiboot header in its first 8 KiB: it cannot be booted")]
    PlainElf,
    #[error("truncated: {what} takes {length} bytes at offset {offset:#x}, the file has {size}")]
    Truncated { what: &'static str, offset: u64, length: u64, size: u64 },
    #[error("{what} at offset {offset:#x} is {found:#x}: expected {expected}")]
    Field { what: &'static str, offset: u64, found: u64, expected: String },
    #[error("no multiboot header (magic 0x1badb002, checksum) in the first 8 KiB")]
    NoMultibootHeader,
    #[error(
        "{what} goes to {start:#x} to {end:#x} (exclusive), which is not all RAM: expected 0 to \
         0xa0000 or 0x100000 to {ram:#x}"
    )]
    NotRam { what: &'static str, start: u64, end: u64, ram: u64 },
    #[error(
        "{what} of {size} bytes finds no place between {from:#x} and {to:#x} (exclusive): the \
         machine's memory is too small"
    )]
    NoPlace { what: &'static str, size: u64, from: u64, to: u64 },
    #[error("the entry {entry:#x} lies outside of what was loaded")]
    Entry { entry: u64 },
    #[error("{what} contains a zero byte at {at}")]
    ZeroByte { what: &'static str, at: usize },
    #[error("the command line has {length} bytes, this kernel takes at most {limit}")]
    CommandLine { length: u64, limit: u64 },
    #[error("an image of kind {kind} takes no {what}")]
    Unwanted { kind: &'static str, what: &'static str },
    #[error("Linux takes one initial RAM disk, {count} modules were given")]
    OneInitrd { count: usize },
    #[error(
        "real-mode entry {segment:#06x}:{offset:#06x}: the image of {size} bytes would end at \
         {end:#x}, conventional memory ends at 0xa0000"
    )]
    RealMode { segment: u16, offset: u16, size: u64, end: u64 },
    #[error("a ROM of {size} bytes: expected {expected}")]
    RomSize { size: u64, expected: &'static str },
    #[error("the image is not the ROM that the machine was made with")]
    OtherRom,
    #[error("the host could not clear {start:#x} to {end:#x} (exclusive): {reason}")]
    Host { start: u64, end: u64, reason: String },
}

impl Fault {
    /// The error that callers see.
    pub(super) fn at(&self, path: &Path) -> Error {
        Error::Image { path: path.to_owned(), reason: self.to_string() }
    }
}
