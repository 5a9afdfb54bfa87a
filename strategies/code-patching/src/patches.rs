//! All views, their stubs, and where everything lies: what direct execution asks before and behind
//! each stay.

use crate::area::{self, Area, Request, TRAP};
use crate::class::Treatment;
use crate::count;
use crate::loads::{self, Loads};
use crate::place;
use crate::plan::{self, JUMP, Plan};
use crate::records::{self, Records};
use crate::sites::{Became, Jump, Obstacle, Way};
use crate::stub::{self, Level, Part, Setting, Step};
use crate::view::{Key, PAGE, View, Window};
use crate::virtual_cpu::{self, VirtualCpu, Word};
use crate::{Mode, Options};
use direct_execution::{CodePage, Shadow};
use host::low_memory::Protection;
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

    /// Takes the window's ranges again, after the window was another engine's.
    pub(crate) fn take_again(&self, shadow: &mut Shadow) -> Result<(), host::Error> {
        shadow.set_code_shift(self.shift)?;
        for area in &self.areas {
            if !shadow.is_taken_for_code(area.base()) {
                let from = (self.pages.file(), area.file_offset(area.base()));
                shadow.take(self.place_of(area), from, Protection::Execute, false)?;
            }
        }
        match self.virtual_page {
            Some(page) if !shadow.is_taken(page.into()) => self.take_virtual_page(shadow, page),
            _ => Ok(()),
        }
    }

    fn take_virtual_page(&self, shadow: &mut Shadow, page: u32) -> Result<(), host::Error> {
        let counters = if self.records.is_watched() { count::BYTES } else { 0 };
        let range = u64::from(page)..u64::from(page) + (PAGE + counters) as u64;
        shadow.take(range, (self.pages.file(), VIRTUAL_CPU), Protection::WriteData, true)
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

    /// Sees to it that copies of code at `linear` have a place where the guest uses nothing. False if
    /// there is none.
    pub(crate) fn settle(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        linear: u32,
    ) -> Result<bool, host::Error> {
        let unit = place::unit(linear);
        if !self.moves_code || self.units.contains(&unit) {
            return Ok(true);
        }
        let fits = self.shift != 0 && self.is_place_for(m, unit) && !shadow.is_taken_for_code(unit);
        if !fits {
            let mut units = std::mem::take(&mut self.units);
            units.insert(unit);
            self.forget(m, shadow)?;
            let Some(shift) = place::for_code(m, shadow, units.iter().copied()) else {
                return Ok(false);
            };
            self.shift = shift;
            shadow.set_code_shift(shift)?;
            self.units = units;
        }
        self.units.insert(unit);
        Ok(true)
    }

    /// Whether the guest uses nothing where copies of code in a piece are shown.
    fn is_place_for(&self, m: &Machine, unit: u32) -> bool {
        place::is_free(m, unit.wrapping_add(self.shift))
    }

    /// Where an area is shown.
    fn place_of(&self, area: &Area) -> std::ops::Range<u64> {
        let base = u64::from(area.base().wrapping_add(self.shift));
        base..base + (area.end() - u64::from(area.base()))
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

    /// The view for code at `linear`, whose page is readable and executable for the guest now.
    pub(crate) fn find(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        key: Key,
    ) -> Result<usize, host::Error> {
        let bytes = self.read(m, &key);
        if let Some(&slot) = self.by_key.get(&key) {
            let doubtful = std::mem::take(&mut self.unverified[slot]);
            let view = self.views[slot].as_mut();
            let holds = !doubtful || view.is_some_and(|view| view.refresh(&bytes));
            if holds {
                if doubtful {
                    self.write_unexamined(slot);
                }
                self.watch(m, shadow, key.offset)?;
                let behind = self.view(slot).and_then(|view| view.next);
                behind.map_or(Ok(()), |behind| self.watch(m, shadow, behind))?;
                return Ok(slot);
            }
            self.drop_view(m, shadow, slot)?;
        }
        if self.free.is_empty() && self.views.len() == SLOTS {
            self.forget(m, shadow)?;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.views.push(None);
            self.unverified.push(false);
            self.views.len() - 1
        });
        self.unverified[slot] = false;
        let fill = match self.options.mode {
            Mode::Prescan => vec![TRAP; PAGE],
            Mode::OnTrap => bytes[..PAGE].to_vec(),
        };
        self.pages.write(slot * PAGE, &fill);
        self.views[slot] = Some(View::new(key, bytes));
        self.by_key.insert(key, slot);
        self.rest_on(m, shadow, slot, key.offset)?;
        Ok(slot)
    }

    /// The page's bytes, and the first of the page behind it if that is there.
    fn read(&self, m: &mut Machine, key: &Key) -> Vec<u8> {
        let mut bytes = place::read_page(m, key.linear);
        let behind = LinearAddress(key.linear.wrapping_add(PAGE as u32));
        if let Some(found) = place::ram(m, behind) {
            let mut first = [0; crate::view::LONGEST];
            if m.memory.read(PhysicalAddress(found), &mut first) {
                bytes.extend(first);
            }
        }
        bytes
    }

    /// The view that is known already and holds, if there is one.
    pub(crate) fn known(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        key: &Key,
    ) -> Result<Option<usize>, host::Error> {
        if self.by_key.contains_key(key) { self.find(m, shadow, *key).map(Some) } else { Ok(None) }
    }

    /// Notes that a view rests on a page of guest memory, and watches that.
    fn rest_on(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        page: u64,
    ) -> Result<(), host::Error> {
        let slots = self.by_page.entry(page).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
        self.watch(m, shadow, page)
    }

    fn watch(&self, m: &mut Machine, shadow: &mut Shadow, page: u64) -> Result<(), host::Error> {
        if m.memory.watch_code(PhysicalAddress(page)) {
            if let Some(host) = m.memory.host_page(PhysicalAddress(page)) {
                m.tlb.withhold_writes(host);
            }
            shadow.withhold_writes(page)?;
        }
        Ok(())
    }

    /// Shows a view where it belongs. False where that cannot be.
    pub(crate) fn show(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
    ) -> Result<bool, host::Error> {
        let Some(view) = self.view(slot) else { return Ok(false) };
        let code = CodePage { offset: view.key.offset, behind: view.next, copy: slot * PAGE };
        let linear = view.key.linear;
        shadow.show_code(m, linear, code, self.pages.file())
    }

    /// Examines what is reached from an EIP in a view, and patches what was found.
    pub(crate) fn examine(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        eip: u32,
    ) -> Result<(), host::Error> {
        let Some(view) = self.views[slot].as_mut() else { return Ok(()) };
        let Some(entry) = view.offset_of(eip) else { return Ok(()) };
        let found = view.examine(entry);
        for &given_up in &found.given_up {
            self.dissolve_at(slot, given_up);
            self.write_plain(slot, given_up);
            self.found(slot, given_up, Became::TrapByte(Obstacle::NotWanted));
        }
        let mut sites = Vec::new();
        for &new in &found.new {
            if self.is_site(slot, new) {
                sites.push(new);
                self.found(slot, new, Became::Left);
            }
            self.write_plain(slot, new);
        }
        if self.options.mode == Mode::Prescan {
            for site in sites {
                self.patch(m, shadow, slot, site)?;
            }
        }
        Ok(())
    }

    /// Notes a site.
    fn found(&mut self, slot: usize, offset: u16, became: Became) {
        if let Some(view) = &self.views[slot] {
            self.records.found(view, offset);
            self.records.became(view, offset, became);
        }
    }

    /// Whether an instruction cannot stay as it is.
    fn is_site(&self, slot: usize, offset: u16) -> bool {
        self.view(slot).is_some_and(|view| view.is_site(offset))
    }

    /// Writes an instruction that is in no stub to the executable copy: its own bytes, or one that traps.
    fn write_plain(&mut self, slot: usize, offset: u16) {
        let is_site = self.is_site(slot, offset) && self.options.mode == Mode::Prescan;
        let Some(view) = self.views[slot].as_ref() else { return };
        let at = slot * PAGE + usize::from(offset);
        if is_site {
            self.pages.write(at, &[TRAP]);
        } else {
            let room = PAGE - usize::from(offset);
            let bytes = view.bytes_of(offset);
            self.pages.write(at, &bytes[..bytes.len().min(room)]);
        }
    }

    /// On-trap mode: writes the guest's bytes to the copy where no instruction was examined.
    fn write_unexamined(&mut self, slot: usize) {
        let Some(view) = self.views[slot].as_ref() else { return };
        if self.options.mode == Mode::Prescan {
            return;
        }
        let is_guests = |at: &u16| !view.is_code(*at) && view.window_at(*at).is_none();
        for at in (0..PAGE as u16).filter(is_guests) {
            self.pages.write(slot * PAGE + usize::from(at), &[view.byte(at)]);
        }
    }

    /// Gives the instruction at `site` a stub, if there is room for a jump to one.
    pub(crate) fn patch(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        site: u16,
    ) -> Result<(), host::Error> {
        let Some(view) = self.view(slot) else { return Ok(()) };
        if view.window_at(site).is_some() {
            return Ok(());
        }
        let known = view.instructions.get(&site);
        let traps = known.is_none_or(|known| known.treatment == Treatment::Trap);
        let planned = match traps || view.key.level == Level::Trap {
            true => Err(records::unwanted(traps)),
            false => plan::plan(view, site),
        };
        let obstacle = match planned {
            Ok(plan) if self.build(m, shadow, slot, &plan)? => {
                self.statistics.stubs += 1;
                return Ok(());
            }
            Ok(_) => Obstacle::Addresses,
            Err(obstacle) => {
                self.statistics.without_room += u64::from(!traps);
                obstacle
            }
        };
        if let Some(view) = &self.views[slot] {
            self.records.became(view, site, Became::TrapByte(obstacle));
        }
        Ok(())
    }

    /// Makes a stub for a run, and the jump to it. False where there is no place for it.
    fn build(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        plan: &Plan,
    ) -> Result<bool, host::Error> {
        let Some(page) = self.virtual_page(m, shadow)? else { return Ok(false) };
        let counters = self.counters(slot, plan, page);
        let Some(view) = self.view(slot) else { return Ok(false) };
        let (level, shift) = (view.key.level, self.shift);
        let setting = Setting { level, page, shift, model: self.model };
        let first = plan.starts[0];
        let eip = view.eip(first);
        let length = stub::assemble(&parts(view, plan, &counters), 0, &setting).code.len() as u32;
        let trapping = plan.boundaries().fold(0, |bits, within| bits | 1 << (within - 1));
        let reaches = plan.starts.iter().any(|&start| view.leaves_page(start));
        let linear = view.key.linear;
        let request = Request { length, jump: eip, trapping };
        let Some(base) = self.take_place(m, shadow, &request)? else { return Ok(false) };
        let Some(view) = self.views[slot].as_mut() else { return Ok(false) };
        let made = stub::assemble(&parts(view, plan, &counters), base, &setting);
        let replaced = plan.replaces.iter().filter_map(|start| view.windows.remove(start));
        let replaced: Vec<u32> = replaced.map(|window| window.stub).collect();
        let places: Vec<(u16, u32)> = plan
            .starts
            .iter()
            .zip(&made.parts)
            .map(|(&start, &(_, offset))| (start, base.wrapping_add(offset)))
            .collect();
        let window = Window { end: plan.end, stub: base, parts: places };
        let old = view.windows.insert(first, window);
        let copy = slot * PAGE + usize::from(first);
        debug_assert!(old.is_none(), "a run replaces the windows that it meets");
        let mut jump = vec![TRAP; usize::from(plan.end - first)];
        jump[0] = 0xe9;
        jump[1..5].copy_from_slice(&base.wrapping_sub(eip.wrapping_add(JUMP.into())).to_le_bytes());
        self.pages.write(copy, &jump);
        if let Some(area) = self.areas.iter().find(|area| area.contains(base)) {
            self.pages.write(area.file_offset(base), &made.code);
        }
        replaced.into_iter().for_each(|stub| self.remove_stub(stub));
        self.stubs.insert(base, Record { length, steps: made.steps });
        self.record_stub(slot, plan, length);
        if reaches {
            let behind = LinearAddress(linear.wrapping_add(PAGE as u32));
            if let Some(physical) = place::ram(m, behind) {
                if let Some(view) = self.views[slot].as_mut() {
                    view.next = Some(physical);
                }
                self.rest_on(m, shadow, slot, physical)?;
                // What is shown now does not know of the page behind.
                shadow.hide_code(|_, code| code.copy == slot * PAGE)?;
            }
        }
        Ok(true)
    }

    /// Where the sites of a run are counted, instruction by instruction.
    fn counters(&mut self, slot: usize, plan: &Plan, page: u32) -> Vec<Option<u32>> {
        let Some(view) = self.views[slot].as_ref() else { return Vec::new() };
        let mut counter = |start: &u16| {
            let treatment = view.instructions.get(start)?.treatment;
            // Whatever else a stub does with a site, the monitor hears of it.
            let counts =
                view.key.level == Level::Virtual && matches!(treatment, Treatment::Stub(_));
            let site = counts.then(|| self.records.counter(view, *start)).flatten()?;
            Some(page.wrapping_add(count::offset(site)))
        };
        plan.starts.iter().map(&mut counter).collect()
    }

    /// Notes the stub that the sites of a run have got.
    fn record_stub(&mut self, slot: usize, plan: &Plan, stub_bytes: u32) {
        let Some(view) = self.views[slot].as_ref() else { return };
        for &start in plan.starts.iter().filter(|&&start| view.is_site(start)) {
            self.records.became(view, start, Became::Stub(jump(view, plan, start, stub_bytes)));
        }
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

    /// Takes back the window that covers a place: its instructions stand for themselves again.
    fn dissolve_at(&mut self, slot: usize, offset: u16) -> Option<Window> {
        let view = self.views[slot].as_mut()?;
        let (start, _) = view.window_at(offset)?;
        let window = view.windows.remove(&start)?;
        self.remove_stub(window.stub);
        let length = usize::from(window.end - start);
        self.pages.write(slot * PAGE + usize::from(start), &vec![TRAP; length]);
        for &(part, _) in &window.parts {
            self.write_plain(slot, part);
            if let Some(view) = &self.views[slot] {
                self.records.became(view, part, self.unpatched());
            }
        }
        Some(window)
    }

    /// What a site is whose run was dissolved.
    fn unpatched(&self) -> Became {
        match self.options.mode {
            Mode::Prescan => Became::TrapByte(Obstacle::Target),
            Mode::OnTrap => Became::Left,
        }
    }

    fn remove_stub(&mut self, stub: u32) {
        if let Some(record) = self.stubs.remove(&stub)
            && let Some(area) = self.areas.iter_mut().find(|area| area.contains(stub))
        {
            area.give_back(stub, record.length);
        }
    }

    /// Control has come to an instruction within a run: the run is divided there.
    pub(crate) fn divide(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        offset: u16,
    ) -> Result<(), host::Error> {
        let Some(window) = self.dissolve_at(slot, offset) else { return Ok(()) };
        if let Some(view) = self.views[slot].as_mut() {
            view.note_target(offset);
        }
        for (part, _) in window.parts {
            if self.is_site(slot, part) {
                self.patch(m, shadow, slot, part)?;
            }
        }
        Ok(())
    }

    pub(crate) fn drop_view(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
    ) -> Result<(), host::Error> {
        let Some(view) = self.views[slot].take() else { return Ok(()) };
        shadow.hide_code(|_, code| code.copy == slot * PAGE)?;
        self.by_key.remove(&view.key);
        for page in [Some(view.key.offset), view.next].into_iter().flatten() {
            let slots = self.by_page.entry(page).or_default();
            slots.retain(|&other| other != slot);
            if slots.is_empty() {
                self.by_page.remove(&page);
                m.memory.unwatch_code(PhysicalAddress(page));
            }
        }
        for window in view.windows.values() {
            self.remove_stub(window.stub);
        }
        if self.options.mode == Mode::OnTrap {
            // What is there next has not trapped yet.
            self.traps.retain(|&eip, _| view.offset_of(eip).is_none());
        }
        self.free.push(slot);
        Ok(())
    }

    /// The guest has written to watched pages.
    pub(crate) fn take_writes(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
    ) -> Result<(), host::Error> {
        for write in m.memory.take_code_writes() {
            m.counters.code_writes += 1;
            let page = write.address.0 & !(PAGE as u64 - 1);
            let start = write.address.page_offset() as usize;
            let written = start..(start + write.length as usize).min(PAGE);
            let slots = self.by_page.get(&page).cloned().unwrap_or_default();
            let mut now = vec![0; PAGE];
            m.memory.read(PhysicalAddress(page), &mut now);
            for slot in slots {
                if !self.take_write(slot, page, &written, &now) {
                    self.drop_view(m, shadow, slot)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a view holds although the guest has written to one of its pages.
    fn take_write(
        &mut self,
        slot: usize,
        page: u64,
        written: &std::ops::Range<usize>,
        now: &[u8],
    ) -> bool {
        let Some(view) = self.views[slot].as_mut() else { return true };
        if view.key.offset != page {
            return written.start >= crate::view::LONGEST;
        }
        if !view.take_write(written.clone(), now) {
            return false;
        }
        if self.options.mode != Mode::Prescan {
            let patched = written.clone().any(|at| view.window_at(at as u16).is_some());
            if !patched {
                self.pages.write(slot * PAGE + written.start, &now[written.clone()]);
            }
            return !patched;
        }
        true
    }

    /// Counts a trap, and says whether the instruction has trapped often enough to be patched.
    pub(crate) fn count_trap(&mut self, eip: u32) -> bool {
        let count = self.traps.entry(eip).or_default();
        *count += 1;
        self.options.mode == Mode::OnTrap && *count == self.options.threshold.get()
    }

    /// A place for a stub, in an area that is made if need be.
    fn take_place(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        request: &Request,
    ) -> Result<Option<u32>, host::Error> {
        let ceiling = place::highest(m, shadow);
        for area in &mut self.areas {
            if area.serves(request.jump)
                && area.end() <= ceiling
                && let Some(place) = area.take(request)
            {
                return Ok(Some(place));
            }
        }
        let Some(base) = place::for_area(m, shadow, request.jump, ceiling) else { return Ok(None) };
        if self.areas.len() == AREAS {
            return Ok(None);
        }
        let file = FIRST_AREA + self.areas.len() * area::FILE_BYTES;
        let mut area = Area::new(base, file);
        shadow.take(self.place_of(&area), (self.pages.file(), file), Protection::Execute, false)?;
        let place = area.take(request);
        self.areas.push(area);
        Ok(place)
    }

    /// Where the virtual CPU lies, which is decided now if need be.
    fn virtual_page(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
    ) -> Result<Option<u32>, host::Error> {
        if self.virtual_page.is_none()
            && let Some(page) = self.find_virtual_page(m, shadow)
        {
            self.take_virtual_page(shadow, page)?;
            self.loads.is_new = true;
            self.virtual_page = Some(page);
        }
        Ok(self.virtual_page)
    }

    fn find_virtual_page(&self, m: &Machine, shadow: &Shadow) -> Option<u32> {
        place::for_page(m, |at| {
            let is_for_code =
                self.moves_code && self.units.contains(&place::unit(at).wrapping_sub(self.shift));
            shadow.is_taken(at.into()) || is_for_code
        })
    }

    /// Whether the guest has come to use what was taken of its address space.
    pub(crate) fn is_crowded(&self, m: &mut Machine) -> bool {
        self.virtual_page.is_some_and(|page| !place::is_free(m, page))
            || self.units.iter().any(|&unit| !self.is_place_for(m, unit))
            || self.areas.iter().any(|area| {
                let shown = area.base().wrapping_add(self.shift);
                !place::is_area_free(m, area.base()) || !place::is_area_free(m, shown)
            })
    }

    /// Where pads may be: from the first area to the last.
    pub(crate) fn pads(&self) -> Option<std::ops::Range<u32>> {
        let first = self.areas.iter().map(|area| self.place_of(area).start as u32).min()?;
        let last = self.areas.iter().map(|area| self.place_of(area).end).max()?;
        Some(first..u32::try_from(last).unwrap_or(u32::MAX))
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

/// What the site at `start` became as part of a run.
pub(crate) fn jump(view: &View, plan: &Plan, start: u16, stub_bytes: u32) -> Jump {
    let treatment = view.instructions.get(&start).map(|known| known.treatment);
    let way = match treatment {
        Some(Treatment::Native) => Way::Copy,
        Some(Treatment::Stub(_)) if view.key.level == Level::Virtual => Way::Virtual,
        _ => Way::Crossing,
    };
    let last = plan.starts[plan.starts.len() - 1];
    let length = view.instructions.get(&last).map_or(0, |known| known.instruction.len() as u16);
    Jump {
        address: view.key.linear.wrapping_add(plan.starts[0].into()),
        covers: (plan.end - plan.starts[0]) as u8,
        moved: (plan.starts.len() - 1) as u8,
        padding: plan.end.saturating_sub(last + length) as u8,
        stub_bytes,
        way,
    }
}

/// The parts of the stub for a plan, each with where it is counted.
pub(crate) fn parts<'a>(view: &'a View, plan: &Plan, counters: &[Option<u32>]) -> Vec<Part<'a>> {
    let part = |(&start, &counter): (&u16, &Option<u32>)| {
        let known = view.instructions.get(&start)?;
        Some(Part {
            instruction: known.instruction,
            bytes: view.bytes_of(start),
            treatment: known.treatment,
            flow: known.flow,
            counter,
        })
    };
    let tail = plan.tail.iter().map(|start| (start, &None));
    plan.starts.iter().zip(counters).chain(tail).filter_map(part).collect()
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
