//! ELF32 files for i386: sections or, without them, segments; symbols (System V ABI, chapter 4).

use super::bytes::{Bytes, Fault};
use super::symbols::{Symbol, SymbolKind, Symbols};
use super::{CodeSize, Piece, Program};

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_32: u64 = 1;
const LITTLE_ENDIAN: u64 = 1;
const MACHINE_386: u64 = 3;

const PROGRAM_HEADER: u64 = 32;
const LOADABLE: u32 = 1;
const SEGMENT_EXECUTABLE: u32 = 1;

const SECTION_HEADER: u64 = 40;
const SYMBOL_TABLE: u32 = 2;
/// A section that takes no bytes in the file.
const NO_BITS: u32 = 8;
const ALLOCATED: u32 = 2;
const SECTION_EXECUTABLE: u32 = 4;

const SYMBOL: u64 = 16;
/// Section numbers from here on are none.
const RESERVED_SECTIONS: u16 = 0xff00;

/// Whether the file begins as ELF files do.
pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(MAGIC)
}

/// Reads an ELF file. `format` is what it is called.
pub(super) fn read(bytes: Bytes<'_>, format: &str) -> Result<Program, Fault> {
    check_identity(bytes)?;
    let sections = sections(bytes)?;
    let from_sections = section_pieces(bytes, &sections)?;
    let is_told_apart = from_sections.iter().any(|piece| piece.is_code);
    let pieces = if is_told_apart { from_sections } else { segment_pieces(bytes)? };
    let pieces = sorted(pieces, bytes.size())?;
    if !pieces.iter().any(|piece| piece.is_code) {
        return Err(Fault::NoCode);
    }
    Ok(Program {
        format: format.to_owned(),
        entries: vec![bytes.u32("the ELF entry", 24)?],
        size: CodeSize::Bits32,
        symbols: symbols(bytes, &sections)?,
        pieces,
        is_told_apart,
    })
}

fn check_identity(bytes: Bytes<'_>) -> Result<(), Fault> {
    let what = "the ELF header";
    bytes.slice(what, 0, 52)?;
    let expect = |what, offset, found: u64, value: u64, meaning: &str| {
        let expected = format!("{value} ({meaning})");
        if found == value { Ok(()) } else { Err(Fault::Field { what, offset, found, expected }) }
    };
    let class = bytes.u8(what, 4)?.into();
    expect("the ELF class", 4, class, CLASS_32, "32-bit: guests are IA-32")?;
    let data = bytes.u8(what, 5)?.into();
    expect("the ELF data encoding", 5, data, LITTLE_ENDIAN, "little-endian")?;
    expect("the ELF machine", 18, bytes.u16(what, 18)?.into(), MACHINE_386, "i386")
}

/// The places of a table's entries. The field with the table's offset is at `field`, entry size
/// and count are at `sizes`.
fn table(
    bytes: Bytes<'_>,
    what: &'static str,
    (field, sizes): (u64, u64),
    entry: u64,
) -> Result<impl Iterator<Item = u64>, Fault> {
    let start = u64::from(bytes.u32(what, field)?);
    let count = u64::from(bytes.u16(what, sizes + 2)?);
    let found = u64::from(bytes.u16(what, sizes)?);
    if count != 0 && found != entry {
        return Err(Fault::Field { what, offset: sizes, found, expected: entry.to_string() });
    }
    bytes.slice(what, start, count * entry)?;
    Ok((0..count).map(move |index| start + index * entry))
}

/// A section header.
#[derive(Clone, Copy, Debug)]
struct Section {
    name: u32,
    kind: u32,
    flags: u32,
    address: u32,
    offset: u32,
    size: u32,
    link: u32,
}

fn sections(bytes: Bytes<'_>) -> Result<Vec<Section>, Fault> {
    let what = "the section headers";
    table(bytes, what, (32, 46), SECTION_HEADER)?
        .map(|at| {
            let field = |offset| bytes.u32(what, at + offset);
            Ok(Section {
                name: field(0)?,
                kind: field(4)?,
                flags: field(8)?,
                address: field(12)?,
                offset: field(16)?,
                size: field(20)?,
                link: field(24)?,
            })
        })
        .collect()
}

