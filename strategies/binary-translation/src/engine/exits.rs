//! What ended a stay in translated code, and how it goes on.

use super::{Engine, Then, failure};
use crate::context::Exit;
use crate::mode::Mode;
use crate::translate::PlaceKind;
use crate::view::Touch;
use emulator::Outcome;
use host::address_window::WINDOW_BYTES;
use host::translated::KICK;
use machine::cpu::{Cr0, InterruptShadow};
use machine::{LinearAddress, Machine, PhysicalAddress};
use strategy::{Error, ExitKind};

/// How translated code goes on after [`Engine::step_quickly`].
pub(super) enum Quickly {
    /// Behind the instruction.
    Behind,
    /// Where the instruction led, at a unit that is known.
    At { mode: Mode, epoch: u32, unit: u64 },
    /// The exit has to be handled first.
    Not,
}

impl Engine {
    /// Handles what ended the stay in translated code.
    pub(super) fn handle(
        &mut self,
        m: &mut Machine,
        mode: Mode,
        epoch: u32,
    ) -> Result<Then, Error> {
        let exit = Exit::from_code(self.context.reason);
        if !matches!(exit, Exit::Step | Exit::LightStep | Exit::Miss) {
            m.cpu.eip = self.context.exit_eip;
        }
        match exit {
            Exit::Lookup => Ok(Then::Find),
            Exit::Link => self.link(m, mode, epoch),
            Exit::Step | Exit::LightStep | Exit::Miss => Ok(self.after_step(m)),
            Exit::Shadow => {
                m.cpu.interrupt_shadow = InterruptShadow::Sti;
                Ok(Then::Leave(Outcome::Continue))
            }
            Exit::Fault => self.fault(m),
        }
    }

    pub(super) fn link(&mut self, m: &mut Machine, mode: Mode, epoch: u32) -> Result<Then, Error> {
        let site = self.context.resume;
        let Some(target) = self.find(m, mode, epoch)? else { return Ok(Then::Find) };
        // The cache may have been emptied to make room.
        if !self.dropped {
            self.cache.link(site, target);
        }
        Ok(Then::Enter(self.cache.unit(target).host))
    }

    /// Lets the emulator execute one instruction for translated code, and finds out whether that can
    /// go on at once, for nothing happened that has to be looked at.
    pub(super) fn step_quickly(&mut self, m: &mut Machine, mode: Mode) -> Result<Quickly, Error> {
        let reason = self.context.reason;
        let is_miss = reason == Exit::Miss as u32;
        let is_light = is_miss || reason == Exit::LightStep as u32;
        if !is_light && reason != Exit::Step as u32 {
            return Ok(Quickly::Not);
        }
        m.cpu.eip = self.context.exit_eip;
        let raised = exceptions(m);
        self.outcome = match self.context.place {
            0 => self.stepper.step(m),
            place => {
                let (cache, eip) = (&self.cache, m.cpu.eip);
                // The place lies behind the instruction, perhaps where another unit begins.
                let unit = || cache.unit_at(place - 1);
                let physical = || unit().map(|unit| PhysicalAddress(unit.physical_of(eip)));
                self.stepper.step_known(m, place, physical)
            }
        };
        self.stepped += 1;
        if is_miss {
            self.fill_soft(m, mode);
        }
        if m.memory.code_was_written() {
            self.take_code_writes(m);
        }
        if self.dropped || !self.follow_pages(m)? || self.is_due(m, self.outcome) {
            return Ok(Quickly::Not);
        }
        let behind = self.context.resume != 0 && m.cpu.eip == self.context.exit_next;
        if is_light && behind && exceptions(m) == raised {
            return Ok(Quickly::Behind);
        }
        if self.is_direct(m) {
            return Ok(Quickly::Not);
        }
        let Some(now) = Mode::of(m) else { return Ok(Quickly::Not) };
        if !is_light && behind && now == mode {
            return Ok(Quickly::Behind);
        }
        // An interrupt or a return, more often than not, and by no means for the first time.
        let epoch = self.epoch(now);
        let unit = self.context.target(m.cpu.eip, epoch);
        Ok(unit.map_or(Quickly::Not, |unit| Quickly::At { mode: now, epoch, unit }))
    }

    /// Goes on behind an instruction that [`Engine::step_quickly`] has executed.
    pub(super) fn go_on(&mut self, m: &mut Machine) {
        if self.context.reason != Exit::Step as u32 {
            self.context.load_flags(m);
        } else {
            self.context.load(m);
        }
        self.call(m, self.context.resume, true);
    }

