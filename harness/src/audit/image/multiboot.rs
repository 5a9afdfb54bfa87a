//! Multiboot 1 images whose header gives the addresses (the "a.out kludge", section 3.1.3).

use super::bytes::{Bytes, Fault};
use super::{CodeSize, Flat, Program};

const MAGIC: u32 = 0x1bad_b002;
/// The header lies within this many bytes.
const SEARCHED: u64 = 8192;
/// Flag: the address fields are valid.
const ADDRESSES: u32 = 1 << 16;

/// Reads the image from the load address on.
pub(super) fn read(bytes: Bytes<'_>) -> Result<Program, Fault> {
    let what = "the multiboot header";
    let header = find(bytes).ok_or(Fault::Unknown)?;
    let field = |offset| bytes.u32(what, header + offset);
    let flags = field(4)?;
    if flags & ADDRESSES == 0 {
        let expected = "bit 16, with the addresses: the file is no ELF file".to_owned();
        let what = "the multiboot flags";
        return Err(Fault::Field { what, offset: header + 4, found: flags.into(), expected });
    }
    let (own, load, end, entry) = (field(12)?, field(16)?, field(20)?, field(28)?);
    let before = u64::from(own).checked_sub(load.into()).filter(|&before| before <= header);
    let offset = before.map(|before| header - before).ok_or_else(|| Fault::Field {
        what: "the multiboot header's own address",
        offset: header + 12,
        found: own.into(),
        expected: format!("the load address, {load:#x}, and at most {header:#x} more"),
    })?;
    let length = match end {
        0 => bytes.size() - offset,
        end => u64::from(end).checked_sub(load.into()).ok_or_else(|| Fault::Field {
            what: "the end of the load",
            offset: header + 20,
            found: end.into(),
            expected: format!("at least its start, {load:#x}"),
        })?,
    };
    let image = bytes.slice("what the multiboot header loads", offset, length)?;
    let mut program = Program::flat(image, Flat { address: load, size: CodeSize::Bits32 })?;
    if program.find(entry).is_none() {
        let expected = format!("within what is loaded, {length:#x} bytes at {load:#x}");
        let (what, offset, found) = ("the entry", header + 28, entry.into());
        return Err(Fault::Field { what, offset, found, expected });
    }
    program.entries = vec![entry];
    program.format = "multiboot image with addresses".to_owned();
    Ok(program)
}

/// The offset of the first header whose magic, flags and checksum add up to zero.
fn find(bytes: Bytes<'_>) -> Option<u64> {
    (0..bytes.size().min(SEARCHED)).step_by(4).find(|&at| {
        let field = |offset| bytes.u32("", at + offset).ok();
        let sum = || Some(MAGIC.wrapping_add(field(4)?).wrapping_add(field(8)?));
        field(0) == Some(MAGIC) && sum() == Some(0)
    })
}
