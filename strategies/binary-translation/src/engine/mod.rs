//! The run loop: translated code, its exits, and what the emulator runs in between.

mod direct;
mod exits;
mod spaces;
mod stint;
mod units;

use self::exits::Quickly;
use crate::cache::{Cache, Statistics};
use crate::context::{Context, gs_base, set_gs_base};
use crate::mode::Mode;
use crate::sites::Sites;
use crate::space::Space;
use crate::stubs;
use direct_execution::UserCode;
use emulator::{Emulator, Outcome, Stepper};
use host::compatibility::CompatibilityMode;
use host::kick::Kick;
use host::translated::{Region, TranslatedCode};
use machine::Machine;
use machine::memory::CodeWrite;
use machine::tlb::Forgotten;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stint::{INSTRUCTIONS_PER_MICROSECOND, Stint, attend, glance};
use strategy::{Error, ExitCounts, ExitKind, Limit, Stop};

/// The longest sleep in HLT between two looks at the limit.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// Single steps before the emulator runs from blocks of its own; the cache is then forgotten.
const SINGLE_STEPS: u32 = 256;
/// Instructions that it runs then.
const EMULATED_SLICE: u64 = 1024;
/// Address spaces that are kept.
const MOST_SPACES: usize = 6;
/// After so long the guilty get another chance: what they faulted on may be there to stay now.
const PAROLE: Duration = Duration::from_secs(2);
/// Guest bytes that a unit may need, at most.
const MOST_BYTES: usize = 1024;

/// Runs guests by translation.
pub(crate) struct Engine {
    cache: Cache,
    context: Box<Context>,
    sites: Sites,
    spaces: Vec<Space>,
    current: usize,
    /// Whose memory the spaces show.
    machine: Option<Arc<File>>,
    emulator: Emulator,
    stepper: Stepper,
    /// Steps in a row that were not translated.
    steps: u32,
    /// This one's number as an owner of decoded code.
    owner: u64,
    /// The TLB's generation that the windows follow.
    generation: u64,
    /// What the TLB forgot; kept for its memory.
    forgotten: Forgotten,
    /// The last writes to code; kept for its memory.
    code_writes: Vec<CodeWrite>,
    epochs: u32,
    /// The epoch that the stack of return addresses belongs to.
    stack_epoch: u32,
    clock: u64,
    /// Units were dropped since the last exit.
    dropped: bool,
    /// When the guilty last got another chance.
    paroled: Instant,
    /// Instructions left to the emulator in this run.
    stepped: u64,
    /// What the last of them came to.
    outcome: Outcome,
    exits: ExitCounts,
    /// What runs the guest's ring 3 natively, if that is how it is run.
    direct: Option<UserCode>,
}

/// How a stay in translated code goes on.
enum Then {
    /// Find what EIP leads to.
    Find,
    /// Go on within a unit.
    Resume(u64),
    /// The unit at EIP is known.
    Enter(u64),
    /// Look at the machine.
    Leave(Outcome),
}

fn failure(error: host::Error) -> Error {
    match error {
        host::Error::Host { what, source } => Error::Host { what, source },
        other => Error::Host {
            what: "translated code",
            source: std::io::Error::other(other.to_string()),
        },
    }
}

impl Engine {
    pub(crate) fn new(sites: Sites) -> Result<Engine, Error> {
        /// Far from the emulator's own numbers.
        static OWNERS: AtomicU64 = AtomicU64::new(1 << 62);
        let cache = Cache::new().map_err(failure)?;
        let mut context = Context::new();
        context.fpu_ensure = cache.stubs.fpu_load;
        context.exit = cache.stubs.exit;
        context.lookup = cache.stubs.lookup;
        context.calls = cache.stubs.calls;
        context.stack = cache.memory().stack_top();
        Ok(Engine {
            cache,
            context,
            sites,
            spaces: Vec::new(),
            current: 0,
            machine: None,
            emulator: Emulator::new(),
            stepper: Stepper::new(),
            steps: 0,
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            generation: 0,
            forgotten: Forgotten::default(),
            code_writes: Vec::new(),
            epochs: 0,
            stack_epoch: 0,
            clock: 0,
            dropped: false,
            paroled: Instant::now(),
            stepped: 0,
            outcome: Outcome::Continue,
            exits: ExitCounts::default(),
            direct: None,
        })
    }

    pub(crate) fn exits(&self) -> &ExitCounts {
        &self.exits
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.cache.statistics
    }

