//! The machine that a strategy runs, one stretch at a time.

use emulator::Outcome;
use machine::host_time::processor_nanos;
use machine::tap::{Divergence, Event, Expected};
use machine::{Cpu, Machine};
use std::time::{Duration, Instant};
use strategy::{Error, Limit, Stop, Strategy, StrategyId};

/// Events that a stretch can have: more than any strategy makes in one.
const MOST_EVENTS: usize = 1 << 22;

/// Events with which a stretch ends: those of a repetition over device memory come by thousands for
/// each instruction.
const ENOUGH_EVENTS: usize = 1 << 16;

/// How long a stretch takes at most: what a strategy is asked for can turn out to be a hundred times slower
/// than what it was asked for before, and the reference has to follow.
const LONGEST: Duration = Duration::from_millis(200);

/// Instructions that the fastest host executes in a nanosecond: a stretch of a strategy that does
/// not count is not longer than that. Some come to 9 in a LOOP.
const INSTRUCTIONS_PER_NANOSECOND: u64 = 32;

/// What a strategy did in one go.
pub(super) struct Stretch {
    /// Why it ended.
    pub(super) stop: Stop,
    /// What it asked for.
    pub(super) limit: u64,
    /// What came from outside, and what went there.
    pub(super) events: Vec<Event>,
    /// Whether it ran on behind the end of its log, where reads give all ones.
    pub(super) overran: bool,
    /// What it asked for that is not in its log.
    pub(super) divergence: Option<Divergence>,
    /// The CPU where it ended.
    pub(super) cpu: Cpu,
    /// Nanoseconds of processor time. On the wall clock a stretch can be long in which others ran, and
    /// the reference would go on for as long.
    took: u64,
    /// Instructions, if the strategy counts them.
    counted: Option<u64>,
}

impl Stretch {
    /// Whether it can have been so many instructions.
    pub(super) fn may_be(&self, instructions: u64) -> bool {
        self.counted.is_none_or(|counted| counted == instructions)
    }

    /// More instructions than this it cannot have been.
    pub(super) fn bound(&self) -> u64 {
        let by_time = self.took.saturating_mul(INSTRUCTIONS_PER_NANOSECOND);
        by_time.saturating_add(self.limit.saturating_mul(4)).saturating_add(10_000)
    }
}

/// Runs the guest for about `limit` instructions and records what comes in.
pub(super) fn record(
    strategy: &mut dyn Strategy,
    machine: &mut Machine,
    limit: u64,
) -> Result<Stretch, Error> {
    machine.record(MOST_EVENTS);
    machine.ask_to_stop_after(ENOUGH_EVENTS);
    let mut stretch = run(strategy, machine, limit)?;
    stretch.events = machine.take_events();
    machine.bus.tap.switch_off();
    Ok(stretch)
}

/// Runs the guest for about `limit` instructions with what came in before.
pub(super) fn replay(
    strategy: &mut dyn Strategy,
    machine: &mut Machine,
    limit: u64,
    events: Vec<Event>,
) -> Result<Stretch, Error> {
    // Whoever wants an end wants none of this.
    machine.signals().take_request();
    machine.replay(events.clone());
    let stretch = run(strategy, machine, limit);
    let divergence = machine.divergence().cloned();
    let used = events.len() - machine.replay_left();
    machine.bus.tap.switch_off();
    machine.signals().take_request();
    let overran = divergence.as_ref().is_some_and(|found| found.expected == Expected::Nothing);
    let divergence = divergence.filter(|_| !overran);
    let events = events.into_iter().take(used).collect();
    Ok(Stretch { events, overran, divergence, ..stretch? })
}

fn run(strategy: &mut dyn Strategy, machine: &mut Machine, limit: u64) -> Result<Stretch, Error> {
    let (begun, before) = (processor_nanos(), machine.counters.instructions);
    let deadline = Some(Instant::now() + LONGEST);
    let mut stop = strategy.run(machine, &Limit { instructions: Some(limit), deadline })?;
    let ended = matches!(stop, Stop::Limit | Stop::Requested);
    if ended && !machine.cpu.halted && complete(machine, stop) == Outcome::Shutdown {
        stop = Stop::TripleFault;
    }
    let counts = strategy.id() == StrategyId::Interpretation;
    Ok(Stretch {
        counted: counts.then(|| machine.counters.instructions - before),
        stop,
        limit,
        events: Vec::new(),
        overran: false,
        divergence: None,
        cpu: machine.cpu.clone(),
        took: processor_nanos() - begun,
    })
}

/// Lets the emulator execute the instruction at which the strategy stopped, up to the next place where it
/// pauses itself if it is a repeated string instruction: the reference comes through there. Where else
/// within one of these a CPU stops is its own affair, and so is whether it has touched the pages of the
/// next instruction, which then are marked as accessed.
fn complete(machine: &mut Machine, stop: Stop) -> Outcome {
    if stop == Stop::Requested && !repeats(machine) {
        return Outcome::Continue;
    }
    emulator::step(machine)
}

/// Whether the instruction at EIP is a repeated string instruction.
fn repeats(machine: &mut Machine) -> bool {
    emulator::instruction(machine).is_some_and(|instruction| {
        instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
    })
}
