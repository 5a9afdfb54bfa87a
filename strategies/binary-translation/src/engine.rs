//! The run loop: translated code, its exits, and what the emulator runs in between.

use crate::cache::{Cache, Key, Statistics, UnitId};
use crate::context::{Context, Exit, set_gs_base};
use crate::mode::Mode;
use crate::sites::Sites;
use crate::space::{Space, SpaceKey};
use crate::stubs;
use crate::translate::{PlaceKind, Request};
use crate::view::Touch;
use emulator::{Emulator, Outcome, Stepper};
use host::address_window::WINDOW_BYTES;
use host::kick::Kick;
use host::translated::{Region, TranslatedCode};
use machine::cpu::InterruptShadow;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine, PhysicalAddress};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strategy::{Error, ExitCounts, ExitKind, Limit, Stop};

/// Between two looks at the machine while the guest stays in translated code.
const GLANCE: Duration = Duration::from_millis(1);
/// The longest sleep in HLT between two looks at the limit.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// The shortest stay.
const SHORTEST_STAY: Duration = Duration::from_micros(20);
/// Single steps before the emulator runs from blocks of its own; the cache is then forgotten.
const SINGLE_STEPS: u32 = 256;
/// Instructions that it runs then.
const EMULATED_SLICE: u64 = 1024;
/// What an instruction limit counts a stay in translated code as, for each microsecond.
const INSTRUCTIONS_PER_MICROSECOND: u64 = 1000;
/// Address spaces that are kept.
const MOST_SPACES: usize = 6;
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
    machine: usize,
    emulator: Emulator,
    stepper: Stepper,
    /// Steps in a row that were not translated.
    steps: u32,
    /// This one's number as an owner of decoded code.
    owner: u64,
    /// The TLB's generation that the windows follow.
    generation: u64,
    epochs: u32,
    /// The epoch that the stack of return addresses belongs to.
    stack_epoch: u32,
    clock: u64,
    /// Units were dropped since the last exit.
    dropped: bool,
    /// Instructions left to the emulator in this run.
    stepped: u64,
    /// What the last of them came to.
    outcome: Outcome,
    exits: ExitCounts,
}

