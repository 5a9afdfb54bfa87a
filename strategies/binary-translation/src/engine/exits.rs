//! What ended a stay in translated code, and how it goes on.

use super::{Engine, Then, failure};
use crate::context::Exit;
use crate::mode::Mode;
use crate::translate::PlaceKind;
use crate::view::Touch;
use emulator::Outcome;
use host::address_window::WINDOW_BYTES;
use machine::Machine;
use machine::cpu::InterruptShadow;
use strategy::{Error, ExitKind};

impl Engine {
    /// Handles what ended the stay in translated code.
    pub(super) fn handle(
        &mut self,
        m: &mut Machine,
        mode: Mode,
        epoch: u32,
    ) -> Result<Then, Error> {
        let exit = Exit::from_code(self.context.reason);
        if !matches!(exit, Exit::Step | Exit::LightStep) {
            m.cpu.eip = self.context.exit_eip;
        }
        match exit {
            Exit::Lookup => Ok(Then::Find),
            Exit::Link => self.link(m, mode, epoch),
            Exit::Step | Exit::LightStep => Ok(self.after_step(m)),
            Exit::Miss => Ok(self.fill_soft(m, mode)),
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

    /// Lets the emulator execute one instruction for translated code; true if that can go on at once
    /// behind it, for nothing else happened.
    pub(super) fn step_quickly(&mut self, m: &mut Machine, mode: Mode) -> bool {
        let is_light = self.context.reason == Exit::LightStep as u32;
        if !is_light && self.context.reason != Exit::Step as u32 {
            return false;
        }
        m.cpu.eip = self.context.exit_eip;
        self.outcome = self.stepper.step(m);
        self.stepped += 1;
        self.outcome == Outcome::Continue
            && self.context.resume != 0
            && m.cpu.eip == self.context.exit_next
            && !m.memory.code_was_written()
            && m.tlb.generation() == self.generation
            && (is_light || Mode::of(m) == Some(mode))
            && !self.is_due(m, Outcome::Continue)
    }

    /// Goes on behind an instruction that [`Engine::step_quickly`] has executed.
    pub(super) fn go_on(&mut self, m: &mut Machine) {
        if self.context.reason == Exit::LightStep as u32 {
            self.context.load_registers(m);
        } else {
            self.context.load(m);
        }
        self.call(m, self.context.resume, true);
    }

    /// After [`Engine::step_quickly`] has found that something did happen.
    pub(super) fn after_step(&mut self, m: &mut Machine) -> Then {
        if m.memory.code_was_written() {
            self.take_code_writes(m);
        }
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

    /// Executes an instruction whose page the software TLB does not have, and enters it there.
    pub(super) fn fill_soft(&mut self, m: &mut Machine, mode: Mode) -> Then {
        let linear = self.context.soft_address;
        self.outcome = self.stepper.step(m);
        self.stepped += 1;
        let then = self.after_step(m);
        let user = mode.is_user();
        let page = linear & !0xfff;
        let write = m.tlb.write(user, page, 1);
        let read = m.tlb.read(user, page, 1);
        if let Some(host) = write.or(read.map(<*const u8>::cast_mut)) {
            self.context.soft[usize::from(user)].insert(linear, host, write.is_some());
        }
        then
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
        if place.kind == PlaceKind::Poll {
            self.exits.count(ExitKind::Host);
            return Ok(Then::Find);
        }
        if place.kind == PlaceKind::Borrowed {
            self.context.give_back(m);
        }
        let (host, physical) = (unit.start_of(&place), unit.physical_of(place.eip));
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
        let outcome = self.step(m);
        Ok(if outcome == Outcome::Continue { Then::Find } else { Then::Leave(outcome) })
    }

    /// Lets the guilty prove that the window is enough for them now.
    pub(super) fn parole(&mut self, m: &mut Machine) {
        for physical in self.sites.parole() {
            self.drop_written(m, physical, 1);
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
