//! Whether two machines are in the same state, and where they are not.
//!
//! Compared is what a guest can tell: the CPU and its memory. Left out are the emulator's counters,
//! devices and clock; hidden parts of segment registers that hold no usable segment; and the x87's
//! last opcode and addresses, which CPUs save as they like (AMD's only after an exception).

use crate::contents::{self, PAGE};
use crate::cpu::{Cpu, InterruptShadow, MXCSR, Segment, XMM0};
use crate::{Error, Machine, PhysicalAddress};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;

/// Places in memory that are told apart; the rest is counted in pages.
const PLACES: usize = 64;
/// Bytes of each place that are shown.
const SHOWN: usize = 16;

/// A checksum of a machine's whole state, in two halves: CPU and memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// The CRC-32 of the CPU.
    pub cpu: u32,
    /// The CRC-32 of memory, and of where it is not zero.
    pub memory: u32,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.cpu, self.memory)
    }
}

/// The name of something that a CPU holds, such as `eax` or `cs.base`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The register.
    pub register: &'static str,
    /// Which part of it; empty where it has none.
    pub part: &'static str,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.part.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.register, self.part)
    }
}

/// Something in which two machines differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// A register.
    Cpu {
        /// Which one.
        field: Field,
        /// Its value in the first machine and in the second.
        values: [u128; 2],
    },
    /// A stretch of memory within one page, of which every byte differs.
    Memory {
        /// Where it begins.
        address: PhysicalAddress,
        /// Its bytes.
        length: usize,
        /// The first of them in the first machine and in the second, at most sixteen.
        values: [Vec<u8>; 2],
    },
    /// More pages of memory, of which nothing else is said.
    MorePages(u64),
    /// The sizes of memory, ROM included; its contents are not compared then.
    MemorySize([u64; 2]),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Cpu { field, values: [left, right] } => {
                write!(f, "{field}: {left:#x}, {right:#x}")
            }
            Difference::Memory { address, length, values: [left, right] } => {
                let more = if *length > left.len() { " …" } else { "" };
                write!(f, "{address}, {length} bytes: {left:02x?}{more}, {right:02x?}{more}")
            }
            Difference::MorePages(pages) => write!(f, "{pages} more pages"),
            Difference::MemorySize([left, right]) => {
                write!(f, "memory of {left} bytes, {right} bytes")
            }
        }
    }
}

impl Machine {
    /// A checksum of the CPU and of memory: equal for machines that [`difference`] finds equal.
    ///
    /// # Errors
    /// When the host cannot read the guest's memory.
    pub fn fingerprint(&self) -> Result<Fingerprint, Error> {
        let mut cpu = crc32fast::Hasher::new();
        visit(&self.cpu, |_, value| cpu.update(&value.to_le_bytes()));
        let memory = contents::checksum(self.memory.file(), self.memory.file_bytes());
        Ok(Fingerprint { cpu: cpu.finalize(), memory: memory.map_err(unreadable)? })
    }
}

impl Cpu {
    /// Whether a guest could not tell this CPU from another. Quick enough for every block.
    #[must_use]
    pub fn is_same(&self, other: &Cpu) -> bool {
        // What differs mostly differs in something that counts, but not always.
        self == other || self.differences(other).is_empty()
    }

    /// Where this CPU differs from another.
    #[must_use]
    pub fn differences(&self, other: &Cpu) -> Vec<Difference> {
        let mut values = Vec::with_capacity(FIELDS);
        visit(self, |_, value| values.push(value));
        let mut values = values.into_iter();
        let mut found = Vec::new();
        visit(other, |field, right| {
            if let Some(left) = values.next().filter(|&left| left != right) {
                found.push(Difference::Cpu { field, values: [left, right] });
            }
        });
        found
    }
}

