//! The instruction at which a strategy goes wrong, within a stretch that came out wrong.
//!
//! The emulator executes the first k instructions of the stretch, the strategy goes on from there,
//! and the reference follows. With k = 0 the difference shows; once the culprit is among what the
//! emulator executes, it does not: a binary search over k finds it. A strategy need not be able to
//! stop anywhere for that, and need not do the same each time as long as it goes wrong each time.

use super::chase::{Chase, Missed, Why};
use super::code::{self, Line, Trail};
use super::finding::{Finding, Place, What};
use super::open;
use super::reference::{Origin, Reference};
use super::runner::{self, Stretch};
use super::way;
use machine::host_time::processor_nanos;
use machine::tap::{Divergence, Expected};
use machine::{Cpu, LinearAddress, Machine};
use std::ops::Range;
use std::time::{Duration, Instant};
use strategy::Strategy;

/// Blocks before the culprit that are shown.
const TRAIL: usize = 16;

/// Instructions before the culprit that are gone through one by one for that.
const FOLLOWED: u64 = 1 << 16;

/// The most instructions that the search goes through.
const FARTHEST: u64 = 1 << 26;

/// Nanoseconds of processor time after which no new attempt is made to find it.
pub(super) const LONGEST: u64 = 12_000_000_000;
/// And by the clock.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(18);

/// Nanoseconds of processor time that the reference has in each: what goes wrong may well lead it into a
/// long repetition, and there are many attempts.
const LONGEST_CHASE: u64 = 300_000_000;

/// How many times as long as the stretch an attempt can be.
const MOST_PATIENCE: u64 = 512;

/// A stretch that came out wrong, with all that takes part.
pub(super) struct Search<'a> {
    pub(super) strategy: &'a mut dyn Strategy,
    pub(super) leader: &'a mut Machine,
    pub(super) reference: &'a mut Reference,
    /// The CPU at the beginning; the reference's journal has the memory.
    pub(super) base: &'a Cpu,
    /// Instructions before the stretch.
    pub(super) instructions: u64,
    /// The stretch.
    pub(super) whole: &'a Stretch,
    /// How many times as long as the stretch an attempt is; 1 at first.
    pub(super) patience: u64,
    /// What an attempt asks for at least; 1 at first.
    pub(super) shortest: u64,
    /// The processor time at which no new attempt is made.
    pub(super) deadline: u64,
    /// And when that is by the clock: a guest that waits in HLT takes no processor time.
    pub(super) end: Instant,
    /// The linear addresses that the strategy has taken at some time; none at first.
    pub(super) taken: Vec<Range<u64>>,
}

/// An attempt that came out wrong.
pub(super) struct Attempt {
    pub(super) stretch: Stretch,
    missed: Box<Missed>,
}

