//! The patched code, as direct execution asks for it around each stay.

use crate::patches::{self, Patches};
use crate::stub::Level;
use crate::view::Key;
use crate::{Mode, Options, place};
use direct_execution::{Code, Shadow, Touch};
use machine::cpu::{Cpu, Eflags, Segment, SegmentRegister, access};
use machine::{LinearAddress, Machine};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands in the code segment: which views can be executed through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CodeSegment {
    base: u32,
    is_32bit: bool,
    traps_only: bool,
}

/// Guest code in which nothing is left to go wrong.
pub(crate) struct PatchedCode {
    pub(crate) patches: Patches,
    /// Its number as the owner of watched code.
    owner: u64,
    level: Level,
    cpl: u8,
    segment: Option<CodeSegment>,
    /// Whether the last stay ended by a crossing.
    crossed: bool,
    /// Whether FS stands in for part of GS in guest ring 3.
    splits_gs: bool,
}

impl PatchedCode {
    pub(crate) fn new(options: Options, watched: bool) -> Result<PatchedCode, host::Error> {
        // Owners are told apart by numbers; other engines' begin at 1 and count.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
        Ok(PatchedCode {
            patches: Patches::new(options, watched)?,
            owner: NEXT.fetch_add(1, Ordering::Relaxed),
            level: Level::Trap,
            cpl: 0,
            segment: None,
            crossed: false,
            splits_gs: false,
        })
    }

    /// The key of the view for code at a linear address, if its page is memory.
    fn key(&self, m: &mut Machine, linear: u32) -> Option<Key> {
        let splits_gs = self.splits_gs && m.cpu.cpl == 3;
        self.patches.key(m, self.level, linear).map(|key| Key { splits_gs, ..key })
    }

    fn prescans(&self) -> bool {
        self.patches.options.mode == Mode::Prescan
    }

    /// Hides the views that the CPU's segments do not allow now.
    fn follow_segments(&mut self, m: &Machine, shadow: &mut Shadow) -> Result<(), host::Error> {
        let level = level(&m.cpu);
        let segment = code_segment(&m.cpu, level);
        if self.segment != Some(segment) {
            self.segment = Some(segment);
            let views = &self.patches;
            shadow.hide_code(|_, code| {
                views.view(code.copy / 4096).is_none_or(|view| {
                    let key = &view.key;
                    let is_trap = key.level == Level::Trap;
                    key.base != segment.base
                        || key.is_32bit != segment.is_32bit
                        || is_trap != segment.traps_only
                })
            })?;
        }
        let splits_gs =
            if m.cpu.cpl == 3 { self.prescans() && can_split_gs(&m.cpu) } else { self.splits_gs };
        if std::mem::replace(&mut self.splits_gs, splits_gs) != splits_gs {
            let views = &self.patches;
            shadow.hide_code(|_, code| {
                let view = views.view(code.copy / 4096);
                view.is_none_or(|view| {
                    view.key.splits_gs != splits_gs && view.key.level == Level::Crossing
                })
            })?;
        }
        if self.level != level {
            self.level = level;
            if !can_run_virtual(&m.cpu, level, shadow) {
                let views = &self.patches;
                shadow.hide_code(|_, code| {
                    let view = views.view(code.copy / 4096);
                    view.is_none_or(|view| view.key.level == Level::Virtual)
                })?;
            }
        }
        Ok(())
    }

    /// Makes way where the guest has come to use what was taken of its address space.
    fn make_way(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<(), host::Error> {
        let cpl = std::mem::replace(&mut self.cpl, m.cpu.cpl);
        if cpl != m.cpu.cpl && m.cpu.cpl == 3 && self.patches.is_crowded(m) {
            self.patches.forget(m, shadow)?;
        }
        Ok(())
    }
}

impl Code for PatchedCode {
    fn runs_guest_pages(&self) -> bool {
        !self.prescans()
    }

