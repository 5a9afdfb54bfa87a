//! All views, their stubs, and where everything lies: what direct execution asks before and behind
//! each stay.

mod layout;
mod pages;
pub(crate) mod windows;

use crate::area::{self, Area};
use crate::loads::{self, Loads};
use crate::records::Records;
use crate::stub::{Level, Step};
use crate::view::{Key, PAGE, View};
use crate::virtual_cpu::{self, VirtualCpu, Word};
use crate::{Mode, Options, count};
use direct_execution::Shadow;
use host::shared_pages::SharedPages;
use machine::cpu::CpuModel;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine, PhysicalAddress};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Weak};

/// Pages of code that are known at once; more make all be examined anew.
const SLOTS: usize = 16384;
/// Areas for stubs.
const AREAS: usize = 8;
/// Where in the code file the virtual CPU's page is, and where the areas begin.
const VIRTUAL_CPU: usize = SLOTS * PAGE;
const FIRST_AREA: usize = VIRTUAL_CPU + PAGE + count::BYTES;
const FILE: usize = FIRST_AREA + AREAS * area::FILE_BYTES;

/// A stub in use.
struct Record {
    length: u32,
    steps: Vec<Step>,
}

/// Everything that is known of the guest's code.
pub(crate) struct Patches {
    pub(crate) options: Options,
    pub(crate) pages: SharedPages,
    pub(crate) views: Vec<Option<View>>,
    free: Vec<usize>,
    by_key: FxHashMap<Key, usize>,
    /// Views by the pages of guest memory that they rest on.
    by_page: FxHashMap<u64, Vec<usize>>,
    /// Views whose bytes may have changed unseen.
    unverified: Vec<bool>,
    areas: Vec<Area>,
    stubs: BTreeMap<u32, Record>,
    pub(crate) virtual_page: Option<u32>,
    /// How far above the guest's code its copies are shown: 0 where they cannot be read.
    shift: u32,
    /// Whether they are shown elsewhere, and the 4 MiB pieces in which there is code.
    moves_code: bool,
    units: BTreeSet<u32>,
    model: CpuModel,
    loads: Loads,
    /// Whose code it is.
    memory: Weak<File>,
    /// Traps by EIP, where they are counted.
    traps: FxHashMap<u32, u64>,
    pub(crate) statistics: crate::sites::Statistics,
    pub(crate) records: Records,
}

impl Patches {
    pub(crate) fn new(options: Options, watched: bool) -> Result<Patches, host::Error> {
        Ok(Patches {
            options,
            pages: SharedPages::new(FILE)?,
            views: Vec::new(),
            free: Vec::new(),
            by_key: FxHashMap::default(),
            by_page: FxHashMap::default(),
            unverified: Vec::new(),
            areas: Vec::new(),
            stubs: BTreeMap::new(),
            virtual_page: None,
            shift: 0,
            moves_code: options.mode == Mode::Prescan && !host::has_execute_only_memory(),
            units: BTreeSet::new(),
            model: CpuModel::default(),
            loads: Loads::default(),
            memory: Weak::new(),
            traps: FxHashMap::default(),
            statistics: crate::sites::Statistics::default(),
            records: Records::new(watched),
        })
    }

    /// Whether what is known is of another machine. A machine is known by its memory's file.
    pub(crate) fn is_of_another(&mut self, m: &Machine) -> bool {
        let memory = Arc::downgrade(m.memory.file());
        !std::mem::replace(&mut self.memory, memory.clone()).ptr_eq(&memory)
    }

    /// Whatever is known may be out of date.
    pub(crate) fn doubt(&mut self, m: &Machine) {
        self.model = m.cpu.model;
        self.unverified.fill(true);
    }

    /// Forgets all views and stubs, and gives up what was taken of the window.
    pub(crate) fn forget(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
    ) -> Result<(), host::Error> {
        tracing::debug!(views = self.by_key.len(), "all code is examined anew");
        shadow.hide_code(|_, _| true)?;
        shadow.give_back()?;
        for &page in self.by_page.keys() {
            m.memory.unwatch_code(PhysicalAddress(page));
        }
        self.views.clear();
        self.free.clear();
        self.by_key.clear();
        self.by_page.clear();
        self.unverified.clear();
        self.areas.clear();
        self.stubs.clear();
        self.traps.clear();
        self.virtual_page = None;
        self.loads.clear();
        self.units.clear();
        Ok(())
    }

    /// The view that is shown at a linear address.
    pub(crate) fn shown(&self, shadow: &Shadow, linear: u32) -> Option<usize> {
        shadow.code_at(linear & !0xfff).map(|code| code.copy / PAGE)
    }

    pub(crate) fn view(&self, slot: usize) -> Option<&View> {
        self.views.get(slot)?.as_ref()
    }

