//! Translations that a CPU may still hold after the page tables have changed.
//!
//! Until software flushes it, a CPU uses what is in the tables or what was, as it likes (Intel SDM
//! volume 3, 4.10.4.4). Programs that write over their own tables show which: that is no difference.

use super::accessed;
use super::way;
use iced_x86::{Instruction, Mnemonic, OpKind};
use machine::cpu::Cr4;
use machine::memory::Page;
use machine::page_table::entry;
use machine::{Machine, PhysicalAddress};
use std::collections::{BTreeMap, BTreeSet};

const PRESENT: u64 = 1 << 0;
const GLOBAL: u64 = 1 << 8;
/// The accessed and the dirty bit: the CPU's own.
const USED: u64 = 3 << 5;

/// Instructions between the change of an entry and its flush that nobody minds.
const IN_HAND: u64 = 4;

/// Watches a machine's paging structures while it executes.
pub(super) struct Watch {
    /// As they were last seen.
    tables: BTreeMap<u64, Page>,
    /// Entries that were present, have changed, and were not flushed, by their addresses.
    stale: BTreeMap<u64, Stale>,
    /// Instructions for which there was one.
    since: u64,
    cr3: u32,
    found: bool,
}

/// An entry of which a CPU may still use what it was.
struct Stale {
    is_global: bool,
    /// The numbers of the linear pages that it leads to and that were not flushed one by one.
    pages: BTreeSet<u32>,
}

impl Watch {
    /// Begins to watch a machine that holds no translations.
    pub(super) fn new(machine: &Machine) -> Watch {
        let cr3 = machine.cpu.cr3;
        let mut watch =
            Watch { tables: BTreeMap::new(), stale: BTreeMap::new(), since: 0, cr3, found: false };
        watch.take(machine);
        watch
    }

    /// Looks after an instruction.
    pub(super) fn look(&mut self, machine: &Machine, instruction: Option<&Instruction>) {
        self.compare(machine);
        if machine.cpu.cr3 != self.cr3 || instruction.is_some_and(writes_control_register) {
            let keeps_global = machine.cpu.cr4.contains(Cr4::PGE)
                && !instruction.is_some_and(|instruction| is_move_to(instruction, 4));
            self.stale.retain(|_, stale| stale.is_global && keeps_global);
            self.cr3 = machine.cpu.cr3;
            self.take(machine);
        }
        if let Some(page) = instruction.and_then(|instruction| flushed(machine, instruction)) {
            self.stale.retain(|_, stale| !stale.pages.remove(&page) || !stale.pages.is_empty());
        }
        self.since = if self.stale.is_empty() { 0 } else { self.since + 1 };
        self.found |= self.since > IN_HAND;
    }

    /// Whether the CPU could choose at some point.
    pub(super) fn found(&self) -> bool {
        self.found || !self.stale.is_empty()
    }

    fn take(&mut self, machine: &Machine) {
        self.tables = accessed::tables(machine, &machine.cpu)
            .into_iter()
            .filter_map(|page| {
                let address = PhysicalAddress(page << 12);
                Some((address.0, machine.memory.page(address)?))
            })
            .collect();
    }

    fn compare(&mut self, machine: &Machine) {
        let mut changed = false;
        for (&address, before) in &mut self.tables {
            let Some(now) = machine.memory.page(PhysicalAddress(address)) else { continue };
            if *before == now {
                continue;
            }
            for (at, entry) in changed_entries(machine, before, &now) {
                let at = PhysicalAddress(address + at);
                let pages = accessed::pages(machine, &machine.cpu, at);
                self.stale.insert(at.0, Stale { is_global: entry & GLOBAL != 0, pages });
            }
            *before = now;
            changed = true;
        }
        if changed {
            // A directory may lead to other tables now.
            for page in accessed::tables(machine, &machine.cpu) {
                let address = PhysicalAddress(page << 12);
                if let Some(page) = machine.memory.page(address) {
                    self.tables.entry(address.0).or_insert(page);
                }
            }
        }
    }
}

/// Whether the paging structures have changed since the journal began. Which pages belonged to them is
/// asked of what they are now and of the CPU as it was.
pub(super) fn have_changed(machine: &Machine, before: &machine::Cpu) -> bool {
    let mut kept = machine.memory.kept_pages().peekable();
    if kept.peek().is_none() || !machine.cpu.paging() && !before.paging() {
        return false;
    }
    let mut tables = accessed::tables(machine, &machine.cpu);
    tables.extend(accessed::tables(machine, before));
    kept.any(|(address, before)| {
        tables.contains(&address.page())
            && machine
                .memory
                .page(address)
                .is_some_and(|now| changed_entries(machine, before, &now).next().is_some())
    })
}

/// The entries of a page table that were present and have changed: where they are in it, and what they
/// were.
fn changed_entries(
    machine: &Machine,
    before: &Page,
    now: &Page,
) -> impl Iterator<Item = (u64, u64)> {
    let size = if machine.cpu.cr4.contains(Cr4::PAE) { 8 } else { 4 };
    let entries = before.chunks_exact(size).zip(now.chunks_exact(size));
    let entries = entries.map(move |(before, now)| (entry(before), entry(now)));
    let numbered = (0..).step_by(size).zip(entries);
    let changed = |before: u64, now: u64| before & PRESENT != 0 && (before ^ now) & !USED != 0;
    numbered.filter_map(move |(at, (before, now))| changed(before, now).then_some((at, before)))
}

/// The number of the page that INVLPG, just executed, has flushed.
fn flushed(machine: &Machine, instruction: &Instruction) -> Option<u32> {
    let cpu = &machine.cpu;
    let is_done = instruction.mnemonic() == Mnemonic::Invlpg && cpu.eip == instruction.next_ip32();
    let linear =
        || instruction.virtual_address(0, 0, |register, _, _| Some(way::value(cpu, register)));
    is_done.then(linear).flatten().map(|linear| linear as u32 >> 12)
}

fn writes_control_register(instruction: &Instruction) -> bool {
    [0, 3, 4].into_iter().any(|number| is_move_to(instruction, number))
}

fn is_move_to(instruction: &Instruction, control_register: usize) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().is_cr()
        && instruction.op0_register().number() == control_register
}
