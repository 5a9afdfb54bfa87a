//! The run loop: native stays, exits, and what the emulator runs in between.

use crate::behind;
use crate::code::Code;
use crate::exit::{Exit, Trap};
use crate::segments::{Arrangement, ShadowSegments};
use crate::shadow::{Shadow, Touch};
use crate::watch::{self, Before, Divergence};
use crate::world::{self, Entry};
use emulator::{Emulator, Outcome, Stepper};
use host::compatibility::CompatibilityMode;
use iced_x86::Mnemonic;
use machine::clock::{ClockSource, Nanos};
use machine::cpu::{Cr0, Dr6, InterruptShadow, SegmentRegister};
use machine::host_time::{self, WithoutTsc};
use machine::{LinearAddress, Machine};
use std::time::{Duration, Instant};
use strategy::{Error, ExitCounts, ExitKind, Limit, Stop, StrategyId, Support};

/// Between two looks at the machine while the guest stays in its own code and no device has anything
/// due: what the host sends (a key, a wish to stop) waits so long at most.
const GLANCE: Duration = Duration::from_millis(4);
/// The longest sleep in HLT between two looks at the limit.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// The shortest stay: less would end before the guest's first page is there.
const SHORTEST_STAY: Duration = Duration::from_micros(20);
/// Instructions that the emulator runs at once where nothing can run natively.
const EMULATED_SLICE: u64 = 1024;
/// What an instruction limit counts a native stay as, for each microsecond: the guest's speed is
/// the host's.
const INSTRUCTIONS_PER_MICROSECOND: u64 = 1000;

/// Runs guests natively in ring 3, their code from `C`.
pub struct Engine<C> {
    id: StrategyId,
    code: C,
    pub(crate) shadow: Option<Shadow>,
    segments: ShadowSegments,
    emulator: Emulator,
    stepper: Stepper,
    /// EIP at the beginning of the last native stay.
    entered: u32,
    /// Whether the emulator may hold decoded code.
    decoded: bool,
    pub(crate) exits: ExitCounts,
    /// Whether only ring 3 is run natively.
    pub(crate) only_user: bool,
}

/// Whether this host can run guests so.
#[must_use]
pub fn support() -> Support {
    match CompatibilityMode::new() {
        Ok(_) => Support::Full,
        Err(error) => Support::Missing(error.to_string()),
    }
}

/// One call of [`Engine::run`].
struct Stint<'a> {
    mode: CompatibilityMode,
    limit: &'a Limit,
    spent: u64,
    /// The guest's time when the timer fires, if it is set. It stays so over many stays.
    armed: Option<Nanos>,
    /// RDTSC traps now, the monitor's as well, where guest pages run that may have one.
    _clock: Option<WithoutTsc>,
}

impl<C: Code> Engine<C> {
    /// An engine for the strategy `id`.
    #[must_use]
    pub fn new(id: StrategyId, code: C) -> Engine<C> {
        Engine {
            id,
            code,
            shadow: None,
            segments: ShadowSegments::default(),
            emulator: Emulator::new(),
            stepper: Stepper::new(),
            entered: 0,
            decoded: false,
            exits: ExitCounts::default(),
            only_user: false,
        }
    }

    /// What guest code is executed from.
    #[must_use]
    pub fn code(&self) -> &C {
        &self.code
    }

    /// The same, to be changed between two runs.
    pub fn code_mut(&mut self) -> &mut C {
        &mut self.code
    }

    /// Exits by kind.
    #[must_use]
    pub fn exits(&self) -> &ExitCounts {
        &self.exits
    }

    /// Runs the guest; see [`strategy::Strategy::run`].
    ///
    /// # Errors
    /// When the host fails.
    pub fn run(&mut self, m: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let mut stint = self.begin(m, limit)?;
        let before = m.counters;
        let stop = self.run_guest(m, &mut stint);
        self.exits.add_counters(&before, &m.counters);
        // Another engine of this process may want the addresses.
        self.shadow = None;
        stop
    }

