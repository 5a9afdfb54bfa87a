//! Those pages of guest memory, or of a disk, that hold something. The others are zero, and mostly
//! not even there: the host gives a page, or a block, on its first use.

use crate::address::PAGE_SIZE;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a page.
pub(crate) const PAGE: usize = PAGE_SIZE as usize;

/// Bytes that are read at a time. Runs end at multiples of it.
const PIECE: u64 = 1 << 20;

const ZEROS: [u8; PAGE] = [0; PAGE];

/// Calls `visit` with each run of pages that are not zero, in ascending order: where it begins, and
/// its bytes, at most 1 MiB of them. Nothing behind `end` is looked at. Two files of equal contents
/// have equal runs.
pub(crate) fn for_each_run<E: From<io::Error>>(
    file: &File,
    end: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0; PIECE as usize];
    let mut at = 0;
    while let Some(start) = next_data(file, at)?.filter(|&start| start < end) {
        at = (start / PIECE * PIECE + PIECE).min(end);
        let bytes = &mut piece[..(at - start) as usize];
        file.read_exact_at(bytes, start)?;
        runs(bytes).try_for_each(|(offset, run)| visit(start + offset, run))?;
    }
    Ok(())
}

/// The CRC-32 of where the pages are and what they hold.
pub(crate) fn checksum(file: &File, end: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    for_each_run(file, end, |start, run| {
        for (at, page) in (start..).step_by(PAGE).zip(run.chunks(PAGE)) {
            hasher.update(&at.to_le_bytes());
            hasher.update(page);
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(hasher.finalize())
}

/// The first page at or after `offset` that the host has given.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data & !(PAGE as u64 - 1))),
        // Nothing but holes up to the end.
        Err(Errno::NXIO) => Ok(None),
        // The host knows of no holes here.
        Err(Errno::INVAL) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

fn is_zero(page: &[u8]) -> bool {
    *page == ZEROS[..page.len()]
}

/// The runs of pages in `bytes` that are not zero, with their offsets.
fn runs(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let pages = |from: usize, zero: bool| {
            let run = bytes[from..].chunks(PAGE).take_while(|page| is_zero(page) == zero);
            run.map(<[u8]>::len).sum::<usize>()
        };
        let start = at + pages(at, true);
        at = start + pages(start, false);
        (at > start).then(|| (start as u64, &bytes[start..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PhysicalAddress;
    use crate::memory::Memory;
    use std::io::{Seek, Write};

    fn found(file: &File, end: u64) -> Vec<(u64, usize, u8)> {
        let mut found = Vec::new();
        let visit = |start, bytes: &[u8]| {
            found.push((start, bytes.len(), bytes[0]));
            Ok::<(), io::Error>(())
        };
        for_each_run(file, end, visit).unwrap();
        found
    }

    #[test]
    fn untouched_memory_has_no_pages() {
        let memory = Memory::new(3 << 30, &[]).unwrap();
        assert_eq!(found(memory.file(), memory.file_bytes()), []);
    }

    #[test]
    fn runs_end_at_zero_pages_and_hold_all_others() {
        let mut memory = Memory::new(8 << 20, &[7; 4096]).unwrap();
        for (page, value) in [(0, 1), (1, 2), (2, 0), (3, 4), (1000, 5), (1001, 5)] {
            assert!(memory.write(PhysicalAddress(page * 4096), &[value; 4096]));
        }
        // The ROM lies behind RAM and at 0xFF000.
        let low = [(0, 8192, 1), (3 << 12, 4096, 4), (0xf_f000, 4096, 7)];
        let high = [(1000 << 12, 8192, 5), (8 << 20, 4096, 7)];
        assert_eq!(found(memory.file(), memory.file_bytes()), [&low[..], &high[..]].concat());
    }

    #[test]
    fn written_zeros_change_nothing() {
        let mut memory = Memory::new(4 << 20, &[]).unwrap();
        let checksum = |memory: &Memory| checksum(memory.file(), memory.file_bytes()).unwrap();
        assert!(memory.write(PhysicalAddress(0x10_3000), &[9; 64]));
        let before = checksum(&memory);
        assert!(memory.write(PhysicalAddress(0x10_0000), &[0; 0x3000]));
        assert_eq!(checksum(&memory), before);
        assert!(memory.write(PhysicalAddress(0x10_3000), &[8]));
        assert_ne!(checksum(&memory), before);
    }

    #[test]
    fn a_file_may_end_within_a_page() {
        let mut file = tempfile::tempfile().unwrap();
        file.seek(io::SeekFrom::Start(8192)).unwrap();
        file.write_all(&[3; 512]).unwrap();
        assert_eq!(found(&file, 8704), [(8192, 512, 3)]);
    }
}