impl Search<'_> {
    /// Finds the instruction. The leader is where the stretch ended, and is left before the instruction if
    /// it was found, else where the stretch begins.
    pub(super) fn run(mut self, missed: &Missed) -> anyhow::Result<Finding> {
        self.reference.longest_chase = LONGEST_CHASE;
        self.note_taken();
        let coarse = self.describe(Place::Stretch, 0, self.whole, missed)?;
        let count = self.narrow(missed)?;
        let attempt = count.map(|count| self.persist(count)).transpose()?.flatten();
        match count.zip(attempt) {
            Some((count, attempt)) => {
                let origin = Origin { base: self.base, events: &self.whole.events, count };
                let open = open::undefined_flags(
                    self.reference,
                    self.leader,
                    &origin,
                    &attempt,
                    self.deadline,
                );
                let Attempt { stretch, missed } = &attempt;
                let finding = self.describe(Place::Instruction(count), count, stretch, missed)?;
                self.set_out(&origin)?;
                Ok(Finding { open: open.or(finding.open.clone()), ..finding })
            }
            None => {
                self.set_out(&Origin { base: self.base, events: &self.whole.events, count: 0 })?;
                Ok(coarse)
            }
        }
    }

    /// How many instructions of the stretch come before the culprit, if it shows again.
    fn narrow(&mut self, missed: &Missed) -> anyhow::Result<Option<u64>> {
        // A strategy that takes a count for a time gets less far each time it begins anew.
        while self.persist(0)?.is_none() {
            self.patience *= 8;
            if self.patience > MOST_PATIENCE || self.is_late() {
                return Ok(None);
            }
        }
        let closest = missed.closest.as_ref().map(|visit| visit.at);
        let (mut low, mut high) = (0, closest.unwrap_or(self.whole.limit).max(1));
        while self.persist(high)?.is_some() {
            (low, high) = (high, high.saturating_mul(2));
            if high > FARTHEST || self.is_late() {
                return Ok(None);
            }
        }
        while high - low > 1 {
            if self.is_late() {
                return Ok(None);
            }
            let middle = low + (high - low) / 2;
            match self.persist(middle)? {
                Some(_) => low = middle,
                None => high = middle,
            }
        }
        Ok(Some(low))
    }

    /// As [`Search::attempt`], and again if it comes out right: a strategy that takes a count for a time
    /// gets less far when the host is busy or nothing is translated yet, and may have stopped before what
    /// goes wrong.
    fn persist(&mut self, count: u64) -> anyhow::Result<Option<Attempt>> {
        let (patience, shortest) = (self.patience, self.shortest);
        let mut found = None;
        for (more, least) in [(1, 1), (4, 1), (16, 1_000_000)] {
            self.patience = patience.saturating_mul(more);
            self.shortest = least.max(shortest);
            found = self.attempt(count)?;
            if found.is_some() || self.is_late() {
                break;
            }
        }
        (self.patience, self.shortest) = (patience, shortest);
        Ok(found)
    }

    fn is_late(&self) -> bool {
        processor_nanos() >= self.deadline || Instant::now() >= self.end
    }

    /// Notes what the strategy has taken of the guest's linear addresses, which may be elsewhere each time.
    fn note_taken(&mut self) {
        for taken in self.strategy.taken() {
            if !self.taken.contains(&taken) {
                self.taken.push(taken);
            }
        }
    }

    /// Puts both machines to a place in the stretch; how many events come before it.
    fn set_out(&mut self, origin: &Origin<'_>) -> anyhow::Result<usize> {
        let used = self.reference.go_to(origin);
        self.leader.take_memory(&self.reference.machine)?;
        self.leader.cpu = self.reference.machine.cpu.clone();
        Ok(used)
    }

    /// Lets the strategy go on behind `count` instructions. Nothing if it comes out right.
    fn attempt(&mut self, count: u64) -> anyhow::Result<Option<Attempt>> {
        let whole = self.whole;
        let origin = Origin { base: self.base, events: &whole.events, count };
        let used = self.set_out(&origin)?;
        let events = whole.events[used..].to_vec();
        // It is to stop where it did before: what it left wrong may not last.
        let limit = whole.limit.saturating_sub(count).max(1).saturating_mul(self.patience);
        let limit = limit.max(self.shortest);
        let stretch = runner::replay(self.strategy, self.leader, limit, events)?;
        self.note_taken();
        Ok(match self.reference.follow(&origin, self.leader, &stretch) {
            Chase::Reached(_) => None,
            // It may be on the way there.
            Chase::Missed(missed) if missed.why == Why::Late && missed.closest.is_some() => None,
            Chase::Missed(missed) => Some(Attempt { stretch, missed }),
        })
    }

    /// All that is known of a difference that showed behind `count` instructions. The leader is where
    /// the strategy left it.
    fn describe(
        &mut self,
        place: Place,
        count: u64,
        stretch: &Stretch,
        missed: &Missed,
    ) -> anyhow::Result<Finding> {
        let (before, block, trail) = self.look_back(count);
        let origin = Origin { base: self.base, events: &self.whole.events, count };
        // Where the registers differ, the strategy was perhaps far ahead.
        let there = missed.closest.as_ref().filter(|visit| visit.distance == 0);
        let until = there.map_or(stretch.bound(), |visit| visit.at);
        let open = open::on_the_way(self.reference, &origin, &stretch.events, until);
        // Another turn of a loop may have the same registers.
        let way = way::way(self.reference, &origin, &stretch.events, stretch.bound(), &self.taken);
        let mut differences = Vec::new();
        if let Some(visit) = &missed.closest {
            self.reference.go_to(&origin);
            self.reference.execute(&stretch.events, visit.at);
            self.reference.machine.bus.tap.switch_off();
            differences = machine::difference(self.leader, &self.reference.machine)?;
        }
        Ok(Finding {
            strategy: self.strategy.id(),
            what: what(stretch, missed),
            place,
            instructions: self.instructions,
            before,
            block,
            stopped: stretch.cpu.clone(),
            reference: missed.closest.as_ref().map(|visit| visit.cpu.clone()),
            differences,
            trail,
            open,
            way,
            asked: match &missed.why {
                Why::Inputs(divergence) => Some(divergence.clone()),
                _ => None,
            },
        })
    }

    /// The state after `count` instructions, the block there, and the blocks before it.
    fn look_back(&mut self, count: u64) -> (Cpu, Vec<Line>, Vec<LinearAddress>) {
        let events = &self.whole.events;
        let skipped = count.saturating_sub(FOLLOWED);
        let used = self.reference.go_to(&Origin { base: self.base, events, count: skipped });
        let machine = &mut self.reference.machine;
        machine.replay(events[used..].to_vec());
        let (begun, mut trail) = (machine.counters.instructions, Trail::default());
        while machine.counters.instructions - begun < count - skipped {
            let before = machine.counters.instructions;
            trail.note(machine, TRAIL);
            emulator::step(machine);
            if machine.counters.instructions == before {
                break;
            }
        }
        machine.bus.tap.switch_off();
        machine.signals().take_request();
        let before = machine.cpu.clone();
        (before, code::block(machine), trail.entered())
    }
}

/// What a difference is about. Where the reference has been at the strategy's EIP, it is the state
/// there: what came later does not count.
fn what(stretch: &Stretch, missed: &Missed) -> What {
    if let Some(divergence) = &stretch.divergence {
        return What::Inputs(divergence.clone());
    }
    let asked_too_much = |divergence: &Divergence| divergence.expected == Expected::Nothing;
    if let Some(visit) = missed.closest.as_ref().filter(|visit| visit.distance == 0)
        && let Some(event) = stretch.events.iter().rev().nth(visit.left.wrapping_sub(1))
    {
        return What::Unasked(*event);
    }
    match &missed.why {
        Why::Inputs(divergence) if missed.closest.is_none() || !asked_too_much(divergence) => {
            What::Inputs(divergence.clone())
        }
        Why::Halted if missed.closest.is_none() => What::Halted,
        Why::Shutdown if missed.closest.is_none() => What::Shutdown,
        _ => What::State,
    }
}
