//! Where stubs lie: ranges of linear addresses that the guest does not use.
//!
//! A jump to a stub may cover places where instructions began that moved into the stub. Nothing
//! says that no branch leads there: an indirect one shows its target only when it is taken. So the
//! stub's address is chosen such that each byte of the jump's displacement that stands in such a
//! place is an opcode that traps in ring 3 (Chamith et al. call this *instruction punning*, PLDI 2017).
//! Whoever comes there is noticed, and the instruction emulated. For `cli` at 0xc0100000 with
//! neighbours of 1 and 2 bytes:
//!
//! ```text
//! fa          cli                       e9 f4 6c 00 ed    jmp 0xad106cf9
//! 50          push eax                     f4             hlt: traps
//! 89 d8       mov eax, ebx                    6c          insb: traps
//! ```

use host::runs::PAGE;

/// Bytes of an area: with this many, two bytes of each displacement are free to choose.
pub(crate) const BYTES: u32 = 16 << 20;
/// Stubs are counted in units of this many bytes.
const GRANULE: u32 = 16;
const GRANULES: usize = (BYTES / GRANULE) as usize;

/// Opcodes that raise #GP in ring 3 whatever follows: IN and OUT, INS and OUTS, HLT, CLI and STI
/// (IOPL is 0 and the I/O bitmap allows nothing).
const TRAPS: [u8; 15] =
    [0x6c, 0x6d, 0x6e, 0x6f, 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf4, 0xfa, 0xfb];
/// The byte that is written where something is to trap: HLT.
pub(crate) const TRAP: u8 = 0xf4;

/// Distances from code to areas for it, in units of [`BYTES`]: the displacement's last byte is one
/// that traps, whichever code of that unit jumps to whichever stub.
const DISTANCES: [u32; 6] = [0xed, 0xe5, 0x6d, 0x6e, 0xee, 0xe6];

/// Whether a byte traps where it is executed in ring 3.
fn traps(byte: u8) -> bool {
    TRAPS.contains(&byte)
}

/// What a stub's place has to fulfil.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Bytes of the stub.
    pub(crate) length: u32,
    /// Where the jump to it stands.
    pub(crate) jump: u32,
    /// Which bytes of the displacement have to trap: bit 0 for the first.
    pub(crate) trapping: u8,
}

/// A range of linear addresses for stubs.
pub(crate) struct Area {
    base: u32,
    /// Where its pages begin in the code file.
    file: usize,
    used: Vec<bool>,
    /// Where to look next, for each set of bytes that have to trap.
    hints: [u32; 16],
}

impl Area {
    /// An area at `base` whose pages begin at offset `file` of the code file.
    pub(crate) fn new(base: u32, file: usize) -> Area {
        Area { base, file, used: vec![false; GRANULES], hints: [0; 16] }
    }