    /// Runs the guest; see [`strategy::Strategy::run`].
    pub(crate) fn run(&mut self, m: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let mut stint = self.begin(m, limit)?;
        let gs_base = gs_base();
        set_gs_base(0);
        // No window: it is set with the first unit.
        self.context.window = 0;
        let before = m.counters;
        let stop = self.run_guest(m, &mut stint);
        let mut kinds = ExitCounts::default();
        kinds.add_counters(&before, &m.counters);
        // What the emulator did that has no kind of its own.
        let stepped = std::mem::take(&mut self.stepped) + std::mem::take(&mut self.context.called);
        self.exits.add(ExitKind::Emulation, stepped.saturating_sub(kinds.total()));
        self.exits.add_counters(&before, &m.counters);
        set_gs_base(gs_base);
        if let Some(direct) = &mut self.direct {
            direct.end();
        }
        for (kind, number) in self.take_direct_exits().iter() {
            self.exits.add(kind, number);
        }
        stop
    }

    /// Sets up the thread, and forgets what may have changed while others ran the machine.
    fn begin<'a>(&mut self, m: &mut Machine, limit: &'a Limit) -> Result<Stint<'a>, Error> {
        // By its memory, of which a handle is kept: another machine's may come to lie where this lay.
        let machine = m.memory.file();
        if !self.machine.as_ref().is_some_and(|known| Arc::ptr_eq(known, machine)) {
            self.machine = Some(Arc::clone(machine));
            self.spaces.clear();
            m.memory.forget_code();
        }
        self.own_code(m);
        self.context.set_model(m.cpu.model);
        self.stepper.take_over(m);
        self.activate(m)?;
        let region = Region {
            code: self.cache.memory().range(),
            polling: self.cache.stubs.polling,
            exit: self.cache.stubs.fault,
            fault: &raw mut self.context.fault,
            stack_guard: self.cache.memory().stack_guard(),
            stack_top: self.cache.memory().stack_top(),
        };
        let poll = (&raw mut self.context.poll).cast::<u8>();
        let epoch = (&raw mut self.context.epoch).cast::<u8>();
        // SAFETY: the fault stub can be reached from all translated code, which has a stack of its own.
        let code = unsafe { TranslatedCode::new(region) }.map_err(failure)?;
        let native = match &mut self.direct {
            Some(direct) => {
                direct.begin()?;
                Some(CompatibilityMode::new().map_err(failure)?)
            }
            None => None,
        };
        // SAFETY: the context is this value's own and stays where it is as long as the stint.
        let kick = unsafe {
            match native {
                Some(_) => Kick::among_native_stays(poll.add(7), epoch),
                None => Kick::with_two_flags(poll.add(7), epoch),
            }
        };
        let kick = kick.map_err(|source| Error::Host { what: "timer", source })?;
        Ok(Stint { limit, spent: 0, kick, native, _code: code })
    }

    /// Makes the translated code the one whose pages are watched; it is forgotten if it was not.
    fn own_code(&mut self, m: &mut Machine) {
        if m.memory.own_code(self.owner) {
            self.take_code_writes(m);
        } else {
            self.forget(m);
        }
    }

    /// Empties the cache.
    fn forget(&mut self, m: &mut Machine) {
        m.memory.forget_code();
        m.memory.own_code(self.owner);
        self.cache.clear();
        self.context.forget_targets();
        self.stepper.forget_places();
        self.context.stack = self.cache.memory().stack_top();
        for space in &mut self.spaces {
            space.end_epochs();
            space.verified = 0;
        }
        self.dropped = true;
    }

    fn run_guest(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Stop, Error> {
        loop {
            if let Some(stop) = attend(m) {
                return Ok(stop);
            }
            if stint.is_over() {
                return Ok(Stop::Limit);
            }
            let outcome = if m.cpu.halted {
                Outcome::Halted
            } else if Mode::of(m).is_some() {
                self.stay(m, stint)?
            } else {
                self.emulate(m, stint)?
            };
            match outcome {
                Outcome::Continue => {}
                Outcome::Shutdown => return Ok(Stop::TripleFault),
                Outcome::Halted if m.cpu.interruptible() => self.wait(m, stint),
                Outcome::Halted => return Ok(Stop::Halted),
            }
        }
    }

    fn wait(&mut self, m: &mut Machine, stint: &mut Stint<'_>) {
        if !m.interrupt_requested() {
            self.exits.count(ExitKind::Host);
            // It would only interrupt the sleep.
            stint.kick.disarm();
            m.wait_for_event(stint.left().min(LONGEST_WAIT));
        }
    }

    /// Runs what is not translated.
    fn emulate(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Outcome, Error> {
        let before = m.counters.instructions;
        self.steps += 1;
        let outcome = if self.steps < SINGLE_STEPS {
            self.step(m)
        } else {
            let left = stint.limit.instructions.map_or(u64::MAX, |count| count - stint.spent);
            let outcome = self.emulator.run(m, left.min(EMULATED_SLICE));
            self.own_code(m);
            outcome
        };
        self.exits.count(ExitKind::Emulation);
        stint.spent = stint.spent.saturating_add(m.counters.instructions - before);
        self.follow(m)?;
        Ok(outcome)
    }

    /// Lets the emulator execute one instruction.
    fn step(&mut self, m: &mut Machine) -> Outcome {
        let outcome = self.stepper.step(m);
        if m.memory.code_was_written() {
            self.take_code_writes(m);
        }
        outcome
    }

    /// Runs translated code until the machine has to be looked at.
    fn stay(&mut self, m: &mut Machine, stint: &mut Stint<'_>) -> Result<Outcome, Error> {
        // Before the time is read: what was armed for a later one is still to come.
        self.context.rearm();
        if let Some(native) = &stint.native {
            native.forget_kick();
        }
        let start = Instant::now();
        if start.duration_since(self.paroled) > PAROLE {
            self.paroled = start;
            self.parole(m);
        }
        stint.kick.arm(start, start + glance(m, stint));
        let outcome = self.stay_until(m, stint.native.as_mut());
        self.steps = 0;
        let spent = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let instructions = spent.saturating_add(1).saturating_mul(INSTRUCTIONS_PER_MICROSECOND);
        stint.spent = stint.spent.saturating_add(instructions);
        outcome
    }

    fn stay_until(
        &mut self,
        m: &mut Machine,
        mut native: Option<&mut CompatibilityMode>,
    ) -> Result<Outcome, Error> {
        let mut then = Then::Find;
        let mut entered = 0;
        loop {
            self.follow(m)?;
            if let Some(native) = native.as_deref_mut()
                && self.is_direct(m)
            {
                then = self.visit(m, native)?;
                if let Then::Leave(outcome) = then {
                    return Ok(outcome);
                }
                continue;
            }
            let Some(mut mode) = Mode::of(m) else { return Ok(Outcome::Continue) };
            let mut epoch = self.epoch(mode);
            if self.dropped || epoch != entered {
                then = Then::Find;
            }
            self.dropped = false;
            let known = match then {
                Then::Resume(host) | Then::Enter(host) => Some(host),
                _ => self.context.target(m.cpu.eip, epoch),
            };
            let unit = match known {
                Some(host) => host,
                None => match self.find(m, mode, epoch)? {
                    Some(unit) => self.cache.unit(unit).host,
                    None => {
                        // Nothing can be translated here: a page fault, a device.
                        let outcome = self.step(m);
                        if self.is_due(m, outcome) {
                            return Ok(outcome);
                        }
                        continue;
                    }
                },
            };
            self.enter(m, mode, epoch, unit, matches!(then, Then::Resume(_)));
            loop {
                match self.step_quickly(m, mode)? {
                    Quickly::Behind => self.go_on(m),
                    Quickly::At { mode: now, epoch: its, unit } => {
                        (mode, epoch) = (now, its);
                        self.enter(m, mode, epoch, unit, false);
                    }
                    Quickly::Not => break,
                }
            }
            entered = epoch;
            then = self.handle(m, mode, epoch)?;
            if let Then::Leave(outcome) = then {
                return Ok(outcome);
            }
            let outcome = if m.cpu.halted { Outcome::Halted } else { Outcome::Continue };
            if self.is_due(m, outcome) {
                return Ok(outcome);
            }
        }
    }

    /// Whether the machine has to be looked at.
    fn is_due(&self, m: &Machine, outcome: Outcome) -> bool {
        outcome != Outcome::Continue
            || self.context.is_kicked()
            || m.signals().attention()
            || m.interrupt_requested() && m.cpu.interruptible()
    }

    /// Enters a unit, or goes on within one, until an exit.
    fn enter(&mut self, m: &mut Machine, mode: Mode, epoch: u32, unit: u64, within: bool) {
        let context = &mut *self.context;
        context.load(m);
        if epoch != self.stack_epoch {
            // What is on the stack belongs to another address space or privilege.
            context.stack = self.cache.memory().stack_top();
            self.stack_epoch = epoch;
        }
        let window = self.spaces[self.current].window(mode.is_user());
        if window != context.window {
            context.window = window;
            set_gs_base(window);
        }
        self.call(m, unit, within);
    }

    /// Runs translated code; the context is loaded.
    #[inline]
    fn call(&mut self, m: &mut Machine, unit: u64, within: bool) {
        let context = &mut *self.context;
        let mut unit = unit;
        if within && context.fpu_stored != 0 {
            context.resume = unit;
            unit = self.cache.stubs.fpu_resume;
        }
        context.fpu_stored = 0;
        let machine: *mut Machine = m;
        context.machine = machine as u64;
        context.cpu = (&raw mut m.cpu) as u64;
        // SAFETY: the stub is the cache's own, the unit lies in it, the context is loaded for the
        // window that GS's base was set to, and the stint has set up this thread.
        unsafe { stubs::call(self.cache.stubs.enter, context, unit) };
        context.store(m);
    }
}
