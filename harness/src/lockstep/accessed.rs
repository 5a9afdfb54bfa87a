//! Accessed bits that a CPU sets for what it only reads ahead.
//!
//! It may do so at any time (Intel SDM volume 3, 4.8: "whenever the processor uses a paging-structure
//! entry as part of linear-address translation"), and native execution does: IRET within a ring
//! touches two words more than it pops. Such bits are no difference; the reference takes them over.

use machine::cpu::{Cr0, Cr4};
use machine::tap::Choice;
use machine::{Cpu, Machine, PhysicalAddress};
use std::collections::BTreeSet;

const PRESENT: u64 = 1 << 0;
const ACCESSED: u8 = 1 << 5;
const LARGE: u64 = 1 << 7;
/// Where in an entry the next table is, without and with PAE.
const TABLE: u64 = 0xffff_f000;
const PAE_TABLE: u64 = 0xf_ffff_f000;

/// Accessed bits in one page that only the strategy has set.
pub(super) struct Bits {
    page: PhysicalAddress,
    /// Where in the page, and the byte there.
    bytes: Vec<(usize, u8)>,
}

impl Bits {
    /// Those of the page at `address`, if nothing else is different in it and it can be a page table.
    ///
    /// Of `cpus` it is one, or else of a directory that a stretch has loaded and left again: of those
    /// there is no list. Without paging in either there is none.
    pub(super) fn find(
        leader: &Machine,
        reference: &Machine,
        address: PhysicalAddress,
        cpus: &[&Cpu],
    ) -> Option<Bits> {
        let theirs = leader.memory.page(address)?;
        let mine = reference.memory.page(address)?;
        let differing = theirs.iter().zip(&mine).enumerate().filter(|(_, (a, b))| a != b);
        let is_accessed = |at: usize, theirs: u8, mine: u8| {
            at.is_multiple_of(4) && theirs == mine | ACCESSED && u64::from(mine) & PRESENT != 0
        };
        let bits = differing
            .map(|(at, (&theirs, &mine))| is_accessed(at, theirs, mine).then_some((at, theirs)));
        let bytes = bits.collect::<Option<Vec<_>>>()?;
        let is_table = bytes.is_empty() || cpus.iter().any(|cpu| cpu.paging());
        is_table.then_some(Bits { page: address, bytes })
    }

    /// Takes them over, and notes them in `choices`.
    pub(super) fn set(self, reference: &mut Machine, choices: &mut Vec<Choice>) {
        for (at, value) in self.bytes {
            let address = self.page.0 + at as u64;
            reference.memory.write(PhysicalAddress(address), &[value]);
            choices.push(Choice::Accessed { address, value });
        }
    }
}

/// Where a page differs in something that cannot be an accessed bit.
pub(super) fn other_difference(
    leader: &Machine,
    reference: &Machine,
    address: PhysicalAddress,
) -> Option<PhysicalAddress> {
    let bytes = (0..0x1000).map(|at| PhysicalAddress(address.0 + at));
    bytes.into_iter().find(|&at| is_other_difference(leader, reference, at))
}

/// Whether a byte does.
pub(super) fn is_other_difference(
    leader: &Machine,
    reference: &Machine,
    address: PhysicalAddress,
) -> bool {
    let [mut theirs, mut mine] = [[0], [0]];
    leader.memory.read(address, &mut theirs)
        && reference.memory.read(address, &mut mine)
        && !matches!(theirs[0] ^ mine[0], 0 | ACCESSED)
}

/// The pages of a CPU's paging structures, PAE's first level aside.
pub(super) fn tables(machine: &Machine, cpu: &Cpu) -> BTreeSet<u64> {
    let mut tables = BTreeSet::new();
    for entry in directory_entries(machine, cpu) {
        tables.insert(entry.address.page());
        tables.extend(entry.table.map(PhysicalAddress::page));
    }
    tables
}

/// The numbers of the linear pages whose translation uses the entry at `address`.
pub(super) fn pages(machine: &Machine, cpu: &Cpu, address: PhysicalAddress) -> BTreeSet<u32> {
    let mut pages = BTreeSet::new();
    for entry in directory_entries(machine, cpu) {
        let first = entry.first_page;
        if entry.address == address {
            pages.extend(first..first + entry.pages);
        } else if entry.table.is_some_and(|table| table.page() == address.page()) {
            let size = u64::from(0x1000 / entry.pages);
            pages.insert(first + ((address.0 & 0xfff) / size) as u32);
        }
    }
    pages
}

/// An entry of a page directory.
struct DirectoryEntry {
    address: PhysicalAddress,
    /// The number of the first linear page that it is for, and how many there are.
    first_page: u32,
    pages: u32,
    /// The page table that it leads to.
    table: Option<PhysicalAddress>,
}

fn directory_entries(machine: &Machine, cpu: &Cpu) -> Vec<DirectoryEntry> {
    if !cpu.cr0.contains(Cr0::PG) {
        return Vec::new();
    }
    let pae = cpu.cr4.contains(Cr4::PAE);
    let directories: Vec<(u32, u64)> = match pae {
        true => {
            let numbered = (0..).zip(cpu.pdptes);
            numbered.filter(|(_, e)| e & PRESENT != 0).map(|(n, e)| (n, e & PAE_TABLE)).collect()
        }
        false => vec![(0, u64::from(cpu.cr3) & TABLE)],
    };
    let (size, mask) = if pae { (8, PAE_TABLE) } else { (4, TABLE) };
    let pages = 0x1000 / size;
    let entries = directories.into_iter().flat_map(|(directory, start)| {
        (0..pages).map(move |number| {
            let address = PhysicalAddress(start + u64::from(number * size));
            let entry = match pae {
                true => machine.memory.read_u64(address),
                false => machine.memory.read_u32(address).into(),
            };
            let leads_on = entry & PRESENT != 0 && entry & LARGE == 0;
            DirectoryEntry {
                address,
                first_page: (directory * pages + number) * pages,
                pages,
                table: leads_on.then_some(PhysicalAddress(entry & mask)),
            }
        })
    });
    entries.collect()
}
