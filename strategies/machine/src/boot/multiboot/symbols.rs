//! The section headers of an ELF kernel, and sections that are not part of the loaded program:
//! symbols, strings, debug information (section 3.3 of the specification, field `syms`).
//!
//! They are a help to kernels, not a need: where memory is too small for them they stay away.

use super::super::elf::{SECTION_HEADER, Sections};
use super::super::fault::Fault;
use super::super::image::Image;
use super::super::layout::{self, Layout};
use super::program::Program;
use crate::Machine;
use crate::address::PAGE_SIZE;
use linux_loader::elf::{SHF_ALLOC, SHT_NOBITS, SHT_NULL};

/// Sections begin at multiples of this.
const ALIGN: usize = 16;

/// Where the section headers are in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Symbols {
    count: u32,
    address: u32,
    names: u32,
}

impl Symbols {
    /// The fields `num`, `size`, `addr` and `shndx`.
    pub(super) fn fields(&self) -> [u32; 4] {
        [self.count, SECTION_HEADER as u32, self.address, self.names]
    }
}

/// Section headers and the sections that go with them, addresses relative to the block's start.
struct Block {
    bytes: Vec<u8>,
    /// Offsets of the address fields that the block's own address is to be added to.
    addresses: Vec<usize>,
}

/// Loads section headers and unloaded sections, if the program has any and they find a place.
pub(super) fn load(
    machine: &mut Machine,
    program: &Program,
    image: &Image<'_>,
    layout: &mut Layout,
) -> Result<Option<Symbols>, Fault> {
    let Some(sections) = program.sections else { return Ok(None) };
    let mut block = collect(image, &sections)?;
    let size = block.bytes.len() as u64;
    let Ok(start) = layout.place_high("the ELF sections", size, PAGE_SIZE.into()) else {
        tracing::warn!(size, "memory is too small for the kernel's symbols: left out");
        return Ok(None);
    };
    for at in std::mem::take(&mut block.addresses) {
        let field = &mut block.bytes[at..at + 4];
        let offset = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&offset.wrapping_add(start as u32).to_le_bytes());
    }
    layout::write(machine, "the ELF sections", start, &block.bytes)?;
    Ok(Some(Symbols {
        count: sections.count.into(),
        address: start as u32,
        names: sections.names.into(),
    }))
}

fn collect(image: &Image<'_>, sections: &Sections) -> Result<Block, Fault> {
    let what = "the section headers";
    let length = u64::from(sections.count) * SECTION_HEADER;
    let headers = image.slice(what, sections.offset.into(), length)?;
    let mut block = Block { bytes: headers.to_vec(), addresses: Vec::new() };
    let mut total = 0;
    for at in (0..length).step_by(SECTION_HEADER as usize) {
        let here = u64::from(sections.offset) + at;
        let field = |offset| image.u32(what, here + offset);
        let (kind, flags, address) = (field(4)?, field(8)?, field(12)?);
        let (offset, size) = (u64::from(field(16)?), u64::from(field(20)?));
        let unloaded = u64::from(flags) & SHF_ALLOC == 0 && address == 0 && size != 0;
        if !unloaded || kind == SHT_NULL || kind == SHT_NOBITS {
            continue;
        }
        let bytes = image.slice("a section", offset, size)?;
        total += size;
        check_total(image, here, total)?;
        block.bytes.resize(block.bytes.len().next_multiple_of(ALIGN), 0);
        let (field, value) = (at as usize + 12, block.bytes.len() as u32);
        block.bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
        block.addresses.push(field);
        block.bytes.extend_from_slice(bytes);
    }
    Ok(block)
}

/// Sections do not overlap: together they are no larger than the file. Without this rule 65,535
/// headers that all name the whole file would ask for that many copies of it.
fn check_total(image: &Image<'_>, header: u64, total: u64) -> Result<(), Fault> {
    if total <= image.size() {
        return Ok(());
    }
    Err(Fault::Field {
        what: "the size of all sections up to the one",
        offset: header,
        found: total,
        expected: format!("at most the file's size, {:#x}", image.size()),
    })
}