/// One call of [`Engine::run`].
struct Stint<'a> {
    limit: &'a Limit,
    spent: u64,
    kick: Kick,
    _code: TranslatedCode,
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
        other => Error::Host { what: "translated code", source: std::io::Error::other(other.to_string()) },
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
        context.stack = cache.memory().stack_top();
        Ok(Engine {
            cache,
            context,
            sites,
            spaces: Vec::new(),
            current: 0,
            machine: 0,
            emulator: Emulator::new(),
            stepper: Stepper::new(),
            steps: 0,
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            generation: 0,
            epochs: 0,
            stack_epoch: 0,
            clock: 0,
            dropped: false,
            stepped: 0,
            outcome: Outcome::Continue,
            exits: ExitCounts::default(),
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
        let gs_base = set_gs_base(0);
        let before = m.counters;
        let stop = self.run_guest(m, &mut stint);
        let mut kinds = ExitCounts::default();
        kinds.add_counters(&before, &m.counters);
        // What the emulator did that has no kind of its own.
        let stepped = std::mem::take(&mut self.stepped);
        self.exits.add(ExitKind::Emulation, stepped.saturating_sub(kinds.total()));
        self.exits.add_counters(&before, &m.counters);
        set_gs_base(gs_base);
        stop
    }

    /// Sets up the thread, and forgets what may have changed while others ran the machine.
    fn begin<'a>(&mut self, m: &mut Machine, limit: &'a Limit) -> Result<Stint<'a>, Error> {
        let machine = m.memory.host_base().addr();
        if machine != self.machine {
            self.spaces.clear();
            m.memory.forget_code();
            self.machine = machine;
        }
        self.own_code(m);
        self.context.set_model(m.cpu.model);
        self.activate(m)?;
        let region = Region {
            code: self.cache.memory().range(),
            exit: self.cache.stubs.fault,
            fault: &raw mut self.context.fault,
            stack_guard: self.cache.memory().stack_guard(),
            stack_top: self.cache.memory().stack_top(),
        };
        let poll = (&raw mut self.context.poll).cast::<u8>();
        let epoch = (&raw mut self.context.epoch).cast::<u8>();
        // SAFETY: the context is this value's own and stays where it is as long as the stint; the
        // fault stub can be reached from all translated code, which has a stack of its own.
        let (code, kick) = unsafe {
            let code = TranslatedCode::new(region).map_err(failure)?;
            (code, Kick::with_two_flags(poll.add(7), epoch))
        };
        let kick = kick.map_err(|source| Error::Host { what: "timer", source })?;
        Ok(Stint { limit, spent: 0, kick, _code: code })
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

    fn wait(&mut self, m: &mut Machine, stint: &Stint<'_>) {
        if !m.interrupt_requested() {
            self.exits.count(ExitKind::Host);
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
        let start = Instant::now();
        self.context.rearm();
        stint.kick.arm(start, start + glance(m, stint));
        let outcome = self.stay_until(m);
        self.steps = 0;
        let spent = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let instructions = spent.saturating_add(1).saturating_mul(INSTRUCTIONS_PER_MICROSECOND);
        stint.spent = stint.spent.saturating_add(instructions);
        outcome
    }

    fn stay_until(&mut self, m: &mut Machine) -> Result<Outcome, Error> {
        let mut then = Then::Find;
        let mut entered = 0;
        loop {
            self.follow(m)?;
            let Some(mode) = Mode::of(m) else { return Ok(Outcome::Continue) };
            let epoch = self.epoch(mode);
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
            entered = epoch;
            self.enter(m, mode, epoch, unit, matches!(then, Then::Resume(_)));
            while self.step_quickly(m, mode) {
                self.go_on(m);
            }
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
        // SAFETY: the stub is the cache's own, the unit lies in it, the context is loaded for the
        // window that GS's base was set to, and the stint has set up this thread.
        unsafe { stubs::call(self.cache.stubs.enter, context, unit) };
        context.store(m);
    }

    /// Handles what ended the stay in translated code.
    fn handle(&mut self, m: &mut Machine, mode: Mode, epoch: u32) -> Result<Then, Error> {
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

    fn link(&mut self, m: &mut Machine, mode: Mode, epoch: u32) -> Result<Then, Error> {
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
    fn step_quickly(&mut self, m: &mut Machine, mode: Mode) -> bool {
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
    fn go_on(&mut self, m: &mut Machine) {
        if self.context.reason == Exit::LightStep as u32 {
            self.context.load_registers(m);
        } else {
            self.context.load(m);
        }
        self.call(m, self.context.resume, true);
    }

    /// After [`Engine::step_quickly`] has found that something did happen.
    fn after_step(&mut self, m: &mut Machine) -> Then {
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
    fn fill_soft(&mut self, m: &mut Machine, mode: Mode) -> Then {
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
    fn fault(&mut self, m: &mut Machine) -> Result<Then, Error> {
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
        let (host, physical) = (unit.host_of(&place), unit.physical_of(place.eip));
        let linear = fault.address.wrapping_sub(self.context.window);
        if fault.trap == PAGE_FAULT && linear < WINDOW_BYTES {
            let write = fault.error_code & WRITE != 0;
            let space = &mut self.spaces[self.current];
            match space.touch(m, linear as u32, write).map_err(failure)? {
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

    /// Notes a fault that showing the page did not help, or not for long.
    fn accuse(&mut self, m: &mut Machine, physical: u64) {
        if self.sites.accuse(physical) {
            self.drop_written(m, physical, 1);
        }
    }

    /// The unit at EIP, translated if need be; nothing where there can be none. The table of targets
    /// has it afterwards.
    fn find(&mut self, m: &mut Machine, mode: Mode, epoch: u32) -> Result<Option<UnitId>, Error> {
        let eip = m.cpu.eip;
        let Some(mapping) = emulator::access_page(m, LinearAddress(eip), false) else {
            return Ok(None);
        };
        let physical = mapping.physical;
        if !matches!(m.memory.page_kind(physical), PageKind::Ram(_)) {
            return Ok(None);
        }
        let key = Key { physical: physical.0, eip, mode };
        let unit = match self.cache.find(&key) {
            Some(unit) => unit,
            None => self.translate(m, key)?,
        };
        self.spaces[self.current].note_code(m, eip);
        let epoch = if self.dropped { self.epoch(mode) } else { epoch };
        self.context.set_target(eip, epoch, self.cache.unit(unit).host);
        Ok(Some(unit))
    }

    fn translate(&mut self, m: &mut Machine, key: Key) -> Result<UnitId, Error> {
        if !self.cache.has_room() {
            self.forget(m);
        }
        let physical = PhysicalAddress(key.physical);
        if m.memory.watch_code(physical) {
            self.withhold_writes(m, physical)?;
        }
        let mut code = [0; MOST_BYTES];
        let length = (0x1000 - physical.page_offset() as usize).min(MOST_BYTES);
        m.memory.read(physical, &mut code[..length]);
        self.exits.count(ExitKind::Translation);
        let request = Request {
            code: &code[..length],
            eip: key.eip,
            physical: key.physical,
            mode: key.mode,
        };
        Ok(self.cache.translate(request, &self.sites))
    }

    /// Nobody writes to this page unseen any more.
    fn withhold_writes(&mut self, m: &mut Machine, page: PhysicalAddress) -> Result<(), Error> {
        let offset = page.0 & !0xfff;
        for space in &mut self.spaces {
            space.withhold(offset).map_err(failure)?;
        }
        if let Some(host) = m.memory.host_page(page) {
            m.tlb.withhold_writes(host);
            self.context.soft.iter_mut().for_each(|soft| soft.withhold(host));
        }
        Ok(())
    }

    /// Drops the units whose guest code was written.
    fn take_code_writes(&mut self, m: &mut Machine) {
        for write in m.memory.take_code_writes() {
            m.counters.code_writes += 1;
            self.drop_written(m, write.address.0, write.length);
            self.sites.forget(write.address.0..write.address.0 + u64::from(write.length));
        }
    }

    fn drop_written(&mut self, m: &mut Machine, physical: u64, length: u32) {
        let (keys, is_empty) = self.cache.drop_written(physical, length);
        self.dropped |= !keys.is_empty();
        for key in keys {
            // Whatever the epoch: the entry may be this unit's.
            self.context.forget_target(key.eip);
        }
        if is_empty {
            m.memory.unwatch_code(PhysicalAddress(physical));
        }
    }

    fn epoch(&mut self, mode: Mode) -> u32 {
        let epochs = &mut self.epochs;
        let epoch = self.spaces[self.current].epoch(mode, || {
            *epochs += 1;
            *epochs
        });
        self.context.set_epoch(epoch);
        epoch
    }

    /// Brings the windows up to date with what the guest flushed.
    fn follow(&mut self, m: &mut Machine) -> Result<(), Error> {
        if m.tlb.generation() == self.generation {
            return Ok(());
        }
        let forgotten = m.tlb.take_forgotten();
        self.generation = m.tlb.generation();
        if forgotten.all {
            return self.activate(m);
        }
        for address in forgotten.pages {
            let space = &mut self.spaces[self.current];
            let pages = space.invalidate(address.0).map_err(failure)?;
            for page in pages.step_by(0x1000) {
                self.context.soft.iter_mut().for_each(|soft| soft.clear_page(page as u32));
                if self.spaces[self.current].take_code(page as u32) {
                    self.spaces[self.current].end_epochs();
                    self.cache.uncross((page >> 12) as u32);
                }
            }
        }
        Ok(())
    }

    /// Makes the CPU's address space the current one and brings it up to date.
    fn activate(&mut self, m: &mut Machine) -> Result<(), Error> {
        m.tlb.take_forgotten();
        self.generation = m.tlb.generation();
        self.context.soft.iter_mut().for_each(|soft| soft.clear());
        let key = SpaceKey::of(m);
        self.current = self.space(key)?;
        self.clock += 1;
        let space = &mut self.spaces[self.current];
        space.used = self.clock;
        if space.revalidate(m).map_err(failure)?.code {
            space.end_epochs();
            space.verified = 0;
        }
        let verified = std::mem::replace(&mut space.verified, self.cache.crossed());
        self.cache.check_crossings(verified, |page| {
            emulator::mapping(m, LinearAddress(page << 12)).map(|found| found.physical.page())
        });
        Ok(())
    }

    fn space(&mut self, key: SpaceKey) -> Result<usize, Error> {
        if let Some(index) = self.spaces.iter().position(|space| space.key == key) {
            return Ok(index);
        }
        if self.spaces.len() >= MOST_SPACES {
            let oldest = (0..self.spaces.len()).min_by_key(|&index| self.spaces[index].used);
            self.spaces.swap_remove(oldest.unwrap_or(0));
        }
        self.spaces.push(Space::new(key).map_err(failure)?);
        Ok(self.spaces.len() - 1)
    }
}

/// Looks at what the host and the devices want: the end of the run, if any, or an interrupt.
fn attend(m: &mut Machine) -> Option<Stop> {
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

impl Stint<'_> {
    fn is_over(&self) -> bool {
        self.limit.instructions.is_some_and(|count| self.spent >= count)
            || self.limit.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn left(&self) -> Duration {
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        self.limit.deadline.map_or(Duration::MAX, left)
    }
}

/// How long the guest may stay before the machine has to be looked at.
fn glance(m: &Machine, stint: &Stint<'_>) -> Duration {
    let event = m.next_event().map_or(GLANCE, |at| m.clock().until(at));
    let count = stint.limit.instructions.map_or(GLANCE, |count| {
        let left = count.saturating_sub(stint.spent) / INSTRUCTIONS_PER_MICROSECOND;
        Duration::from_micros(left)
    });
    event.min(count).min(stint.left()).clamp(SHORTEST_STAY, GLANCE)
}
