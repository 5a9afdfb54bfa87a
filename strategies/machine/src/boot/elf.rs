//! ELF32 files as multiboot kernels have them: program headers for loading, section headers for
//! handing on (System V ABI, gABI 4.1 and its i386 supplement).

use super::fault::Fault;
use super::image::Image;
use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS32, ELFDATA2LSB, ELFMAG, EM_386, PF_X, PT_LOAD,
};

/// No kernel has more program headers; each may cost a copy of the whole file.
const MAX_SEGMENTS: u16 = 128;
/// Bytes in a program header.
const PROGRAM_HEADER: u64 = 32;
/// Bytes in a section header.
pub(super) const SECTION_HEADER: u64 = 40;

/// A loadable segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// Where its bytes are in the file.
    pub(super) offset: u32,
    /// Its linear address once the kernel has set up paging.
    pub(super) linear: u32,
    /// Where it is to be loaded.
    pub(super) physical: u32,
    /// Bytes in the file.
    pub(super) file_size: u32,
    /// Bytes in memory, the rest zeros.
    pub(super) memory_size: u32,
    /// Whether it holds code.
    pub(super) executable: bool,
}

/// The section header table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sections {
    /// Where it is in the file.
    pub(super) offset: u32,
    /// Entries in it.
    pub(super) count: u16,
    /// The entry of the section that holds the sections' names.
    pub(super) names: u16,
}

/// A checked ELF header with what it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Elf {
    entry: u32,
    /// The loadable segments, in the file's order.
    pub(super) segments: Vec<Segment>,
    /// The section headers, if there are any.
    pub(super) sections: Option<Sections>,
}

/// Whether the file begins as ELF files do.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(ELFMAG)
}

impl Elf {
    /// Reads the headers and checks that all they name is in the file.
    pub(super) fn parse(image: &Image<'_>) -> Result<Elf, Fault> {
        check_identity(image)?;
        let elf = Elf {
            entry: image.u32("the ELF entry", 24)?,
            segments: segments(image)?,
            sections: sections(image)?,
        };
        Ok(elf)
    }

    /// Where execution begins. The header names a linear address; a kernel that is linked for
    /// paging is entered at the physical one that belongs to it.
    pub(super) fn entry(&self) -> Result<u32, Fault> {
        let offset_in = |segment: &Segment, start: u32| {
            self.entry.checked_sub(start).filter(|&offset| offset < segment.memory_size)
        };
        let relocated =
            self.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
                Some(segment.physical.wrapping_add(offset_in(segment, segment.linear)?))
            });
        let as_is = |segment: &Segment| offset_in(segment, segment.physical).is_some();
        match relocated {
            Some(entry) => Ok(entry),
            None if self.segments.iter().any(as_is) => Ok(self.entry),
            None => Err(Fault::Entry { entry: u64::from(self.entry) }),
        }
    }
}

fn check_identity(image: &Image<'_>) -> Result<(), Fault> {
    let what = "the ELF header";
    let identity = image.slice(what, 0, 52)?;
    let expect = |what, offset, found: u64, value: u64, meaning: &str| {
        let expected = format!("{value:#x} ({meaning})");
        if found == value { Ok(()) } else { Err(Fault::Field { what, offset, found, expected }) }
    };
    let magic = u64::from(image.u32(what, 0)?);
    expect("the ELF magic", 0, magic, 0x464c_457f, "\\x7fELF, or a header with addresses")?;
    let class = u64::from(identity[EI_CLASS]);
    expect("the ELF class", 4, class, u64::from(ELFCLASS32), "32-bit")?;
    let data = u64::from(identity[EI_DATA]);
    expect("the ELF data encoding", 5, data, u64::from(ELFDATA2LSB), "little-endian")?;
    let machine = u64::from(image.u16(what, 18)?);
    expect("the ELF machine", 18, machine, u64::from(EM_386), "i386")
}

/// Checks an entry size and a count that an ELF header gives at `offset`.
fn check_entries(
    image: &Image<'_>,
    what: &'static str,
    offset: u64,
    entry_size: u64,
    limit: u16,
) -> Result<u16, Fault> {
    let found = u64::from(image.u16(what, offset)?);
    let count = image.u16(what, offset + 2)?;
    if found != entry_size && count != 0 {
        return Err(Fault::Field { what, offset, found, expected: format!("{entry_size}") });
    }
    if count > limit {
        let expected = format!("at most {limit} entries");
        return Err(Fault::Field { what, offset: offset + 2, found: count.into(), expected });
    }
    Ok(count)
}

fn segments(image: &Image<'_>) -> Result<Vec<Segment>, Fault> {
    let what = "the program headers";
    let table = u64::from(image.u32(what, 28)?);
    let count = check_entries(image, what, 42, PROGRAM_HEADER, MAX_SEGMENTS)?;
    let mut segments = Vec::new();
    for at in (0..u64::from(count)).map(|index| table + index * PROGRAM_HEADER) {
        image.slice(what, at, PROGRAM_HEADER)?;
        let field = |offset| image.u32(what, at + offset);
        if field(0)? == PT_LOAD && field(20)? != 0 {
            segments.push(segment(image, at, field)?);
        }
    }
    if segments.is_empty() {
        let expected = "at least one loadable segment".to_owned();
        return Err(Fault::Field { what, offset: 44, found: count.into(), expected });
    }
    Ok(segments)
}

fn segment(
    image: &Image<'_>,
    at: u64,
    field: impl Fn(u64) -> Result<u32, Fault>,
) -> Result<Segment, Fault> {
    let segment = Segment {
        offset: field(4)?,
        linear: field(8)?,
        physical: field(12)?,
        file_size: field(16)?,
        memory_size: field(20)?,
        executable: field(24)? & PF_X != 0,
    };
    if segment.file_size > segment.memory_size {
        let what = "a segment's size in memory";
        let expected = format!("at least its size in the file, {:#x}", segment.file_size);
        let found = u64::from(segment.memory_size);
        return Err(Fault::Field { what, offset: at + 20, found, expected });
    }
    image.slice("a segment", segment.offset.into(), segment.file_size.into())?;
    Ok(segment)
}

fn sections(image: &Image<'_>) -> Result<Option<Sections>, Fault> {
    let what = "the section headers";
    let count = check_entries(image, what, 46, SECTION_HEADER, u16::MAX)?;
    let offset = image.u32(what, 32)?;
    let names = image.u16(what, 50)?;
    image.slice(what, offset.into(), u64::from(count) * SECTION_HEADER)?;
    Ok((count != 0).then_some(Sections { offset, count, names }))
}
