//! What of an image lies where in the guest's memory, and what is known about it.
//!
//! Nothing is loaded into a machine: addresses are those that the code is linked for, so that
//! symbols fit. An ELF file's sections tell code from data; without them, and in formats that know
//! no sections, only the entry is known to be code.

mod bytes;
mod elf;
mod linux;
mod multiboot;
mod symbols;
mod unpack;

pub use bytes::Fault;
pub use symbols::{Symbol, SymbolKind, Symbols};

use bytes::Bytes;
use machine::boot::ImageKind;

/// Bytes of the image that lie at one place in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The section, or what else it is.
    pub name: String,
    /// Its linear address. The last byte is below 4 GiB.
    pub address: u32,
    /// What is there.
    pub bytes: Vec<u8>,
    /// Whether it may be executed.
    pub is_code: bool,
}

impl Piece {
    /// How far `address` lies behind its beginning, if it lies in it.
    #[must_use]
    pub fn offset_of(&self, address: u32) -> Option<usize> {
        let offset = address.checked_sub(self.address)? as usize;
        (offset < self.bytes.len()).then_some(offset)
    }
}

/// The default sizes of operands and addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CodeSize {
    /// 16-bit code, in real mode.
    Bits16,
    /// 32-bit code.
    Bits32,
}

impl CodeSize {
    /// The number of bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
        }
    }
}

/// A program as its image describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// What kind of image it is, in words.
    pub format: String,
    /// What is where, by address and without overlaps.
    pub pieces: Vec<Piece>,
    /// Where execution begins, and other places where there is code.
    pub entries: Vec<u32>,
    /// What kind of code is at the entries.
    pub size: CodeSize,
    /// The names of addresses.
    pub symbols: Symbols,
    /// Whether the executable pieces hold code and little else.
    pub is_told_apart: bool,
}

/// A flat binary, as the command line describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flat {
    /// Where its first byte goes; that is also the entry.
    pub address: u32,
    /// What kind of code it is.
    pub size: CodeSize,
}

impl Program {
    /// Reads an image of a kind that can be told from its contents.
    ///
    /// # Errors
    /// When the kind is unknown or the image is damaged.
    pub fn read(image: &[u8]) -> Result<Program, Fault> {
        let bytes = Bytes(image);
        if image.is_empty() {
            return Err(Fault::Empty);
        }
        if elf::is_elf(image) {
            return elf::read(bytes, "ELF");
        }
        match ImageKind::detect(image) {
            Some(ImageKind::LinuxBzImage) => linux::read(bytes),
            Some(ImageKind::Multiboot) => multiboot::read(bytes),
            _ => Err(Fault::Unknown),
        }
    }

    /// Takes all of `image` as a flat binary.
    ///
    /// # Errors
    /// When it is empty or does not fit.
    pub fn flat(image: &[u8], flat: Flat) -> Result<Program, Fault> {
        if image.is_empty() {
            return Err(Fault::Empty);
        }
        let limit = (1u64 << 32) - u64::from(flat.address);
        if image.len() as u64 > limit {
            let expected = format!("at most {limit:#x}, to end below 4 GiB");
            let found = image.len() as u64;
            return Err(Fault::Field { what: "the image's size", offset: 0, found, expected });
        }
        let piece = Piece {
            name: "image".to_owned(),
            address: flat.address,
            bytes: image.to_owned(),
            is_code: true,
        };
        Ok(Program {
            format: format!("flat {}-bit binary", flat.size.bits()),
            pieces: vec![piece],
            entries: vec![flat.address],
            size: flat.size,
            symbols: Symbols::default(),
            is_told_apart: false,
        })
    }

    /// The piece that holds `address`, with its number and the offset in it.
    #[must_use]
    pub fn find(&self, address: u32) -> Option<(usize, usize)> {
        let next = self.pieces.partition_point(|piece| piece.address <= address);
        let number = next.checked_sub(1)?;
        Some((number, self.pieces[number].offset_of(address)?))
    }

    /// The same, if it may be executed.
    #[must_use]
    pub fn find_code(&self, address: u32) -> Option<(usize, usize)> {
        self.find(address).filter(|&(number, _)| self.pieces[number].is_code)
    }

    /// The doubleword at `address`.
    #[must_use]
    pub fn u32_at(&self, address: u32) -> Option<u32> {
        let (number, offset) = self.find(address)?;
        let bytes = self.pieces[number].bytes.get(offset..offset.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}
