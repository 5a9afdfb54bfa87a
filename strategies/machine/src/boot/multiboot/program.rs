//! What of a multiboot file goes where: by the header's address fields or by an ELF header.

use super::super::elf::{Elf, Sections};
use super::super::fault::Fault;
use super::super::image::Image;
use super::super::layout;
use super::header::{Addresses, Header};
use crate::Machine;

/// Bytes of the file that go to one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Where they are in the file.
    pub(super) offset: u64,
    /// How many.
    pub(super) file_size: u64,
    /// The physical address that they go to.
    pub(super) start: u64,
    /// Bytes in memory, zeros behind those of the file included.
    pub(super) memory_size: u64,
}

/// A program to be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Program {
    pub(super) pieces: Vec<Piece>,
    /// The physical address where execution begins.
    pub(super) entry: u32,
    /// The section headers of an ELF file.
    pub(super) sections: Option<Sections>,
}

impl Program {
    pub(super) fn new(header: &Header, image: &Image<'_>) -> Result<Program, Fault> {
        match &header.addresses {
            Some(addresses) => by_addresses(header.offset, addresses, image),
            None => by_elf(image),
        }
    }

    /// Writes all pieces and the zeros behind them.
    pub(super) fn write(&self, machine: &mut Machine, image: &Image<'_>) -> Result<(), Fault> {
        for piece in &self.pieces {
            let bytes = image.slice("a segment", piece.offset, piece.file_size)?;
            layout::write(machine, "a segment", piece.start, bytes)?;
            let zeros = piece.start + piece.file_size..piece.start + piece.memory_size;
            layout::clear(machine, zeros)?;
        }
        Ok(())
    }
}

fn by_elf(image: &Image<'_>) -> Result<Program, Fault> {
    let elf = Elf::parse(image)?;
    let pieces = elf.segments.iter().map(|segment| Piece {
        offset: segment.offset.into(),
        file_size: segment.file_size.into(),
        start: segment.physical.into(),
        memory_size: segment.memory_size.into(),
    });
    Ok(Program { pieces: pieces.collect(), entry: elf.entry()?, sections: elf.sections })
}

/// The address fields say where the header itself goes, and so where each byte of the file does.
fn by_addresses(header: u64, addresses: &Addresses, image: &Image<'_>) -> Result<Program, Fault> {
    let before_header = u64::from(at_least(
        ("the header's own address", header + 12, addresses.header),
        ("the load address", addresses.load.into()),
    )?);
    let offset = header.checked_sub(before_header).ok_or_else(|| Fault::Field {
        what: "the header's own address",
        offset: header + 12,
        found: addresses.header.into(),
        expected: format!("at most {header:#x} bytes behind the load address"),
    })?;
    let start = u64::from(addresses.load);
    let file_size = match addresses.load_end {
        0 => image.size() - offset,
        end => at_least(("the end of the load", header + 20, end), ("its start", start))?.into(),
    };
    image.slice("what the multiboot header loads", offset, file_size)?;
    let memory_size = match addresses.bss_end {
        0 => file_size,
        end => {
            let loaded = ("the end of the load", start + file_size);
            file_size + u64::from(at_least(("the end of the bss", header + 24, end), loaded)?)
        }
    };
    let piece = Piece { offset, file_size, start, memory_size };
    if !(start..start + memory_size).contains(&addresses.entry.into()) {
        return Err(Fault::Entry { entry: addresses.entry.into() });
    }
    Ok(Program { pieces: vec![piece], entry: addresses.entry, sections: None })
}

/// How far a field of the header (what it is, where in the file, its value) lies above `floor`.
fn at_least(
    (what, offset, found): (&'static str, u64, u32),
    (floor, value): (&str, u64),
) -> Result<u32, Fault> {
    u64::from(found).checked_sub(value).map(|distance| distance as u32).ok_or_else(|| {
        let expected = format!("at least {floor}, {value:#x}");
        Fault::Field { what, offset, found: found.into(), expected }
    })
}
