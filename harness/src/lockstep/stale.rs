//! Translations that a CPU may still hold after the page tables have changed.
//!
//! Until software flushes it, a CPU uses what is in the tables or what was, as it likes (Intel SDM
//! volume 3, 4.10.4.4). Programs that write over their own tables show which: that is no difference.

use super::accessed;
use iced_x86::{Instruction, Mnemonic, OpKind};
use machine::cpu::Cr4;
use machine::memory::Page;
use machine::{Machine, PhysicalAddress};
use std::collections::BTreeMap;

const PRESENT: u32 = 1 << 0;
const GLOBAL: u32 = 1 << 8;
/// The accessed and the dirty bit: the CPU's own.
const USED: u32 = 3 << 5;

/// Instructions between the change of an entry and its flush that nobody minds.
const IN_HAND: u64 = 4;

/// Watches a machine's paging structures while it executes.
pub(super) struct Watch {
    /// As they were last seen.
    tables: BTreeMap<u64, Page>,
    /// Entries that were present, have changed, and were not flushed, and whether they are global.
    stale: BTreeMap<u64, bool>,
    /// Instructions for which there was one.
    since: u64,
    cr3: u32,
    found: bool,
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
            self.stale.retain(|_, &mut global| global && keeps_global);
            self.cr3 = machine.cpu.cr3;
            self.take(machine);
        }
        // Which entry a page has is not looked up: one that has changed is the one that is meant.
        let flushes_one = instruction.is_some_and(|i| i.mnemonic() == Mnemonic::Invlpg);
        if flushes_one && self.stale.len() == 1 {
            self.stale.clear();
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
            let entries = before.as_chunks::<4>().0.iter().zip(now.as_chunks::<4>().0);
            for (at, (before, now)) in (address..).step_by(4).zip(entries) {
                let [before, now] = [before, now].map(|bytes| u32::from_le_bytes(*bytes));
                // The upper half of PAE's entries is 0 here, and not present.
                if before & PRESENT != 0 && (before ^ now) & !USED != 0 {
                    self.stale.insert(at, before & GLOBAL != 0);
                }
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
            && machine.memory.page(address).is_some_and(|now| {
                let entries = before.as_chunks::<4>().0.iter().zip(now.as_chunks::<4>().0);
                entries.into_iter().any(|(before, now)| {
                    let [before, now] = [before, now].map(|bytes| u32::from_le_bytes(*bytes));
                    before & PRESENT != 0 && (before ^ now) & !USED != 0
                })
            })
    })
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
