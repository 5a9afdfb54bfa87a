//! Images for the tests.

use ringside::audit::image::{CodeSize, Flat, Program};
use ringside::audit::{Audit, Kind, Method, Patched};
use std::io::Write;

/// Where the code of all test images lies.
pub(crate) const TEXT: u32 = 0xc000_1000;

pub(crate) fn flat(code: &[u8], method: Method) -> Audit {
    let flat = Flat { address: TEXT, size: CodeSize::Bits32 };
    Audit::of(Program::flat(code, flat).unwrap(), method)
}

/// What was found where, and what code patching does there.
pub(crate) fn found(audit: &Audit) -> Vec<(usize, Kind, Patched)> {
    audit.sites.iter().map(|(site, patched)| (site.offset, site.kind, *patched)).collect()
}

/// A symbol of a test image: name, offset in the text, size, and ELF's type.
pub(crate) type Name<'a> = (&'a str, u32, u32, u8);
pub(crate) const OBJECT: u8 = 1;
pub(crate) const FUNCTION: u8 = 2;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// An ELF file with `.text` at [`TEXT`], `.data` a page behind it, and symbols.
pub(crate) fn elf(text: &[u8], data: &[u8], symbols: &[Name<'_>]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    let mut names = vec![0];
    let mut table = vec![0; 16];
    for &(name, offset, size, kind) in symbols {
        table.extend(words(&[names.len() as u32, TEXT + offset, size, u32::from(kind) | 1 << 16]));
        names.extend(name.bytes().chain([0]));
    }
    let section_names = b"\0.text\0.data\0.symtab\0.strtab\0";
    let contents = [text, data, &table, &names, section_names];
    let mut starts = vec![HEADERS];
    for content in contents {
        starts.push(starts[starts.len() - 1] + content.len() as u32);
    }
    let section = |index: usize, name: u32, kind: u32, flags: u32, address: u32, link: u32| {
        let (start, size) = (starts[index], contents[index].len() as u32);
        words(&[name, kind, flags, address, start, size, link, 0, 1, 0])
    };
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    file.extend(words(&[1, TEXT, 52, starts[5], 0, 0x0020_0034, 0x0028_0001, 0x0005_0006]));
    let length = text.len() as u32;
    file.extend(words(&[1, HEADERS, TEXT, TEXT, length, length, 5, 4096]));
    file.extend(contents.concat());
    file.extend([0; 40]);
    file.extend(section(0, 1, 1, 2 | 4, TEXT, 0));
    file.extend(section(1, 7, 1, 2 | 1, TEXT + 0x1000, 0));
    file.extend(section(2, 13, 2, 0, 0, 4));
    file.extend(section(3, 21, 3, 0, 0, 0));
    file.extend(section(4, 21, 3, 0, 0, 0));
    file
}

/// The same file without section headers.
pub(crate) fn without_sections(mut elf: Vec<u8>) -> Vec<u8> {
    elf[32..36].fill(0);
    elf[48..52].fill(0);
    elf
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A bzImage with this payload: one sector of setup code, and the payload 64 bytes behind it.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x400 + 64];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&64u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}