    /// Sets up the thread, and a window that shows nothing yet.
    fn begin<'a>(&mut self, m: &mut Machine, limit: &'a Limit) -> Result<Stint<'a>, Error> {
        let traps_time_stamps = self.code.runs_guest_pages();
        let clock = traps_time_stamps.then(WithoutTsc::new);
        let mut mode = CompatibilityMode::new().map_err(|error| self.failure(error))?;
        if traps_time_stamps {
            mode.trap_time_stamps();
        }
        self.shadow = None;
        let shadow = Shadow::new(traps_time_stamps).map_err(|error| self.failure(error))?;
        self.shadow = Some(shadow);
        m.tlb.take_forgotten();
        m.memory.forget_code();
        self.with_code(|code, shadow| code.begin(m, shadow))?;
        Ok(Stint { mode, limit, spent: 0, armed: None, _clock: clock })
    }

    /// Asks the strategy.
    fn with_code<T>(
        &mut self,
        ask: impl FnOnce(&mut C, &mut Shadow) -> Result<T, host::Error>,
    ) -> Result<T, Error> {
        let answer = match &mut self.shadow {
            Some(shadow) => ask(&mut self.code, shadow),
            None => Err(host::Error::Busy),
        };
        answer.map_err(|error| self.failure(error))
    }

    pub(crate) fn failure(&self, error: host::Error) -> Error {
        match error {
            host::Error::Host { what, source } => Error::Host { what, source },
            other => Error::Unsupported { strategy: self.id, reason: other.to_string() },
        }
    }

    /// Runs the guest one instruction at a time until it leaves the architecture, stops, or has
    /// executed `most` instructions.
    ///
    /// # Errors
    /// When the host fails.
    pub fn watch(&mut self, m: &mut Machine, most: u64) -> Result<Option<Divergence>, Error> {
        let limit = Limit::none();
        let mut stint = self.begin(m, &limit)?;
        for _ in 0..most {
            let outcome = match self.attend(m) {
                Some(_) => return Ok(None),
                None if m.cpu.halted && m.cpu.interruptible() => {
                    self.wait(m, &mut stint)?;
                    Outcome::Continue
                }
                None if m.cpu.halted => Outcome::Halted,
                None => match self.watched_step(m, &mut stint)? {
                    Ok(outcome) => outcome,
                    Err(divergence) => return Ok(Some(divergence)),
                },
            };
            if outcome == Outcome::Shutdown || m.cpu.halted && !m.cpu.interruptible() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Whether the next instruction is the CPU's own.
    fn is_native(&self, m: &Machine) -> bool {
        world::can_stay(m) && !(self.only_user && m.cpu.cpl != 3)
    }

    /// One instruction, natively where it can be, and compared where ring 3 may get it wrong.
    fn watched_step(
        &mut self,
        m: &mut Machine,
        stint: &mut Stint<'_>,
    ) -> Result<Result<Outcome, Divergence>, Error> {
        let instruction = emulator::instruction(m);
        let Some(instruction) = instruction.filter(|_| self.is_native(m)) else {
            return Ok(Ok(emulator::step(m)));
        };
        let reads_host_time = self.only_user && instruction.mnemonic() == Mnemonic::Rdtsc;
        if watch::is_lost(&instruction) || reads_host_time {
            return Ok(Err(Divergence::at(m.cpu.instruction_address(), &instruction)));
        }
        let before = watch::is_sensitive(&instruction).then(|| Before::take(m, &instruction));
        loop {
            match self.native(m, &mut stint.mode, true)? {
                Exit::Timer | Exit::Crossing(_) => {}
                Exit::Step => break,
                Exit::Page { address, write, .. }
                    if self.show(m, address, write)? == Touch::Mapped => {}
                Exit::Page { .. } | Exit::Fault | Exit::GuestStep => return Ok(Ok(self.step(m)?)),
                Exit::Trap(trap) => return Ok(Ok(self.step_back(m, trap)?)),
            }
        }
        let divergence = before.and_then(|before| watch::compare(m, &before, &instruction));
        Ok(divergence.map_or(Ok(Outcome::Continue), Err))
    }

    /// Looks at what the host and the devices want: the end of the run, if any, or an interrupt.
    fn attend(&mut self, m: &mut Machine) -> Option<Stop> {
        if let Some(request) = m.service() {
            return Some(request.into());
        }
        if m.interrupt_requested() && m.cpu.interruptible() {
            let vector = m.acknowledge_interrupt();
            if emulator::deliver_interrupt(m, vector) == Outcome::Shutdown {
                return Some(Stop::TripleFault);
            }
        }
        None
    }

    fn run_guest(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Stop, Error> {
        loop {
            if let Some(stop) = self.attend(m) {
                return Ok(stop);
            }
            if stint.is_over() {
                return Ok(Stop::Limit);
            }
            let outcome = if m.cpu.halted {
                Outcome::Halted
            } else if world::can_stay(m) {
                self.stay(m, stint)?
            } else {
                self.emulate(m, stint)?
            };
            match outcome {
                Outcome::Continue => {}
                Outcome::Shutdown => return Ok(Stop::TripleFault),
                Outcome::Halted if m.cpu.interruptible() => self.wait(m, stint)?,
                Outcome::Halted => return Ok(Stop::Halted),
            }
        }
    }

    fn wait(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<(), Error> {
        if !m.interrupt_requested() {
            // The wait itself reads the time-stamp counter.
            stint.disarm().map_err(|error| self.failure(error))?;
            self.exits.count(ExitKind::Host);
            m.wait_for_event(stint.left().min(LONGEST_WAIT));
        }
        Ok(())
    }

    /// Native stays and the exits between them, until the machine has to be looked at.
    fn stay(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Outcome, Error> {
        if std::mem::take(&mut self.decoded) {
            // Native code writes to its pages unseen.
            m.memory.forget_code();
            self.with_code(|code, shadow| code.begin(m, shadow))?;
        }
        stint.arm(m).map_err(|error| self.failure(error))?;
        if stint.limit.instructions.is_none() {
            return self.stay_until(m, stint);
        }
        let start = host_time::nanos();
        let outcome = self.stay_until(m, stint);
        let spent = host_time::nanos().saturating_sub(start) / 1000;
        let instructions = spent.saturating_add(1).saturating_mul(INSTRUCTIONS_PER_MICROSECOND);
        stint.spent = stint.spent.saturating_add(instructions);
        outcome
    }

    fn stay_until(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Outcome, Error> {
        let begun = (m.cpu.eip, m.cpu.registers);
        let mut again = true;
        loop {
            let exit = self.native(m, &mut stint.mode, false)?;
            if exit == Exit::Timer {
                self.exits.count(ExitKind::Host);
                stint.armed = None;
                if begun != (m.cpu.eip, m.cpu.registers) {
                    return Ok(Outcome::Continue);
                }
                // However short its stays, the guest gets on. Mapping its first page has taken the
                // time, perhaps: once more.
                if !std::mem::take(&mut again) {
                    return self.step(m);
                }
                let time = (8 * stint.glance(m)).min(GLANCE);
                stint.arm_for(m, time).map_err(|error| self.failure(error))?;
                continue;
            }
            let outcome = self.handle(m, exit)?;
            let due = m.signals().attention() || m.interrupt_requested() && m.cpu.interruptible();
            if outcome != Outcome::Continue || due || !world::can_stay(m) {
                return Ok(outcome);
            }
        }
    }

    pub(crate) fn handle(&mut self, m: &mut Machine, exit: Exit) -> Result<Outcome, Error> {
        match exit {
            Exit::Page { address, fetch: true, .. } => {
                let answer = self.with_code(|code, shadow| {
                    let address = address.wrapping_sub(shadow.code_shift());
                    code.fetch(m, shadow, address)
                })?;
                self.touched(m, answer)
            }
            Exit::Page { address, write, .. } => {
                let answer = self.show(m, address, write)?;
                self.touched(m, answer)
            }
            Exit::Fault => self.trapped(m),
            Exit::Crossing(_) => self.step(m),
            Exit::Trap(trap) => self.step_back(m, trap),
            Exit::GuestStep => {
                // POPF has set the guest's TF without a trap: the emulator raises what is pending.
                m.cpu.pending_debug |= Dr6::BS;
                Ok(Outcome::Continue)
            }
            Exit::Timer | Exit::Step => Ok(Outcome::Continue),
        }
    }

    /// An instruction trapped, and EIP is at it.
    fn trapped(&mut self, m: &mut Machine) -> Result<Outcome, Error> {
        match self.with_code(|code, shadow| code.trapped(m, shadow))? {
            Touch::Mapped => {
                self.exits.count(ExitKind::Translation);
                Ok(Outcome::Continue)
            }
            Touch::Emulate => self.step(m),
        }
    }

    /// What is to be done about the instruction that trapped, which EIP is behind.
    fn step_back(&mut self, m: &mut Machine, trap: Trap) -> Result<Outcome, Error> {
        m.cpu.eip = match behind::start(m, trap, self.entered) {
            Some(start) => start,
            None if trap == Trap::SystemCall => {
                let base = m.cpu.segment(SegmentRegister::Cs).base;
                let address = LinearAddress(base.wrapping_add(self.entered));
                return Err(Error::Lost { what: "SYSCALL or SYSENTER", address });
            }
            None => m.cpu.eip.wrapping_sub(1),
        };
        self.trapped(m)
    }

    /// Brings the window up to date with flushes and privilege.
    fn prepare(&mut self, m: &mut Machine) -> Result<(), host::Error> {
        let Some(shadow) = &mut self.shadow else { return Ok(()) };
        shadow.follow_flushes(m)?;
        shadow.set_privilege(m.cpu.cpl == 3)
    }

    /// One stay in native code.
    pub(crate) fn native(
        &mut self,
        m: &mut Machine,
        mode: &mut CompatibilityMode,
        single_step: bool,
    ) -> Result<Exit, Error> {
        self.prepare(m).map_err(|error| self.failure(error))?;
        self.entered = m.cpu.eip;
        let eip = self.with_code(|code, shadow| code.enter(m, shadow))?;
        if let Some(pads) = self.code.pads() {
            mode.allow_crossings(pads);
        }
        let ceiling = self.shadow.as_ref().and_then(Shadow::ceiling).filter(|_| m.cpu.cpl == 3);
        let code_shift = self.shadow.as_ref().map_or(0, Shadow::code_shift);
        let splits_gs = self.code.splits_gs();
        let arrangement = Arrangement { ceiling, code_shift, splits_gs };
        let selectors = self.segments.selectors(&m.cpu.segments, arrangement);
        let selectors = selectors.map_err(|error| self.failure(error))?;
        self.code.segments_shown(m, &selectors, self.segments.generation());
        let entry = Entry { eip, single_step, selectors };
        let exit = world::stay(m, mode, &self.segments, entry);
        let exit = exit.map_err(|error| self.failure(error))?;
        let crossing = if let Exit::Crossing(number) = exit { Some(number) } else { None };
        self.code.leave(m, crossing);
        Ok(exit)
    }

    fn touched(&mut self, m: &mut Machine, answer: Touch) -> Result<Outcome, Error> {
        match answer {
            Touch::Mapped => {
                self.exits.count(ExitKind::HiddenPageFault);
                Ok(Outcome::Continue)
            }
            Touch::Emulate => self.step(m),
        }
    }

    fn show(&mut self, m: &mut Machine, address: u32, write: bool) -> Result<Touch, Error> {
        self.with_code(|_, shadow| shadow.touch(m, address, write))
    }

    /// Lets the emulator execute one instruction.
    fn step(&mut self, m: &mut Machine) -> Result<Outcome, Error> {
        let address = m.cpu.instruction_address();
        let before = m.counters;
        let mut outcome = self.stepper.step(m);
        if outcome == Outcome::Continue && m.cpu.interrupt_shadow != InterruptShadow::None {
            // The one instruction after STI or a load of SS.
            outcome = self.stepper.step(m);
        }
        if !ExitCounts::have_kind(&before, &m.counters) {
            self.exits.count(ExitKind::Emulation);
        }
        self.with_code(|code, shadow| code.emulated(m, shadow, address))?;
        Ok(outcome)
    }

    /// Runs what cannot run natively.
    fn emulate(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Outcome, Error> {
        let before = m.counters.instructions;
        let lasting = !m.cpu.in_protected_mode() || m.cpu.cr0.intersects(Cr0::EM | Cr0::TS);
        let outcome = if lasting {
            self.decoded = true;
            let left = stint.limit.instructions.map_or(u64::MAX, |count| count - stint.spent);
            self.emulator.run(m, left.min(EMULATED_SLICE))
        } else {
            let address = m.cpu.instruction_address();
            let outcome = self.stepper.step(m);
            self.with_code(|code, shadow| code.emulated(m, shadow, address))?;
            outcome
        };
        self.exits.count(ExitKind::Emulation);
        stint.spent = stint.spent.saturating_add(m.counters.instructions - before);
        Ok(outcome)
    }
}

impl Stint<'_> {
    fn is_over(&self) -> bool {
        self.limit.instructions.is_some_and(|count| self.spent >= count)
            || self.limit.deadline.is_some_and(|deadline| host_time::instant() >= deadline)
    }

    fn left(&self) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(host_time::instant());
        self.limit.deadline.map_or(Duration::MAX, left)
    }

    /// Sees to it that the timer fires when the machine has to be looked at, or before: one that does
    /// so already is left alone.
    fn arm(&mut self, m: &Machine) -> Result<(), host::Error> {
        let follows_host = m.clock().source() == ClockSource::Host;
        let early = |at: Nanos| m.next_event().is_none_or(|event| at <= event);
        if follows_host && self.armed.is_some_and(early) {
            return Ok(());
        }
        let glance = self.glance(m);
        self.arm_for(m, glance)
    }

    fn arm_for(&mut self, m: &Machine, time: Duration) -> Result<(), host::Error> {
        let at = m.clock().now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.armed = Some(at);
        self.mode.set_timer(time)
    }

    fn disarm(&mut self) -> Result<(), host::Error> {
        self.armed = None;
        self.mode.clear_timer()
    }

    /// How long the guest may stay before the machine has to be looked at.
    fn glance(&self, m: &Machine) -> Duration {
        let event = m.next_event().map_or(GLANCE, |at| m.clock().until(at));
        let count = self.limit.instructions.map_or(GLANCE, |count| {
            let left = count.saturating_sub(self.spent) / INSTRUCTIONS_PER_MICROSECOND;
            Duration::from_micros(left)
        });
        event.min(count).min(self.left()).clamp(SHORTEST_STAY, GLANCE)
    }
}