    /// Where areas for code at `code` may lie, the best first.
    pub(crate) fn places(code: u32) -> impl Iterator<Item = u32> {
        let unit = code / BYTES;
        DISTANCES.into_iter().map(move |distance| unit.wrapping_add(distance).wrapping_mul(BYTES))
    }

    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    /// Behind its last byte.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.base) + u64::from(BYTES)
    }

    pub(crate) fn contains(&self, address: u32) -> bool {
        address.wrapping_sub(self.base) < BYTES
    }

    /// The offset of an address in the code file.
    pub(crate) fn file_offset(&self, address: u32) -> usize {
        self.file + address.wrapping_sub(self.base) as usize
    }

    /// Whether code at `code` reaches stubs here with every displacement's last byte one that traps.
    pub(crate) fn serves(&self, code: u32) -> bool {
        Area::places(code).any(|place| place == self.base)
    }

    /// Finds a place, and takes it.
    pub(crate) fn take(&mut self, request: &Request) -> Option<u32> {
        let mask = usize::from(request.trapping & 15);
        let start = self.hints[mask];
        let found =
            self.search(request, start..BYTES).or_else(|| self.search(request, 0..start))?;
        self.hints[mask] = found;
        self.mark(found, request.length, true);
        Some(self.base.wrapping_add(found))
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, address: u32, length: u32) {
        let offset = address.wrapping_sub(self.base);
        self.mark(offset, length, false);
        self.hints.iter_mut().for_each(|hint| *hint = (*hint).min(offset));
    }

    /// The first offset in `range` that fulfils `request` and is free.
    fn search(&self, request: &Request, range: std::ops::Range<u32>) -> Option<u32> {
        let next = request.jump.wrapping_add(u32::from(crate::plan::JUMP));
        let mut offset = range.start;
        while offset < range.end && offset + request.length <= BYTES {
            let displacement = self.base.wrapping_add(offset).wrapping_sub(next);
            let wrong = (0..4).rev().find(|&byte| {
                request.trapping & 1 << byte != 0 && !traps(displacement.to_le_bytes()[byte])
            });
            offset = match wrong {
                // On to where this byte, the highest that is wrong, has its next value.
                Some(byte) => {
                    let unit = 1 << (8 * byte as u32);
                    offset.checked_add(unit - displacement % unit)?
                }
                None if self.is_free(offset, request.length) => return Some(offset),
                None => (offset / GRANULE + 1) * GRANULE,
            };
        }
        None
    }

    fn granules(offset: u32, length: u32) -> std::ops::Range<usize> {
        (offset / GRANULE) as usize..((offset + length).div_ceil(GRANULE)) as usize
    }

    fn is_free(&self, offset: u32, length: u32) -> bool {
        self.used[Area::granules(offset, length)].iter().all(|used| !used)
    }

    fn mark(&mut self, offset: u32, length: u32, used: bool) {
        self.used[Area::granules(offset, length)].fill(used);
    }
}

/// The bytes of the code file that one area takes.
pub(crate) const FILE_BYTES: usize = BYTES as usize;

const _: () = assert!(FILE_BYTES.is_multiple_of(PAGE as usize));

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u32 = 0xc012_3456;

    fn area() -> Area {
        Area::new(Area::places(CODE).next().unwrap(), 0)
    }

    #[test]
    fn bytes_that_are_to_trap_do() {
        for trapping in 0..16 {
            let mut area = area();
            for number in 0..50 {
                let jump = CODE + number * 37;
                let request = Request { length: 60, jump, trapping };
                let stub = area.take(&request).unwrap();
                let displacement = stub.wrapping_sub(jump + 5).to_le_bytes();
                for byte in (0..4).filter(|byte| trapping & 1 << byte != 0) {
                    assert!(traps(displacement[byte]), "{trapping:#b}: {displacement:02x?}");
                }
            }
        }
    }

    #[test]
    fn stubs_do_not_overlap_and_places_are_used_again() {
        let mut area = area();
        let request = Request { length: 100, jump: CODE, trapping: 1 };
        let mut taken: Vec<u32> = (0..200).filter_map(|_| area.take(&request)).collect();
        let first = taken[0];
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[1] - pair[0] >= 100), "{taken:x?}");
        area.give_back(first, 100);
        assert_eq!(area.take(&request), Some(first));
    }

    #[test]
    fn every_place_serves_its_whole_unit() {
        for code in [0xc000_0000, CODE, 0xc0ff_fff0, 0x0804_8000] {
            for place in Area::places(code) {
                for stub in [place, place + BYTES - 1] {
                    let top = stub.wrapping_sub(code + 5).to_le_bytes()[3];
                    assert!(traps(top) || traps(top.wrapping_add(1)), "{code:x} {stub:x}");
                }
            }
        }
    }

    #[test]
    fn a_full_area_says_so() {
        let mut area = area();
        let request = Request { length: BYTES / 2, jump: CODE, trapping: 0 };
        assert!(area.take(&request).is_some());
        assert!(area.take(&request).is_some());
        assert!(area.take(&request).is_none());
    }
}
