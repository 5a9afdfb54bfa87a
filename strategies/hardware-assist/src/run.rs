//! The loop: enter the guest, do what it exits for, look after devices, interrupts and limits.
//!
//! While the loop runs, the state is either in the vCPU or in the machine; it moves only when
//! somebody else needs it. `cpu.halted` is always the machine's: KVM without its own interrupt
//! controller hands every HLT over and knows of no halted vCPU.

use crate::events::Pending;
use crate::pace::Pace;
use crate::reach::Reach;
use crate::vcpu::{Exit, Reason, Vcpu};
use crate::vm::Vm;
use crate::{breakpoints, emulation, state};
use host::kick::Kick;
use machine::Machine;
use machine::cpu::{Eflags, InterruptShadow};
use std::time::{Duration, Instant};
use strategy::{Error, ExitCounts, ExitKind, Limit, Stop};

/// How long the guest may run before it is looked whether an event on its way has arrived.
const ARRIVAL: Duration = Duration::from_micros(100);

/// How often that is tried.
const ARRIVAL_TRIES: u32 = 10_000;

/// Runs the guest until it stops or the limit is reached; the machine then has the whole state.
pub(crate) fn run(
    vm: &mut Vm,
    machine: &mut Machine,
    exits: &mut ExitCounts,
    reach: Reach,
    limit: &Limit,
) -> Result<Stop, Error> {
    // SAFETY: the byte belongs to the vCPU, which is borrowed for longer than the kick lives.
    let kick = unsafe { Kick::new(vm.vcpu.immediate_exit()) };
    let kick = kick.map_err(|source| Error::Host { what: "a timer for KVM_RUN", source })?;
    vm.vcpu.set_immediate_exit(false);
    let pace = Pace::new(limit);
    let debugged = machine.breakpoints.are_set();
    let trusted = !(reach.needs_breakpoints() || debugged)
        || breakpoints::set(&vm.vcpu, &machine.memory, reach, debugged)?;
    let vcpu = &mut vm.vcpu;
    let place = Place::Machine;
    let mut session = Session { vcpu, machine, exits, reach, trusted, kick, pace, place };
    session.run()
}

/// Where the guest's state is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// In the machine.
    Machine,
    /// In the vCPU.
    Vcpu {
        /// Whether an interrupt can be taken now.
        ready: bool,
        /// Whether the instruction of the last exit has still to be completed by KVM, which takes
        /// the result of a read from the shared page.
        incomplete: bool,
    },
}

/// One run.
struct Session<'a> {
    vcpu: &'a mut Vcpu,
    machine: &'a mut Machine,
    exits: &'a mut ExitCounts,
    reach: Reach,
    /// Whether what KVM is known to get wrong is caught, so that it may run the guest.
    trusted: bool,
    kick: Kick,
    pace: Pace,
    place: Place,
}