/// Where two machines differ: CPU first, then memory in ascending order, as far as it serves.
///
/// # Errors
/// When the host cannot read the guests' memory.
pub fn difference(left: &Machine, right: &Machine) -> Result<Vec<Difference>, Error> {
    let mut found = left.cpu.differences(&right.cpu);
    let sizes = [left, right].map(|machine| machine.memory.file_bytes());
    if sizes[0] != sizes[1] {
        found.push(Difference::MemorySize(sizes));
    } else {
        compare_memory(left, right, &mut found).map_err(unreadable)?;
    }
    Ok(found)
}

/// The pages of RAM that differ between two machines of one size, in ascending order.
#[must_use]
pub fn differing_pages(left: &Machine, right: &Machine) -> Vec<PhysicalAddress> {
    let ram = left.memory.areas().into_iter().filter(|&(.., writable)| writable);
    ram.flat_map(|(start, length, ..)| (start.0..start.0 + length).step_by(PAGE))
        .map(PhysicalAddress)
        .filter(|&page| !left.memory.has_page_of(&right.memory, page))
        .collect()
}

impl Machine {
    /// Gives this machine's memory the contents of another's of the same size.
    ///
    /// # Errors
    /// When the host cannot read the guests' memory.
    pub fn take_memory(&mut self, from: &Machine) -> Result<(), Error> {
        let found = [pages(self), pages(from)];
        let [mine, theirs] = found.map(|pages| pages.map_err(unreadable));
        for offset in mine?.union(&theirs?).copied() {
            let wanted = read_page(from, offset).map_err(unreadable)?;
            if wanted != read_page(self, offset).map_err(unreadable)? {
                self.memory.write(self.memory.address_of(offset), &wanted);
            }
        }
        self.tlb.flush();
        Ok(())
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::HostMemory(error.to_string())
}

fn compare_memory(left: &Machine, right: &Machine, found: &mut Vec<Difference>) -> io::Result<()> {
    let most = found.len() + PLACES;
    let mut more = 0;
    for offset in pages(left)?.union(&pages(right)?).copied() {
        let (a, b) = (read_page(left, offset)?, read_page(right, offset)?);
        if a != b && found.len() >= most {
            more += 1;
        } else if a != b {
            compare_page(left.memory.address_of(offset), &a, &b, found);
            found.truncate(most);
        }
    }
    if more > 0 {
        found.push(Difference::MorePages(more));
    }
    Ok(())
}

/// Where in the memory's file pages are that are not zero.
fn pages(machine: &Machine) -> io::Result<BTreeSet<u64>> {
    let memory = &machine.memory;
    let mut pages = BTreeSet::new();
    contents::for_each_run(memory.file(), memory.file_bytes(), |start, run| {
        pages.extend((start..start + run.len() as u64).step_by(PAGE));
        Ok::<(), io::Error>(())
    })?;
    Ok(pages)
}

fn read_page(machine: &Machine, offset: u64) -> io::Result<[u8; PAGE]> {
    let mut page = [0; PAGE];
    machine.memory.file().read_exact_at(&mut page, offset)?;
    Ok(page)
}

fn compare_page(
    start: PhysicalAddress,
    left: &[u8; PAGE],
    right: &[u8; PAGE],
    found: &mut Vec<Difference>,
) {
    let mut at = 0;
    while let Some(skip) = (at..PAGE).position(|i| left[i] != right[i]) {
        let from = at + skip;
        let length = (from..PAGE).take_while(|&i| left[i] != right[i]).count();
        let shown = from..from + length.min(SHOWN);
        found.push(Difference::Memory {
            address: PhysicalAddress(start.0 + from as u64),
            length,
            values: [left[shown.clone()].to_vec(), right[shown].to_vec()],
        });
        at = from + length;
    }
}

/// Fields that [`visit`] shows.
const FIELDS: usize = 90;

const REGISTERS: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
const DEBUG: [(&str, usize); 6] =
    [("dr0", 0), ("dr1", 1), ("dr2", 2), ("dr3", 3), ("dr6", 6), ("dr7", 7)];
const PDPTES: [&str; 4] = ["pdpte0", "pdpte1", "pdpte2", "pdpte3"];
const ST: [&str; 8] = ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"];
const XMM: [&str; 8] = ["xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"];

/// Shows every field of a CPU that is compared, in one order.
#[inline]
fn visit(cpu: &Cpu, mut show: impl FnMut(Field, u128)) {
    let mut plain = |register, value: u64| show(Field { register, part: "" }, u128::from(value));
    for (name, value) in REGISTERS.into_iter().zip(cpu.registers) {
        plain(name, value.into());
    }
    plain("eip", cpu.eip.into());
    plain("eflags", cpu.flags.bits().into());
    plain("cpl", cpu.cpl.into());
    plain("interrupt-shadow", shadow(cpu.interrupt_shadow));
    plain("halted", cpu.halted.into());
    plain("cr0", cpu.cr0.bits().into());
    plain("cr2", cpu.cr2.into());
    plain("cr3", cpu.cr3.into());
    plain("cr4", cpu.cr4.bits().into());
    for (name, value) in PDPTES.into_iter().zip(cpu.pdptes) {
        plain(name, value);
    }
    for (name, index) in DEBUG {
        plain(name, cpu.debug[index].into());
    }
    plain("pending-debug", cpu.pending_debug.into());
    for (name, value) in
        ["sysenter-cs", "sysenter-esp", "sysenter-eip"].into_iter().zip(cpu.msrs.sysenter)
    {
        plain(name, value.into());
    }
    plain("pat", cpu.msrs.pat);
    plain("misc-enable", cpu.msrs.misc_enable);
    plain("bios-sign-id", cpu.msrs.bios_sign_id);
    visit_segments(cpu, &mut show);
    visit_fpu(cpu, &mut show);
}

fn shadow(shadow: InterruptShadow) -> u64 {
    match shadow {
        InterruptShadow::None => 0,
        InterruptShadow::Sti => 1,
        InterruptShadow::MovSs => 2,
    }
}

#[inline]
fn visit_segments(cpu: &Cpu, show: &mut impl FnMut(Field, u128)) {
    let named = SEGMENTS.into_iter().zip(&cpu.segments);
    for (register, segment) in named.chain([("ldtr", &cpu.ldtr), ("tr", &cpu.tr)]) {
        for (part, value) in segment_parts(segment) {
            show(Field { register, part }, value.into());
        }
    }
    for (register, table) in [("gdtr", &cpu.gdtr), ("idtr", &cpu.idtr)] {
        show(Field { register, part: "base" }, table.base.into());
        show(Field { register, part: "limit" }, table.limit.into());
    }
}

/// The parts of a segment register; what is behind an unusable one nobody can tell.
#[inline]
fn segment_parts(segment: &Segment) -> [(&'static str, u32); 4] {
    let hidden = |value| if segment.is_usable() { value } else { 0 };
    [
        ("selector", segment.selector.into()),
        ("base", hidden(segment.base)),
        ("limit", hidden(segment.limit)),
        ("attributes", hidden(segment.attributes().into())),
    ]
}

#[inline]
fn visit_fpu(cpu: &Cpu, show: &mut impl FnMut(Field, u128)) {
    let area = &cpu.fpu.area.0;
    let number = |at: usize, bytes: usize| {
        let mut value = [0; 16];
        value[..bytes].copy_from_slice(&area[at..at + bytes]);
        u128::from_le_bytes(value)
    };
    let controls = [("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1), ("mxcsr", MXCSR, 4)];
    for (register, at, bytes) in controls {
        show(Field { register, part: "" }, number(at, bytes));
    }
    for (register, at) in ST.into_iter().zip((32..).step_by(16)) {
        show(Field { register, part: "" }, number(at, 10));
    }
    for (register, at) in XMM.into_iter().zip((XMM0..).step_by(16)) {
        show(Field { register, part: "" }, number(at, 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MachineConfig;
    use crate::cpu::{CpuModel, SegmentRegister, register};

    fn machine() -> Machine {
        Machine::new(&MachineConfig { memory_bytes: 2 << 20, ..MachineConfig::default() }).unwrap()
    }

    fn said(left: &Machine, right: &Machine) -> Vec<String> {
        difference(left, right).unwrap().iter().map(Difference::to_string).collect()
    }

    #[test]
    fn all_fields_have_room_and_a_name_of_their_own() {
        let mut names = BTreeSet::new();
        visit(&Cpu::new(CpuModel::default()), |field, _| {
            assert!(names.insert(field.to_string()), "{field}");
        });
        assert_eq!(names.len(), FIELDS);
    }

    #[test]
    fn new_machines_are_equal() {
        let (left, right) = (machine(), machine());
        assert_eq!(said(&left, &right), [""; 0]);
        assert!(left.cpu.is_same(&right.cpu));
        assert_eq!(left.fingerprint().unwrap(), right.fingerprint().unwrap());
    }

    #[test]
    fn every_register_that_differs_is_named() {
        let (left, mut right) = (machine(), machine());
        right.cpu.registers[register::EBX] = 0x1234;
        right.cpu.segment_mut(SegmentRegister::Fs).base = 16;
        right.cpu.fpu.area.0[XMM0 + 16 + 15] = 0x80;
        let xmm1 = format!("xmm1: 0x0, 0x80{}", "0".repeat(30));
        assert_eq!(said(&left, &right), ["ebx: 0x0, 0x1234", "fs.base: 0x0, 0x10", &xmm1]);
        assert!(!left.cpu.is_same(&right.cpu));
        let (left, right) = (left.fingerprint().unwrap(), right.fingerprint().unwrap());
        assert_ne!(left.cpu, right.cpu);
        assert_eq!(left.memory, right.memory);
    }

    #[test]
    fn what_lies_behind_a_null_selector_is_not_compared() {
        let (mut left, mut right) = (machine(), machine());
        left.cpu.ldtr = Segment::new(0, 5, 6, 0);
        right.cpu.ldtr = Segment::null(0);
        assert!(left.cpu.is_same(&right.cpu));
        assert_eq!(said(&left, &right), [""; 0]);
    }

    #[test]
    fn differing_bytes_are_shown_with_their_address() {
        let (mut left, mut right) = (machine(), machine());
        assert!(left.memory.write(PhysicalAddress(0x10_1ffe), &[1, 2, 3, 4]));
        assert!(right.memory.write(PhysicalAddress(0x10_1ffe), &[1, 9, 9]));
        let places = ["0x00101fff, 1 bytes: [02], [09]", "0x00102000, 2 bytes: [03, 04], [09, 00]"];
        assert_eq!(said(&left, &right), places);
    }

    #[test]
    fn many_places_are_counted() {
        let (left, mut right) = (machine(), machine());
        let pages = 0x10_0000..0x16_0000u64;
        for address in pages.step_by(PAGE) {
            assert!(right.memory.write(PhysicalAddress(address + 100), &[1]));
        }
        let found = difference(&left, &right).unwrap();
        assert_eq!(found.len(), PLACES + 1);
        assert_eq!(found[PLACES], Difference::MorePages(0x60 - PLACES as u64));
    }

    #[test]
    fn memory_is_taken_over_as_a_whole() {
        let (mut left, mut right) = (machine(), machine());
        assert!(left.memory.write(PhysicalAddress(0x10_1ffe), &[1, 2, 3, 4]));
        assert!(right.memory.write(PhysicalAddress(0x10_5000), &[1, 9, 9]));
        left.take_memory(&right).unwrap();
        assert_eq!(said(&left, &right), [""; 0]);
        assert_eq!(left.memory.read_u32(PhysicalAddress(0x10_5000)), 0x0009_0901);
    }

    #[test]
    fn memories_of_different_sizes_are_not_compared() {
        let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
        let found = said(&machine(), &Machine::new(&config).unwrap());
        assert_eq!(found, ["memory of 2097152 bytes, 1048576 bytes"]);
    }
}