    /// Where the CPU is to begin for the guest to go on at `eip`: in a stub, if the instruction there
    /// has moved into one.
    pub(crate) fn native(&self, shadow: &Shadow, linear: u32, eip: u32) -> u32 {
        let view = self.shown(shadow, linear).and_then(|slot| self.view(slot));
        let moved = view.and_then(|view| {
            let offset = view.offset_of(eip)?;
            let (_, window) = view.window_at(offset)?;
            window.parts.iter().find(|(start, _)| *start == offset).map(|&(_, stub)| stub)
        });
        moved.unwrap_or(eip)
    }

    /// The step of the stub that covers a native address.
    pub(crate) fn step_at(&self, native: u32) -> Option<Step> {
        let (&base, record) = self.stubs.range(..=native).next_back()?;
        let offset = native - base;
        if offset >= record.length {
            return None;
        }
        record.steps.iter().rev().find(|step| step.offset <= offset).copied()
    }

    /// Notes what was counted so far, if it is time for that, or the run is over.
    pub(crate) fn note_moment(&mut self, is_last: bool) {
        let Some(at) = self.records.due(is_last) else { return };
        if self.records.are_counters_full(at, is_last) {
            let mut counts = vec![0; 4 * self.records.counters()];
            self.pages.read(VIRTUAL_CPU + PAGE, &mut counts);
            let counts_of_four = counts.chunks_exact(4);
            let number =
                |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
            self.records.collect(counts_of_four.map(number));
            counts.fill(0);
            self.pages.write(VIRTUAL_CPU + PAGE, &counts);
        }
        self.records.note(at, self.statistics.stubs);
    }

    /// Counts a trap, and says whether the instruction has trapped often enough to be patched.
    pub(crate) fn count_trap(&mut self, eip: u32) -> bool {
        let count = self.traps.entry(eip).or_default();
        *count += 1;
        self.options.mode == Mode::OnTrap && *count == self.options.threshold.get()
    }

    /// Whether a linear address is in an area.
    pub(crate) fn is_in_area(&self, address: u32) -> bool {
        self.areas.iter().any(|area| area.contains(address))
    }

    /// Lets stubs see the machine.
    pub(crate) fn write_cpu(&mut self, m: &Machine) {
        self.pages.write(VIRTUAL_CPU, VirtualCpu::of(m).bytes());
    }

    /// Lets stubs repeat the loads that the segment registers' contents came from.
    pub(crate) fn learn_loads(&mut self, m: &mut Machine, host: &[u16; 6], generation: u64) {
        self.loads.learn(m, host, generation);
        if self.loads.is_new
            && let Some(page) = self.virtual_page
        {
            self.loads.is_new = false;
            self.pages.write(VIRTUAL_CPU + loads::OFFSET, &self.loads.bytes(page));
        }
    }

    /// What stubs have made of it.
    pub(crate) fn read_cpu(&self) -> VirtualCpu {
        let mut bytes = [0; virtual_cpu::BYTES];
        self.pages.read(VIRTUAL_CPU, &mut bytes);
        VirtualCpu::from_bytes(bytes)
    }

    /// The key of the view for the code at EIP, if its page is memory.
    pub(crate) fn key(&self, m: &mut Machine, level: Level, linear: u32) -> Option<Key> {
        let found = emulator::mapping(m, LinearAddress(linear))?;
        let (PageKind::Ram(offset) | PageKind::Rom(offset)) = m.memory.page_kind(found.physical)
        else {
            return None;
        };
        let code = m.cpu.segment(machine::cpu::SegmentRegister::Cs);
        let is_32bit = code.is_32bit();
        Some(Key {
            linear: linear & !0xfff,
            offset,
            level,
            is_32bit,
            base: code.base,
            splits_gs: false,
        })
    }
}

/// Restores what a step says is not in the registers.
pub(crate) fn recover(m: &mut Machine, step: &Step, cpu: &VirtualCpu) {
    use machine::cpu::{Eflags, InterruptShadow, register::ESP};
    if step.loads_if {
        let set = m.cpu.registers[0] & Eflags::IF.bits() != 0;
        m.cpu.flags.set(Eflags::IF, set);
    }
    for number in 0..8u8 {
        if step.saved & 1 << number != 0 {
            m.cpu.registers[usize::from(number)] = cpu.get(Word::Saved(number));
        }
    }
    m.cpu.registers[ESP] = m.cpu.registers[ESP].wrapping_add(step.pushed);
    if step.flags_saved {
        let word = cpu.get(Word::Saved(crate::emit::EDX));
        let low = Eflags::from_bits_retain(word >> 8 & 0xd5);
        let mask = Eflags::from_bits_retain(0xd5) | Eflags::OF;
        m.cpu
            .flags
            .merge((low | if word & 1 != 0 { Eflags::OF } else { Eflags::empty() }).bits(), mask);
    }
    m.cpu.eip = step.eip;
    if step.behind_sti {
        m.cpu.interrupt_shadow = InterruptShadow::Sti;
    }
}
