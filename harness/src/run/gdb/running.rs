//! The guest between two stops.

use super::SLICE;
use super::planted::Planted;
use crate::run::session::{Session, Slice};
use crate::run::vm_worker::VmEnd;
use crate::run::wire::Wire;
use emulator::Outcome;
use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::SingleThreadStopReason;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use interpretation::Interpretation;
use machine::signals::{Request, Signals};
use machine::{LinearAddress, Machine};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use strategy::Stop;

/// Where nothing is planted, how long the guest runs at a time: what gdb sends ends it sooner.
const LONG_SLICE: Duration = Duration::from_secs(1);

/// The longest wait for an interrupt in a single step between two looks at the wire.
const WAIT: Duration = Duration::from_millis(10);

/// Why the guest stopped, for gdb.
pub(super) type Reason = SingleThreadStopReason<u32>;

/// How the guest is to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// By one instruction.
    Step,
    /// From where it is, where a breakpoint may be that it has stopped at.
    Start,
    /// On.
    Go,
}

/// A guest that is debugged.
pub(super) struct Debugger {
    session: Session,
    pub(super) breakpoints: BTreeSet<LinearAddress>,
    planted: Planted,
    pub(super) pace: Pace,
    /// Runs the guest while a breakpoint cannot be planted.
    fallback: Interpretation,
    end: Option<VmEnd>,
}

impl Debugger {
    pub(super) fn new(session: Session) -> Debugger {
        Debugger {
            session,
            breakpoints: BTreeSet::new(),
            planted: Planted::default(),
            pace: Pace::Start,
            fallback: Interpretation::new(),
            end: None,
        }
    }

    pub(super) fn signals(&self) -> Arc<Signals> {
        Arc::clone(self.session.machine.signals())
    }

    /// The machine, which holds nothing of the debugger's: the guest is stopped.
    pub(super) fn machine(&mut self) -> &mut Machine {
        &mut self.session.machine
    }

    /// How the guest ended, if it did.
    pub(super) fn take_end(&mut self) -> Option<VmEnd> {
        self.end.take()
    }

    /// Lets go of the guest.
    pub(super) fn release(self) -> Session {
        self.session
    }

    /// Lets the guest go on for a while; tells why it stopped, if it did.
    fn go_on(&mut self) -> anyhow::Result<Option<Reason>> {
        let slice = match self.pace {
            Pace::Step => return self.step(),
            Pace::Start => self.leave_breakpoint()?,
            Pace::Go => self.slice()?,
        };
        let machine = &mut self.session.machine;
        if !machine.breakpoints.take_hit() {
            return Ok(self.reason(slice));
        }
        if self.breakpoints.contains(&machine.cpu.instruction_address()) {
            return Ok(Some(Reason::SwBreak(())));
        }
        // An INT3 of the guest's own, or another address of the page that a breakpoint is in.
        let slice = self.emulate_one()?;
        Ok(self.reason(slice))
    }

    /// One instruction, or the wait of a CPU in HLT for an interrupt.
    fn step(&mut self) -> anyhow::Result<Option<Reason>> {
        let machine = &mut self.session.machine;
        if !machine.cpu.halted {
            let slice = self.emulate_one()?;
            return Ok(self.reason(slice).or(Some(Reason::DoneStep)));
        }
        let slice = if !machine.cpu.interruptible() {
            self.session.judge(Stop::Halted)?
        } else if let Some(request) = guests_request(machine) {
            self.session.judge(request.into())?
        } else if machine.interrupt_requested() {
            let vector = machine.acknowledge_interrupt();
            let outcome = emulator::deliver_interrupt(machine, vector);
            let slice = self.after(outcome)?;
            return Ok(self.reason(slice).or(Some(Reason::DoneStep)));
        } else {
            machine.wait_for_event(WAIT);
            Slice::Over
        };
        Ok(self.reason(slice))
    }

    /// Executes the instruction at which a breakpoint may be.
    fn leave_breakpoint(&mut self) -> anyhow::Result<Slice> {
        self.pace = Pace::Go;
        let here = self.session.machine.cpu.instruction_address();
        if self.breakpoints.contains(&here) { self.emulate_one() } else { Ok(Slice::Over) }
    }

    fn emulate_one(&mut self) -> anyhow::Result<Slice> {
        let outcome = emulator::step(&mut self.session.machine);
        self.after(outcome)
    }

    /// What an instruction of the emulator's came to.
    fn after(&mut self, outcome: Outcome) -> anyhow::Result<Slice> {
        if outcome == Outcome::Shutdown {
            return self.session.judge(Stop::TripleFault);
        }
        match guests_request(&mut self.session.machine) {
            Some(request) => self.session.judge(request.into()),
            None => Ok(Slice::Over),
        }
    }

    /// Runs the guest with its breakpoints, which are gone again when this returns.
    fn slice(&mut self) -> anyhow::Result<Slice> {
        let machine = &mut self.session.machine;
        let mut all_planted = true;
        for &address in &self.breakpoints {
            all_planted &= self.planted.plant(machine, address);
        }
        machine.breakpoints.set(self.breakpoints.iter().copied());
        let slice = if !all_planted {
            self.session.lend(&mut self.fallback, SLICE)
        } else if self.breakpoints.is_empty() {
            self.session.slice(Some(LONG_SLICE))
        } else {
            self.session.slice(Some(SLICE))
        };
        let machine = &mut self.session.machine;
        machine.breakpoints.clear();
        self.planted.clear(machine);
        slice
    }

    /// What the end of a slice is to gdb; nothing if the guest goes on.
    fn reason(&mut self, slice: Slice) -> Option<Reason> {
        let Slice::Ended(end) = slice else { return None };
        let status = end.status();
        self.end = Some(end);
        Some(Reason::Exited(status))
    }
}

/// What the guest has asked for, with the devices looked after. That something has come from gdb is
/// no request of the guest's.
fn guests_request(machine: &mut Machine) -> Option<Request> {
    machine.service().filter(|&request| request != Request::Stop)
}

/// What gdbstub calls while the guest runs.
pub(super) struct Loop;

impl BlockingEventLoop for Loop {
    type Target = Debugger;
    type Connection = Wire;
    type StopReason = Reason;

    fn wait_for_stop_reason(
        debugger: &mut Debugger,
        wire: &mut Wire,
    ) -> Result<Event<Reason>, WaitForStopReasonError<anyhow::Error, std::io::Error>> {
        loop {
            if wire.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                let byte = wire.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            if let Some(reason) = debugger.go_on().map_err(WaitForStopReasonError::Target)? {
                return Ok(Event::TargetStopped(reason));
            }
        }
    }

    fn on_interrupt(_: &mut Debugger) -> anyhow::Result<Option<Reason>> {
        Ok(Some(Reason::Signal(Signal::SIGINT)))
    }
}
