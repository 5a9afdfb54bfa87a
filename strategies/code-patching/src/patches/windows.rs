//! Windows: runs of instructions that a jump to a stub takes the place of, made and taken back.

use super::{Patches, Record};
use crate::area::{Request, TRAP};
use crate::class::Treatment;
use crate::plan::{self, JUMP, Plan};
use crate::records;
use crate::sites::{Became, Jump, Obstacle, Way};
use crate::stub::{self, Level, Part, Setting};
use crate::view::{PAGE, View, Window};
use crate::{Mode, count, place};
use direct_execution::Shadow;
use machine::{LinearAddress, Machine};

impl Patches {
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
    pub(super) fn build(
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
    pub(super) fn counters(&mut self, slot: usize, plan: &Plan, page: u32) -> Vec<Option<u32>> {
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
    pub(super) fn record_stub(&mut self, slot: usize, plan: &Plan, stub_bytes: u32) {
        let Some(view) = self.views[slot].as_ref() else { return };
        for &start in plan.starts.iter().filter(|&&start| view.is_site(start)) {
            self.records.became(view, start, Became::Stub(jump(view, plan, start, stub_bytes)));
        }
    }

    /// Takes back the window that covers a place: its instructions stand for themselves again.
    pub(super) fn dissolve_at(&mut self, slot: usize, offset: u16) -> Option<Window> {
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
    pub(super) fn unpatched(&self) -> Became {
        match self.options.mode {
            Mode::Prescan => Became::TrapByte(Obstacle::Target),
            Mode::OnTrap => Became::Left,
        }
    }

    pub(super) fn remove_stub(&mut self, stub: u32) {
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