    fn begin(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<(), host::Error> {
        shadow.hide_code(|_, _| true)?;
        m.memory.own_code(self.owner);
        if self.patches.is_of_another(m) || self.patches.is_crowded(m) {
            self.patches.forget(m, shadow)?;
        }
        self.patches.doubt(m);
        self.patches.take_again(shadow)
    }

    fn enter(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<u32, host::Error> {
        if !m.memory.own_code(self.owner) {
            self.begin(m, shadow)?;
        }
        self.make_way(m, shadow)?;
        self.follow_segments(m, shadow)?;
        let linear = m.cpu.instruction_address().0;
        if let Some(slot) = self.patches.shown(shadow, linear)
            && self.patches.view(slot).is_some_and(|view| {
                view.key.level < self.level || view.key.splits_gs && m.cpu.cpl != 3
            })
        {
            // Ring 0 has come to code that was patched for ring 3.
            shadow.hide_code(|page, _| page == linear & !0xfff)?;
        }
        if self.prescans() {
            self.examine_entry(m, shadow, linear)?;
        }
        if self.patches.virtual_page.is_some() {
            self.patches.write_cpu(m);
        }
        self.patches.note_moment(false);
        Ok(self.patches.native(shadow, linear, m.cpu.eip))
    }

    fn leave(&mut self, m: &mut Machine, crossing: Option<u32>) {
        self.crossed = crossing.is_some();
        if self.crossed {
            self.patches.records.count_crossing();
        }
        if self.patches.virtual_page.is_none() {
            return;
        }
        let cpu = self.patches.read_cpu();
        m.cpu.flags.merge(cpu.flags().bits(), Eflags::IF);
        if let Some(eip) = crossing {
            m.cpu.eip = eip;
        } else if self.patches.is_in_area(m.cpu.eip)
            && let Some(step) = self.patches.step_at(m.cpu.eip)
        {
            patches::recover(m, &step, &cpu);
        }
    }

    fn fetch(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        address: u32,
    ) -> Result<Touch, host::Error> {
        let linear = m.cpu.instruction_address().0;
        if (linear ^ address) & !0xfff != 0 || shadow.is_taken_for_code(address) {
            // It reaches into a page that is not there, or it is nowhere.
            return Ok(Touch::Emulate);
        }
        if !self.prescans() {
            return self.fetch_unscanned(m, shadow, linear);
        }
        if shadow.code_at(linear & !0xfff).is_some()
            || emulator::access_page(m, LinearAddress(linear), false).is_none()
        {
            return Ok(Touch::Emulate);
        }
        let Some(key) = self.key(m, linear) else { return Ok(Touch::Emulate) };
        if !self.patches.settle(m, shadow, linear)? {
            return Ok(Touch::Emulate);
        }
        let slot = self.patches.find(m, shadow, key)?;
        self.patches.examine(m, shadow, slot, m.cpu.eip)?;
        Ok(if self.patches.show(m, shadow, slot)? { Touch::Mapped } else { Touch::Emulate })
    }

    fn trapped(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<Touch, host::Error> {
        let (linear, eip) = (m.cpu.instruction_address().0, m.cpu.eip);
        self.patches.records.count_trap();
        if !self.prescans() {
            return self.trapped_unscanned(m, shadow, linear, eip);
        }
        let Some(slot) = self.patches.shown(shadow, linear) else { return Ok(Touch::Emulate) };
        let Some(view) = self.patches.view(slot) else { return Ok(Touch::Emulate) };
        let Some(offset) = view.offset_of(eip) else { return Ok(Touch::Emulate) };
        if !view.is_examined(offset) {
            self.patches.examine(m, shadow, slot, eip)?;
            let examined = self.patches.view(slot).is_some_and(|view| view.is_examined(offset));
            return Ok(if examined { self.still_shown(m, shadow, slot)? } else { Touch::Emulate });
        }
        let within = view.window_at(offset).is_some_and(|(start, _)| start != offset);
        if within && !view.is_target(offset) {
            self.patches.divide(m, shadow, slot, offset)?;
            return self.still_shown(m, shadow, slot);
        }
        Ok(Touch::Emulate)
    }

    fn emulated(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        address: LinearAddress,
    ) -> Result<(), host::Error> {
        let page = shadow.code_at(address.0 & !0xfff).map(|code| code.offset);
        let crossed = std::mem::take(&mut self.crossed);
        self.patches.records.executed(address.0, page, crossed);
        if m.memory.code_was_written() { self.patches.take_writes(m, shadow) } else { Ok(()) }
    }

    fn segments_shown(&mut self, m: &mut Machine, selectors: &[u16; 6], generation: u64) {
        if self.level == Level::Virtual {
            self.patches.learn_loads(m, selectors, generation);
        }
    }

    fn splits_gs(&self) -> bool {
        self.splits_gs && self.cpl == 3
    }

    fn pads(&self) -> Option<Range<u32>> {
        self.patches.pads()
    }
}

impl PatchedCode {
    /// Examines what the guest is entered at, if that has not been done: a handler may return into
    /// the middle of an instruction.
    fn examine_entry(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        linear: u32,
    ) -> Result<(), host::Error> {
        let Some(slot) = self.patches.shown(shadow, linear) else { return Ok(()) };
        let eip = m.cpu.eip;
        let is_new = self.patches.view(slot).is_some_and(|view| {
            view.offset_of(eip).is_some_and(|offset| !view.is_examined(offset))
        });
        if is_new {
            self.patches.examine(m, shadow, slot, eip)?;
            self.still_shown(m, shadow, slot)?;
        }
        Ok(())
    }

    /// Shows a view again if a new stub has hidden it.
    fn still_shown(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
    ) -> Result<Touch, host::Error> {
        let Some(view) = self.patches.view(slot) else { return Ok(Touch::Emulate) };
        let shown = shadow.code_at(view.key.linear).is_some();
        let shown = shown || self.patches.show(m, shadow, slot)?;
        Ok(if shown { Touch::Mapped } else { Touch::Emulate })
    }

    /// On-trap mode: a page runs as it is, until it has a patch.
    fn fetch_unscanned(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        linear: u32,
    ) -> Result<Touch, host::Error> {
        if let Some(key) = self.key(m, linear)
            && let Some(slot) = self.patches.known(m, shadow, &key)?
            && emulator::access_page(m, LinearAddress(linear), false).is_some()
            && self.patches.show(m, shadow, slot)?
        {
            return Ok(Touch::Mapped);
        }
        shadow.touch(m, linear, false)
    }

    /// On-trap mode: an instruction that has trapped often enough gets its stub.
    fn trapped_unscanned(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        linear: u32,
        eip: u32,
    ) -> Result<Touch, host::Error> {
        let due = self.patches.count_trap(eip);
        self.patches.records.trapped_unexamined(m, linear);
        let shown = self.patches.shown(shadow, linear);
        if let Some(slot) = shown
            && let Some(view) = self.patches.view(slot)
            && let Some(offset) = view.offset_of(eip)
            && view.window_at(offset).is_some_and(|(start, _)| start != offset)
        {
            self.patches.divide(m, shadow, slot, offset)?;
            return self.still_shown(m, shadow, slot);
        }
        if !due || self.level == Level::Trap {
            return Ok(Touch::Emulate);
        }
        let is_ram = place::ram(m, LinearAddress(linear)).is_some();
        let Some(key) = self.key(m, linear).filter(|_| is_ram) else {
            return Ok(Touch::Emulate);
        };
        let slot = self.patches.find(m, shadow, key)?;
        self.patches.examine(m, shadow, slot, eip)?;
        let offset = self.patches.view(slot).and_then(|view| view.offset_of(eip));
        if let Some(offset) = offset {
            self.patches.patch(m, shadow, slot, offset)?;
        }
        if self.patches.shown(shadow, linear) != Some(slot) {
            self.patches.show(m, shadow, slot)?;
        }
        Ok(Touch::Emulate)
    }
}

/// What stubs may do for the CPU as it is.
fn level(cpu: &Cpu) -> Level {
    let code = cpu.segment(SegmentRegister::Cs);
    let stack = cpu.segment(SegmentRegister::Ss);
    if !is_flat(code) {
        Level::Trap
    } else if cpu.cpl == 0 && is_flat(stack) && stack.is_writable() {
        Level::Virtual
    } else {
        Level::Crossing
    }
}

/// Whether the guest has thread-local storage behind GS, and nothing behind FS.
fn can_split_gs(cpu: &Cpu) -> bool {
    let [fs, gs] = [SegmentRegister::Fs, SegmentRegister::Gs].map(|register| cpu.segment(register));
    !fs.has(access::PRESENT)
        && gs.has(access::PRESENT | access::NOT_SYSTEM)
        && gs.base != 0
        && gs.limit == u32::MAX
        && gs.is_32bit()
        && gs.is_writable()
        && !gs.is_expand_down()
}

fn is_flat(segment: &Segment) -> bool {
    segment.base == 0
        && segment.limit == u32::MAX
        && segment.is_32bit()
        && segment.has(access::PRESENT | access::NOT_SYSTEM)
        && !segment.is_expand_down()
}

fn code_segment(cpu: &Cpu, level: Level) -> CodeSegment {
    let code = cpu.segment(SegmentRegister::Cs);
    CodeSegment { base: code.base, is_32bit: code.is_32bit(), traps_only: level == Level::Trap }
}

/// Whether stubs that work on the virtual CPU may be in reach: they do, or ring 3's segments do not
/// reach the virtual CPU, so that they fault before they have done anything.
fn can_run_virtual(cpu: &Cpu, level: Level, shadow: &Shadow) -> bool {
    let stack = cpu.segment(SegmentRegister::Ss);
    let is_low = stack.base == 0 && !stack.is_expand_down();
    level == Level::Virtual || cpu.cpl == 3 && (shadow.has_ceiling() || is_low)
}