/// The sections that are in memory and not all zeros.
fn section_pieces(bytes: Bytes<'_>, sections: &[Section]) -> Result<Vec<Piece>, Fault> {
    let names = sections.get(usize::from(bytes.u16("the ELF header", 50)?));
    let name = |section: &Section| match names {
        Some(names) => bytes.text(u64::from(names.offset) + u64::from(section.name)),
        None => String::new(),
    };
    sections
        .iter()
        .filter(|section| section.flags & ALLOCATED != 0 && section.kind != NO_BITS)
        .filter(|section| section.size != 0)
        .map(|section| {
            let (offset, size) = (section.offset.into(), section.size.into());
            Ok(Piece {
                name: name(section),
                address: section.address,
                bytes: bytes.slice("a section", offset, size)?.to_owned(),
                is_code: section.flags & SECTION_EXECUTABLE != 0,
            })
        })
        .collect::<Result<Vec<_>, Fault>>()
}

fn segment_pieces(bytes: Bytes<'_>) -> Result<Vec<Piece>, Fault> {
    let what = "the program headers";
    let mut pieces = Vec::new();
    for at in table(bytes, what, (28, 42), PROGRAM_HEADER)? {
        let field = |offset| bytes.u32(what, at + offset);
        let (offset, size) = (field(4)?, field(16)?);
        if field(0)? != LOADABLE || size == 0 {
            continue;
        }
        pieces.push(Piece {
            name: format!("segment {}", pieces.len()),
            address: field(8)?,
            bytes: bytes.slice("a segment", offset.into(), size.into())?.to_owned(),
            is_code: field(24)? & SEGMENT_EXECUTABLE != 0,
        });
    }
    Ok(pieces)
}

/// Puts the pieces into order. Pieces of a sound file share neither bytes nor addresses; those of a
/// hostile one must not cost more than the file is long.
fn sorted(mut pieces: Vec<Piece>, file_size: u64) -> Result<Vec<Piece>, Fault> {
    pieces.sort_by_key(|piece| piece.address);
    let total: u64 = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
    if total > file_size {
        let expected = format!("at most the file's size, {file_size:#x}");
        let what = "the sum of the sections";
        return Err(Fault::Field { what, offset: 0, found: total, expected });
    }
    let mut end = 0;
    for piece in &pieces {
        let start = u64::from(piece.address);
        if start < end || start + piece.bytes.len() as u64 > 1 << 32 {
            let expected = format!(
                "at least {end:#x}, where the one before it ends, and its end \
                                    below 4 GiB"
            );
            let what = "the address of a section or segment";
            return Err(Fault::Field { what, offset: 0, found: start, expected });
        }
        end = start + piece.bytes.len() as u64;
    }
    Ok(pieces)
}

/// The named symbols of all symbol tables. Debug information is of no use here.
fn symbols(bytes: Bytes<'_>, sections: &[Section]) -> Result<Symbols, Fault> {
    let what = "the symbol table";
    let mut symbols = Vec::new();
    for table in sections.iter().filter(|section| section.kind == SYMBOL_TABLE) {
        bytes.slice(what, table.offset.into(), table.size.into())?;
        let names = sections.get(table.link as usize).map(|names| u64::from(names.offset));
        let Some(names) = names else { continue };
        for index in 0..u64::from(table.size) / SYMBOL {
            let at = u64::from(table.offset) + index * SYMBOL;
            symbols.extend(symbol(bytes, sections, names, at)?);
        }
    }
    Ok(Symbols::new(symbols))
}

fn symbol(
    bytes: Bytes<'_>,
    sections: &[Section],
    names: u64,
    at: u64,
) -> Result<Option<Symbol>, Fault> {
    let what = "the symbol table";
    let number = bytes.u16(what, at + 14)?;
    let section = sections.get(usize::from(number));
    let is_here = section.is_some_and(|section| section.flags & ALLOCATED != 0);
    let kind = match bytes.u8(what, at + 12)? & 15 {
        0 => SymbolKind::Unknown,
        1 => SymbolKind::Data,
        // A function, or one that chooses among functions (GNU).
        2 | 10 => SymbolKind::Function,
        _ => return Ok(None),
    };
    if number == 0 || number >= RESERVED_SECTIONS || !is_here {
        return Ok(None);
    }
    let name = bytes.text(names + u64::from(bytes.u32(what, at)?));
    let (address, size) = (bytes.u32(what, at + 4)?, bytes.u32(what, at + 8)?);
    Ok((!name.is_empty()).then_some(Symbol { address, size, name, kind }))
}
