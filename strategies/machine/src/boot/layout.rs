//! Where in RAM things go: the memory map that guests are told, and places that nothing else takes.

use super::fault::Fault;
use crate::address::PAGE_SIZE;
use crate::memory::{LOW_ROM_END, Memory, VGA_START};
use crate::{Machine, PhysicalAddress};
use rustix::fs::{FallocateFlags, fallocate};
use std::ops::Range;

/// Where the extended BIOS data area begins: conventional memory ends here.
pub(super) const EBDA: u64 = 0x9_fc00;
/// Where extended memory begins.
pub(super) const EXTENDED: u64 = LOW_ROM_END;
/// Below this lie the real-mode interrupt vectors and the BIOS data area; nothing is placed here
/// unless an image asks for it.
pub(super) const LOWEST_PLACE: u64 = 0x1000;

/// One range of the memory map that guests are told, as INT 15h, AX=E820h would give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// Where it begins.
    pub start: PhysicalAddress,
    /// Bytes in it.
    pub length: u64,
    /// Whether the guest may use it as RAM; reserved otherwise.
    pub usable: bool,
}

impl MapEntry {
    /// The type in E820 and multiboot memory maps: 1 for RAM, 2 for reserved.
    #[must_use]
    pub fn kind(&self) -> u32 {
        if self.usable { 1 } else { 2 }
    }
}

/// The memory map: conventional memory up to the extended BIOS data area, extended memory, and what
/// is reserved. Between 0xC0000 and 0xEFFFF there is RAM that, as on a PC, guests are not told of.
#[must_use]
pub fn memory_map(memory: &Memory) -> Vec<MapEntry> {
    let entry = |start, end, usable| MapEntry {
        start: PhysicalAddress(start),
        length: end - start,
        usable,
    };
    let mut map = vec![entry(0, EBDA, true), entry(EBDA, VGA_START, false)];
    for (start, length, _, writable) in memory.areas() {
        if start.0 >= EXTENDED || !writable {
            map.push(entry(start.0, start.0 + length, writable));
        }
    }
    map
}

/// What of RAM is taken while an image is being loaded.
#[derive(Debug)]
pub(super) struct Layout {
    ram: u64,
    taken: Vec<Range<u64>>,
}

impl Layout {
    pub(super) fn new(memory: &Memory) -> Layout {
        Layout { ram: memory.ram_bytes(), taken: Vec::new() }
    }

    /// Bytes of RAM: also the end of extended memory.
    pub(super) fn ram(&self) -> u64 {
        self.ram
    }

    /// Takes a range that an image asks for. It must be RAM, but may overlap what the image asked
    /// for before.
    pub(super) fn claim(
        &mut self,
        what: &'static str,
        start: u64,
        length: u64,
    ) -> Result<Range<u64>, Fault> {
        let end = start.saturating_add(length);
        if end <= VGA_START || (start >= EXTENDED && end <= self.ram) {
            self.taken.push(start..end);
            Ok(start..end)
        } else {
            Err(Fault::NotRam { what, start, end, ram: self.ram })
        }
    }

    /// Takes the lowest free place of `size` bytes in `within`, at a multiple of `align`.
    pub(super) fn place(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        within: Range<u64>,
    ) -> Result<u64, Fault> {
        let mut start = within.start.next_multiple_of(align);
        // Each round passes by at least one range for good.
        while let Some(end) = self.overlap(&(start..start.saturating_add(size))) {
            start = end.next_multiple_of(align);
        }
        if start.saturating_add(size) > within.end {
            return Err(Fault::NoPlace { what, size, from: within.start, to: within.end });
        }
        self.taken.push(start..start + size);
        Ok(start)
    }

    /// Takes a place in conventional memory, or in extended memory where that is full.
    pub(super) fn place_low(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        from: u64,
    ) -> Result<u64, Fault> {
        self.place(what, size, align, from..EBDA).or_else(|_| self.place_high(what, size, align))
    }

    /// Takes a place in extended memory, behind all that is there.
    pub(super) fn place_high(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
    ) -> Result<u64, Fault> {
        let top = self.taken.iter().map(|range| range.end).max().unwrap_or(0);
        self.place(what, size, align, top.max(EXTENDED)..self.ram)
    }

    /// The end of the ranges that overlap `range`, if there are any.
    fn overlap(&self, range: &Range<u64>) -> Option<u64> {
        let overlaps = |taken: &&Range<u64>| taken.start < range.end && range.start < taken.end;
        self.taken.iter().filter(overlaps).map(|taken| taken.end).max()
    }
}