    /// After [`Engine::step_quickly`] has found that something did happen.
    pub(super) fn after_step(&mut self, m: &Machine) -> Then {
        match self.outcome {
            Outcome::Continue
                if self.context.resume != 0 && m.cpu.eip == self.context.exit_next =>
            {
                Then::Resume(self.context.resume)
            }
            Outcome::Continue => Then::Find,
            outcome => Then::Leave(outcome),
        }
    }

    /// Enters the page into the software TLB that an instruction did not find there.
    fn fill_soft(&mut self, m: &mut Machine, mode: Mode) {
        let linear = self.context.soft_address;
        let user = mode.is_user();
        if let Some((host, writable)) = soft_page(m, user, linear & !0xfff) {
            self.context.soft[usize::from(user)].insert(linear, host, writable);
        }
    }

    /// A signal ended the stay: a poll after a kick, or an instruction that faulted.
    pub(super) fn fault(&mut self, m: &mut Machine) -> Result<Then, Error> {
        const PAGE_FAULT: u32 = 14;
        const WRITE: u32 = 2;
        let fault = self.context.fault;
        let unit = self.cache.unit_at(fault.host_rip);
        let place = unit.and_then(|unit| unit.place(fault.host_rip).map(|place| (unit, *place)));
        let Some((unit, place)) = place else {
            let what = format!("trap {} in the code cache's fixed parts", fault.trap);
            return Err(Error::Hypervisor { what, address: m.cpu.instruction_address() });
        };
        m.cpu.eip = place.eip;
        if place.kind == PlaceKind::Poll || fault.trap == KICK {
            self.exits.count(ExitKind::Host);
            return Ok(Then::Find);
        }
        if place.kind == PlaceKind::Borrowed {
            self.context.give_back(m);
        }
        let (host, physical) = (unit.start_of(&place), unit.physical_of(place.eip));
        let key = unit.key;
        let linear = fault.address.wrapping_sub(self.context.window);
        if fault.trap == PAGE_FAULT && linear < WINDOW_BYTES {
            let write = fault.error_code & WRITE != 0;
            let space = &mut self.spaces[self.current];
            let touch = space.touch(m, linear as u32, write).map_err(failure)?;
            self.cache.statistics.window_fills += u64::from(touch != Touch::Emulate);
            match touch {
                Touch::Mapped => {
                    self.exits.count(ExitKind::HiddenPageFault);
                    return Ok(Then::Resume(host));
                }
                Touch::MappedAgain => {
                    self.exits.count(ExitKind::HiddenPageFault);
                    self.accuse(m, physical);
                    return Ok(Then::Resume(host));
                }
                Touch::Emulate => {}
            }
        }
        self.accuse(m, physical);
        let raised = exceptions(m);
        let outcome = self.step(m);
        if outcome != Outcome::Continue {
            return Ok(Then::Leave(outcome));
        }
        // Behind it in the unit, if that is where it leads: no unit has to begin there.
        let unit = self.cache.find(&key).map(|id| self.cache.unit(id));
        let next =
            unit.filter(|_| exceptions(m) == raised).and_then(|u| u.after(&place, m.cpu.eip));
        Ok(next.map_or(Then::Find, Then::Resume))
    }

    /// Lets the guilty prove that the window is enough for them now.
    pub(super) fn parole(&mut self, m: &mut Machine) {
        for range in self.sites.parole() {
            self.drop_written(m, range.start, (range.end - range.start) as u32);
        }
    }

    /// Notes a fault that showing the page did not help, or not for long.
    pub(super) fn accuse(&mut self, m: &mut Machine, physical: u64) {
        if self.sites.accuse(physical) {
            self.cache.statistics.guilty += 1;
            self.drop_written(m, physical, 1);
        }
    }
}

/// How many exceptions the guest has seen: those that lead to the next instruction by chance are told
/// from none at all by that.
fn exceptions(m: &Machine) -> u64 {
    m.counters.exceptions + m.counters.guest_page_faults
}

/// What the software TLB is to hold for a page that was accessed: its host address, and whether it may
/// be written there. Device memory that is nothing but memory is among it.
fn soft_page(m: &mut Machine, user: bool, page: u32) -> Option<(*mut u8, bool)> {
    if let Some(host) = m.tlb.write(user, page, 1) {
        return Some((host, true));
    }
    if let Some(host) = m.tlb.read(user, page, 1) {
        return Some((host.cast_mut(), false));
    }
    let found = emulator::mapping(m, LinearAddress(page))?;
    if !found.accessed || user && !found.user {
        return None;
    }
    let allowed = found.writable || !user && !m.cpu.cr0.contains(Cr0::WP);
    Some((m.bus.plain_page(found.physical)?, allowed && found.dirty))
}
