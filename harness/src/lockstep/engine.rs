//! The comparison: stretch after stretch until the guest stops, a limit is reached, or strategies
//! differ.

use super::accessed;
use super::chase::{Chase, Why};
use super::code;
use super::finding::{Finding, Place, What};
use super::locate::{LONGEST as LONGEST_SEARCH, LONGEST_WAIT, Search};
use super::log::Log;
use super::open;
use super::reference::{Origin, Reference};
use super::runner;
use super::stale;
use super::way;
use emulator::Outcome;
use machine::host_time::processor_nanos;
use machine::signals::Request;
use machine::tap::{Choice, Event, LogWriter};
use machine::{Cpu, Difference, Fingerprint, Machine, PhysicalAddress};
use std::time::{Duration, Instant};
use strategy::{Stop, Strategy};
use workloads::programs::Random;

/// Comparing all memory may take one part in so many of the time.
const MEMORY_SHARE: u32 = 8;

/// The longest stretch while an interrupt waits to be taken.
const WAITING_STRETCH: u64 = 64;

/// The most that is asked for to get one instruction.
const MOST_SCALE: u64 = 1024;

/// How a comparison is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Instructions of a stretch on average. Strategies that do not count make of it what they can.
    pub stretch: u64,
    /// The lengths of stretches come from it.
    pub seed: u64,
    /// Compare all memory after each stretch: slow, but no stray write gets far, and where a loop changes
    /// nothing but memory, a stretch's end is not taken for an earlier turn of it.
    pub all_memory: bool,
    /// How long a run goes on at most. A guest that waits for nothing is to be woken by the host's
    /// request to stop, which by itself ends no run here.
    pub patience: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options { stretch: 20_000, seed: 1, all_memory: false, patience: None }
    }
}

/// How far a comparison has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Instructions of the reference.
    pub instructions: u64,
    /// Stretches.
    pub stretches: u64,
    /// Interrupts taken between them.
    pub interrupts: u64,
}

/// How a comparison ended.
#[derive(Debug)]
pub enum End {
    /// The guest stopped, everywhere in the same way.
    Stopped(Stop),
    /// The limit was reached.
    Limit,
    /// The reference did not come to where the strategy is in a time that somebody has, and may still be on
    /// the way there.
    Undecided,
    /// A difference.
    Different(Box<Finding>),
}

/// A strategy beside the reference.
pub struct Lockstep {
    strategy: Box<dyn Strategy>,
    leader: Machine,
    reference: Reference,
    options: Options,
    random: Random,
    progress: Progress,
    interrupt_waits: bool,
    memory: MemoryWatch,
    /// The CPU where the last stretch began.
    base: Cpu,
    /// What came in during it.
    events: Vec<Event>,
    /// What a strategy is asked for, for each instruction that it is to execute: those that do not
    /// count take a count for a time.
    scale: u64,
    log: Log,
}

/// When all memory was compared, and how long that takes.
struct MemoryWatch {
    compared: Instant,
    at: u64,
    took: Duration,
}

impl Lockstep {
    /// A strategy on `leader`; `reference` is a machine in the same state, whose devices are not used.
    ///
    /// # Errors
    /// When the machines differ.
    pub fn new(
        strategy: Box<dyn Strategy>,
        leader: Machine,
        reference: Machine,
        options: Options,
    ) -> anyhow::Result<Lockstep> {
        if let Some(difference) = machine::difference(&leader, &reference)?.first() {
            anyhow::bail!("the machines differ before the first instruction: {difference}");
        }
        let memory = MemoryWatch { compared: Instant::now(), at: 0, took: Duration::ZERO };
        Ok(Lockstep {
            strategy,
            base: leader.cpu.clone(),
            leader,
            reference: Reference::new(reference, options.all_memory),
            options,
            random: Random::new(options.seed),
            progress: Progress::default(),
            interrupt_waits: false,
            events: Vec::new(),
            memory,
            scale: 1,
            log: Log::default(),
        })
    }

    /// Writes a log of what follows, from which interpretation can repeat it. To be called before the
    /// first instruction.
    pub fn record_to(&mut self, log: LogWriter) {
        self.log = Log::new(log);
    }

    /// Ends that log, and gives the checksum of the state in which it ends.
    ///
    /// # Errors
    /// When it cannot be written, or the host cannot read the guest's memory.
    pub fn finish_recording(&mut self) -> anyhow::Result<Fingerprint> {
        let fingerprint = self.leader.fingerprint()?;
        self.log.finish(&self.leader.cpu, self.progress.instructions, fingerprint)?;
        Ok(fingerprint)
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Gives the strategy back, for another guest.
    #[must_use]
    pub fn into_strategy(self) -> Box<dyn Strategy> {
        self.strategy
    }

    /// Gives the strategy's machine back, which is before the instruction that was found if one was.
    #[must_use]
    pub fn into_leader(self) -> Machine {
        self.leader
    }

    /// The machine that the strategies run, with the devices.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.leader
    }