impl Session<'_> {
    fn run(&mut self) -> Result<Stop, Error> {
        loop {
            let now = Instant::now();
            if let Some(stop) = self.end_of_run(now) {
                return self.leave(stop);
            }
            let stop = if self.machine.cpu.halted && !self.wakes(now)? {
                None
            } else if self.is_in_vcpu() || self.trusted && self.reach.runs(&self.machine.cpu) {
                self.enter()?
            } else {
                emulation::run(self.machine, self.exits, &mut self.pace)
            };
            if let Some(stop) = stop {
                return self.leave(stop);
            }
        }
    }

    /// Services the machine when that is due, and says why the run is over, if it is.
    fn end_of_run(&mut self, now: Instant) -> Option<Stop> {
        if self.pace.service_is_due(self.machine, now)
            && let Some(request) = self.machine.service()
        {
            return Some(request.into());
        }
        if self.machine.cpu.halted && !self.interrupts_enabled() {
            return Some(Stop::Halted);
        }
        self.pace.is_over(now).then_some(Stop::Limit)
    }

    fn is_in_vcpu(&self) -> bool {
        matches!(self.place, Place::Vcpu { .. })
    }

    fn interrupts_enabled(&mut self) -> bool {
        if self.is_in_vcpu() {
            self.vcpu.interrupts_enabled()
        } else {
            self.machine.cpu.flags.contains(Eflags::IF)
        }
    }

    /// Whether the halted guest goes on, because of an interrupt. Waits a while where it does not.
    fn wakes(&mut self, now: Instant) -> Result<bool, Error> {
        if self.machine.interrupt_requested() {
            self.end_shadow()?;
            self.machine.cpu.halted = false;
            return Ok(true);
        }
        self.machine.wait_for_event(self.pace.longest_wait(now));
        self.pace.spend_time(self.machine, now.elapsed());
        Ok(false)
    }

    /// Sees to it that the interrupt which ends a HLT can be taken at once. After STI and HLT the
    /// shadow is over, but not every KVM says so.
    fn end_shadow(&mut self) -> Result<(), Error> {
        let not_ready = matches!(self.place, Place::Vcpu { ready: false, .. });
        if not_ready && Pending::of(self.vcpu)?.is_empty() {
            self.take()?;
        }
        if !self.is_in_vcpu() {
            self.machine.cpu.interrupt_shadow = InterruptShadow::None;
        }
        Ok(())
    }

    /// Runs the guest under KVM until its next exit, and handles that.
    fn enter(&mut self) -> Result<Option<Stop>, Error> {
        self.load()?;
        self.offer_interrupt()?;
        // Not before: to load takes longer than the shortest stay.
        let now = Instant::now();
        self.kick.arm(now, self.pace.next_look(self.machine, now));
        let exit = self.vcpu.run()?;
        self.pace.spend_time(self.machine, now.elapsed());
        self.handle(exit)
    }

    /// Puts the state into the vCPU, unless it is there.
    fn load(&mut self) -> Result<(), Error> {
        if !self.is_in_vcpu() {
            state::put(self.vcpu, self.machine)?;
            let ready = self.machine.cpu.interruptible();
            self.place = Place::Vcpu { ready, incomplete: false };
        }
        Ok(())
    }

    /// Delivers an interrupt if there is one and the guest can take it, else asks to be told when
    /// it can.
    fn offer_interrupt(&mut self) -> Result<(), Error> {
        if let Place::Vcpu { ready: ready @ true, .. } = &mut self.place
            && self.machine.interrupt_requested()
        {
            *ready = false;
            self.exits.count(ExitKind::Interrupt);
            self.vcpu.interrupt(self.machine.acknowledge_interrupt())?;
        }
        self.vcpu.request_interrupt_window(self.machine.interrupt_requested());
        Ok(())
    }

    /// Does what the guest left for. This is where exits are counted.
    fn handle(&mut self, exit: Exit) -> Result<Option<Stop>, Error> {
        let ready = self.vcpu.is_ready_for_interrupt();
        let incomplete = matches!(exit, Exit::PortIo | Exit::Mmio);
        self.place = Place::Vcpu { ready, incomplete };
        match exit {
            Exit::PortIo => {
                self.exits.count(ExitKind::PortIo);
                self.vcpu.do_port_io(&mut self.machine.bus);
            }
            Exit::Mmio => {
                self.exits.count(ExitKind::Mmio);
                self.vcpu.do_mmio(&mut self.machine.bus);
            }
            Exit::Halt => {
                self.exits.count(ExitKind::Halt);
                self.machine.cpu.halted = true;
            }
            Exit::InterruptWindow => self.exits.count(ExitKind::InterruptWindow),
            Exit::Interrupted => {
                // Before the loop looks at what there is to do, so that no kick is lost.
                self.vcpu.set_immediate_exit(false);
                self.exits.count(ExitKind::Host);
            }
            Exit::Breakpoint => return self.rescue(&"a breakpoint"),
            Exit::GaveUp(reason) => return self.give_up(reason),
            Exit::Shutdown => return self.shut_down(),
        }
        Ok(None)
    }

    /// Lets the emulator do what KVM cannot.
    fn give_up(&mut self, reason: Reason) -> Result<Option<Stop>, Error> {
        tracing::trace!(%reason, "emulating");
        self.rescue(&reason)
    }

    /// A triple fault, which a KVM that cannot be believed in everything may have caused itself:
    /// then the emulator has a second look at the instruction.
    fn shut_down(&mut self) -> Result<Option<Stop>, Error> {
        if self.reach.is_whole() {
            return Ok(Some(Stop::TripleFault));
        }
        self.rescue(&"KVM shut the guest down")
    }

    /// Takes the state out and executes one instruction, or delivers the interrupt that KVM was
    /// about to deliver. An exception on its way is dropped: it will be raised again.
    fn rescue(&mut self, reason: &dyn std::fmt::Display) -> Result<Option<Stop>, Error> {
        let pending = Pending::of(self.vcpu)?;
        self.take()?;
        if let Some(vector) = pending.interrupt {
            self.exits.count(ExitKind::Emulation);
            return Ok(emulation::interrupt(self.machine, vector));
        }
        let stop = emulation::rescue(self.machine, self.exits, reason)?;
        self.pace.spend_instructions(1);
        Ok(stop)
    }

    fn take(&mut self) -> Result<(), Error> {
        state::take(self.vcpu, self.machine)?;
        emulation::forget(self.machine);
        self.place = Place::Machine;
        Ok(())
    }

    /// Ends the run with the state in the machine. It may turn out on the way that the guest has
    /// shut down.
    fn leave(&mut self, stop: Stop) -> Result<Stop, Error> {
        let sooner = if stop == Stop::TripleFault { None } else { self.come_to_rest()? };
        if self.is_in_vcpu() {
            self.take()?;
        }
        Ok(sooner.unwrap_or(stop))
    }

    /// Brings the vCPU between two instructions with nothing on its way. An event that KVM has
    /// begun to deliver arrives at the next entry, so the guest runs on for a moment.
    fn come_to_rest(&mut self) -> Result<Option<Stop>, Error> {
        for _ in 0..ARRIVAL_TRIES {
            if let Some(stop) = self.complete()? {
                return Ok(Some(stop));
            }
            if !self.is_in_vcpu() || Pending::of(self.vcpu)?.is_empty() {
                return Ok(None);
            }
            self.vcpu.request_interrupt_window(false);
            let now = Instant::now();
            self.kick.arm(now, now + ARRIVAL);
            let exit = self.vcpu.run()?;
            if let Some(stop) = self.handle(exit)? {
                return Ok(Some(stop));
            }
        }
        let address = self.machine.cpu.instruction_address();
        Err(Error::Hypervisor { what: "an event is not delivered".into(), address })
    }

    /// Lets KVM complete the instruction of the last exit without going on. That may exit again:
    /// long accesses come in parts.
    fn complete(&mut self) -> Result<Option<Stop>, Error> {
        while let Place::Vcpu { ready, incomplete: true } = self.place {
            self.vcpu.set_immediate_exit(true);
            let exit = self.vcpu.run();
            self.vcpu.set_immediate_exit(false);
            let exit = exit?;
            if exit == Exit::Interrupted {
                self.place = Place::Vcpu { ready, incomplete: false };
            } else if let Some(stop) = self.handle(exit)? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }
}