/// Writes `bytes` into RAM that a [`Layout`] gave.
pub(super) fn write(
    machine: &mut Machine,
    what: &'static str,
    start: u64,
    bytes: &[u8],
) -> Result<(), Fault> {
    if machine.memory.write(PhysicalAddress(start), bytes) {
        return Ok(());
    }
    let end = start.saturating_add(bytes.len() as u64);
    Err(Fault::NotRam { what, start, end, ram: machine.memory.ram_bytes() })
}

/// Clears RAM that a [`Layout`] gave. Whole pages become holes of the memfd, so that an image that
/// asks for gigabytes of zeros costs the host nothing.
pub(super) fn clear(machine: &mut Machine, range: Range<u64>) -> Result<(), Fault> {
    let page = u64::from(PAGE_SIZE);
    let whole = range.start.next_multiple_of(page)..range.end / page * page;
    if whole.start >= whole.end {
        return write_zeros(machine, range);
    }
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // RAM lies at offset 0 of the file: a physical address is an offset.
    fallocate(machine.memory.file(), mode, whole.start, whole.end - whole.start).map_err(
        |error| Fault::Host { start: whole.start, end: whole.end, reason: error.to_string() },
    )?;
    for address in whole.clone().step_by(PAGE_SIZE as usize) {
        machine.memory.note_write(PhysicalAddress(address), PAGE_SIZE);
    }
    write_zeros(machine, range.start..whole.start)?;
    write_zeros(machine, whole.end..range.end)
}

/// Clears less than two pages.
fn write_zeros(machine: &mut Machine, range: Range<u64>) -> Result<(), Fault> {
    let length = range.end.saturating_sub(range.start) as usize;
    write(machine, "zeros", range.start, &[0; 2 * PAGE_SIZE as usize][..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MachineConfig;

    fn machine() -> Machine {
        let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
        Machine::new(&config).unwrap()
    }

    #[test]
    fn the_memory_map_names_every_range_of_a_pc() {
        let map = memory_map(&Memory::new(4 << 20, &[0; 0x2_0000]).unwrap());
        let seen: Vec<_> =
            map.iter().map(|e| (e.start.0, e.start.0 + e.length, e.kind())).collect();
        let expected = [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0xa_0000, 2),
            (0xf_0000, 0x10_0000, 2),
            (0x10_0000, 0x40_0000, 1),
            (0xfffe_0000, 0x1_0000_0000, 2),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_machine_of_one_mib_has_no_extended_memory() {
        let map = memory_map(&Memory::new(1 << 20, &[]).unwrap());
        assert_eq!(map.last().unwrap().start.0, 0xf_0000);
    }

    #[test]
    fn only_ram_can_be_claimed() {
        let mut layout = Layout::new(&machine().memory);
        for (start, length) in [(0, 0xa_0000), (0x10_0000, 3 << 20), (0x20_0000, 0)] {
            assert!(layout.claim("x", start, length).is_ok(), "{start:#x}");
        }
        for (start, length) in [
            (0x9_ffff, 2),
            (0xc_0000, 1),
            (0xf_ffff, 2),
            (0x10_0000, (3 << 20) + 1),
            (u64::MAX, u64::MAX),
        ] {
            let fault = layout.claim("x", start, length).unwrap_err();
            assert!(matches!(fault, Fault::NotRam { .. }), "{fault}");
        }
    }

    #[test]
    fn places_avoid_what_is_taken() {
        let mut layout = Layout::new(&machine().memory);
        layout.claim("x", 0x9800, 0x1000).unwrap();
        layout.claim("x", 0xa000, 0x10).unwrap();
        assert_eq!(layout.place_low("y", 0x1000, 8, 0x9000), Ok(0xa800));
        assert_eq!(layout.place_low("y", 0x100, 8, 0x9000), Ok(0x9000));
        assert_eq!(layout.place_low("y", 0xa_0000, 4096, 0x9000), Ok(0x10_0000));
        let fault = layout.place_high("y", 0x28_0000, 1).unwrap_err();
        assert!(matches!(fault, Fault::NoPlace { from: 0x1a_0000, .. }), "{fault}");
    }

    #[test]
    fn clearing_reaches_the_edges_and_no_further() {
        let mut machine = machine();
        for range in [0x10_0ffeu64..0x10_3002, 0x10_1003..0x10_1005, 0x10_0001..0x10_1fff] {
            assert!(machine.memory.write(PhysicalAddress(0x10_0000), &[0xaa; 0x4000]));
            machine.memory.watch_code(PhysicalAddress(0x10_1000));
            machine.memory.take_code_writes();
            clear(&mut machine, range.clone()).unwrap();
            assert!(machine.memory.code_was_written());
            let mut seen = [0; 0x4000];
            assert!(machine.memory.read(PhysicalAddress(0x10_0000), &mut seen));
            for (at, byte) in (0x10_0000u64..).zip(seen) {
                assert_eq!(byte == 0, range.contains(&at), "{at:#x} of {range:#x?}");
            }
        }
    }
}