    /// Compares until the guest stops, strategies differ, or at least `limit` more instructions were
    /// executed.
    ///
    /// # Errors
    /// When the host fails.
    pub fn run(&mut self, limit: u64) -> anyhow::Result<End> {
        self.run_until(limit, None)
    }

    /// The same, but not much beyond `deadline`. A loop in which nothing changes counts as one turn of
    /// it, so that a count alone may be reached late.
    ///
    /// # Errors
    /// When the host fails.
    pub fn run_until(&mut self, limit: u64, deadline: Option<Instant>) -> anyhow::Result<End> {
        let end = self.progress.instructions.saturating_add(limit);
        let begun = Instant::now();
        loop {
            if let Some(stop) = self.take_interrupt() {
                return self.ended(End::Stopped(stop));
            }
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline)
                || self.options.patience.is_some_and(|most| begun.elapsed() >= most);
            if self.progress.instructions >= end || is_late {
                return self.ended(End::Limit);
            }
            let left = end - self.progress.instructions;
            match self.stretch(left)? {
                Step::On => {}
                Step::Stopped(stop) => return self.ended(End::Stopped(stop)),
                Step::Undecided => return Ok(End::Undecided),
                Step::Different(finding) => return Ok(End::Different(finding)),
            }
            if self.is_memory_due()
                && let Some(finding) = self.compare_memory()?
            {
                return Ok(End::Different(finding));
            }
        }
    }

    fn ended(&mut self, end: End) -> anyhow::Result<End> {
        Ok(self.compare_memory()?.map_or(end, End::Different))
    }

    /// Lets both machines take an interrupt that has come.
    fn take_interrupt(&mut self) -> Option<Stop> {
        let leader = &mut self.leader;
        leader.hold_interrupts(false);
        // The host's own requests only end runs.
        let request = leader.service().filter(|&request| request != Request::Stop);
        self.interrupt_waits = leader.interrupt_requested();
        if request.is_none() && self.interrupt_waits && leader.cpu.interruptible() {
            let vector = leader.acknowledge_interrupt();
            self.interrupt_waits = leader.interrupt_requested();
            self.progress.interrupts += 1;
            self.log.interrupt(vector, &leader.cpu, self.progress.instructions);
            let outcomes = [leader, &mut self.reference.machine]
                .map(|machine| emulator::deliver_interrupt(machine, vector));
            if outcomes.contains(&Outcome::Shutdown) {
                return Some(Stop::TripleFault);
            }
        }
        self.leader.hold_interrupts(true);
        request.map(Stop::from)
    }

    /// One stretch of each strategy.
    fn stretch(&mut self, most: u64) -> anyhow::Result<Step> {
        let average = if self.interrupt_waits { WAITING_STRETCH } else { self.options.stretch };
        let wanted = (1 + self.random.below(average.saturating_mul(2))).min(most);
        let limit = wanted.saturating_mul(self.scale);
        if stale::have_changed(&self.reference.machine, &self.base) {
            // What either still holds would be another thing that they differ in.
            self.leader.tlb.flush();
            self.reference.machine.tlb.flush();
        }
        let base = self.leader.cpu.clone();
        self.base.clone_from(&base);
        self.reference.machine.begin_journal();
        let stretch = runner::record(&mut *self.strategy, &mut self.leader, limit)?;
        let origin = Origin { base: &base, events: &stretch.events, count: 0 };
        let executed = match self.reference.follow(&origin, &self.leader, &stretch) {
            Chase::Reached(executed) => executed,
            Chase::Missed(missed) if missed.is_undecided() => return Ok(Step::Undecided),
            Chase::Missed(missed) => {
                let search = Search {
                    strategy: &mut *self.strategy,
                    leader: &mut self.leader,
                    reference: &mut self.reference,
                    base: &base,
                    instructions: self.progress.instructions,
                    whole: &stretch,
                    patience: 1,
                    shortest: 1,
                    deadline: processor_nanos() + LONGEST_SEARCH,
                    end: Instant::now() + LONGEST_WAIT,
                    taken: Vec::new(),
                };
                let finding = search.run(&missed)?;
                // The reference may have been on the way there still, in a loop that takes it so long.
                let is_shown = missed.why != Why::Late || finding.place != Place::Stretch;
                return Ok(match is_shown {
                    true => Step::Different(Box::new(finding)),
                    false => Step::Undecided,
                });
            }
        };
        self.reference.remember_written();
        self.adapt(wanted, executed, stretch.stop);
        self.progress.instructions += executed;
        self.progress.stretches += 1;
        self.log.extend(&stretch.events)?;
        self.events = stretch.events;
        let choices = self.reference.take_choices();
        self.log.choices(choices, &self.leader.cpu, self.progress.instructions);
        let cpu = &self.leader.cpu;
        Ok(match stretch.stop {
            // It waits for an interrupt that is held back, and would not take it.
            Stop::Requested if cpu.halted && !cpu.interruptible() => Step::Stopped(Stop::Halted),
            // What was waited for is an interrupt that is held back.
            Stop::Limit | Stop::Requested => Step::On,
            stop => Step::Stopped(stop),
        })
    }

    /// Learns from a stretch what to ask for.
    fn adapt(&mut self, wanted: u64, executed: u64, stop: Stop) {
        if stop == Stop::Limit && executed < wanted / 2 {
            self.scale = (self.scale * 2).min(MOST_SCALE);
        } else if executed > wanted.saturating_mul(2) {
            self.scale = (self.scale / 2).max(1);
        }
    }

    fn is_memory_due(&self) -> bool {
        let share = self.memory.took.saturating_mul(MEMORY_SHARE);
        !self.options.all_memory && self.memory.compared.elapsed() >= share
    }

    /// Whether memory is the same when the reference goes round once more: in a loop that changes no
    /// register the first turn may write what it has not written before, and the strategy has made
    /// several.
    fn goes_round(&mut self, cpus: &[Cpu; 2]) -> anyhow::Result<bool> {
        let Some(executed) = self.reference.go_round(&self.leader.cpu) else { return Ok(false) };
        let mut choices = Vec::new();
        let mut left = machine::difference(&self.leader, &self.reference.machine)?;
        left.retain(|difference| {
            let reference = &mut self.reference.machine;
            !is_accessed_bit(difference, &self.leader, reference, cpus, &mut choices)
        });
        self.reference.remember_written();
        self.progress.instructions += executed;
        self.log.choices(choices, &self.leader.cpu, self.progress.instructions);
        Ok(left.is_empty())
    }

    fn compare_memory(&mut self) -> anyhow::Result<Option<Box<Finding>>> {
        let begun = Instant::now();
        let cpus = [self.leader.cpu.clone(), self.base.clone()];
        let mut differences = machine::difference(&self.leader, &self.reference.machine)?;
        let mut choices = Vec::new();
        differences.retain(|difference| {
            let reference = &mut self.reference.machine;
            !is_accessed_bit(difference, &self.leader, reference, &cpus, &mut choices)
        });
        let instructions = self.progress.instructions;
        self.log.choices(choices, &self.leader.cpu, instructions);
        let since = instructions - std::mem::replace(&mut self.memory.at, instructions);
        self.memory.compared = Instant::now();
        self.memory.took = begun.elapsed();
        if differences.is_empty() {
            return Ok(None);
        }
        let cpu = self.leader.cpu.clone();
        if self.goes_round(&cpus)? {
            return Ok(None);
        }
        let (reference, block) = {
            let machine = &mut self.reference.machine;
            (machine.cpu.clone(), code::block(machine))
        };
        let origin = Origin { base: &self.base, events: &self.events, count: 0 };
        let open = open::on_the_way(&mut self.reference, &origin, &self.events, u64::MAX);
        let taken = self.strategy.taken();
        let way = way::way(&mut self.reference, &origin, &self.events, u64::MAX, &taken);
        Ok(Some(Box::new(Finding {
            strategy: self.strategy.id(),
            what: What::StrayWrites,
            place: Place::Stretches(since),
            instructions,
            before: cpu.clone(),
            block,
            stopped: cpu,
            reference: Some(reference),
            differences,
            trail: Vec::new(),
            open,
            way,
            asked: None,
        })))
    }
}

/// Whether a difference is one of accessed bits, and none any more.
fn is_accessed_bit(
    difference: &Difference,
    leader: &Machine,
    reference: &mut Machine,
    cpus: &[Cpu; 2],
    choices: &mut Vec<Choice>,
) -> bool {
    let Difference::Memory { address, .. } = difference else { return false };
    let page = PhysicalAddress(address.0 & !0xfff);
    let bits = accessed::Bits::find(leader, reference, page, &[&cpus[0], &cpus[1]]);
    bits.map(|bits| bits.set(reference, choices)).is_some()
}

/// What a stretch came to.
enum Step {
    On,
    Stopped(Stop),
    Undecided,
    Different(Box<Finding>),
}
