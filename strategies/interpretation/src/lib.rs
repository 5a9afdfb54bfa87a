//! Interpretation: every instruction is decoded once and executed in software. The reference.
//!
//! All semantics are the `emulator` crate's; this is the loop around it that the other strategies
//! have as well: requests and interrupts from outside, HLT, limits, and the counts of exits. For an
//! interpreter an exit is what would leave the guest under any other strategy.

use emulator::{Emulator, Outcome};
use machine::Machine;
use std::time::{Duration, Instant};
use strategy::{Error, ExitCounts, ExitKind, Limit, Stop, Strategy, StrategyId, Support};

/// Instructions between two looks at the clock: some 20 µs.
const SLICE: u64 = 2048;

/// The longest sleep in HLT between two looks at the limit.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// The reference strategy.
#[derive(Default)]
pub struct Interpretation {
    emulator: Emulator,
    exits: ExitCounts,
}

/// Interpretation needs nothing of the host.
#[must_use]
pub fn support() -> Support {
    Support::Full
}

impl Interpretation {
    /// An interpreter. The blocks that it decodes belong to one machine.
    #[must_use]
    pub fn new() -> Interpretation {
        Interpretation::default()
    }

    fn run_guest(&mut self, machine: &mut Machine, limit: &Limit) -> Stop {
        let end =
            limit.instructions.map(|count| machine.counters.instructions.saturating_add(count));
        loop {
            if let Some(request) = machine.service() {
                return request.into();
            }
            if machine.interrupt_requested() && machine.cpu.interruptible() {
                let vector = machine.acknowledge_interrupt();
                if emulator::deliver_interrupt(machine, vector) == Outcome::Shutdown {
                    return Stop::TripleFault;
                }
            }
            let left = end.map_or(SLICE, |end| end.saturating_sub(machine.counters.instructions));
            if left == 0 || limit.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Stop::Limit;
            }
            let until_replayed = machine.replay_distance().unwrap_or(SLICE);
            if until_replayed == 0 {
                continue;
            }
            match self.emulator.run(machine, left.min(SLICE).min(until_replayed)) {
                Outcome::Continue => {}
                Outcome::Shutdown => return Stop::TripleFault,
                Outcome::Halted if machine.cpu.interruptible() => self.wait(machine, limit),
                Outcome::Halted => return Stop::Halted,
            }
        }
    }

    fn wait(&mut self, machine: &mut Machine, limit: &Limit) {
        if machine.interrupt_requested() {
            return;
        }
        self.exits.count(ExitKind::Host);
        let left =
            limit.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        machine.wait_for_event(left.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
    }
}

impl Strategy for Interpretation {
    fn id(&self) -> StrategyId {
        StrategyId::Interpretation
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let before = machine.counters;
        let stop = self.run_guest(machine, limit);
        self.exits.add_counters(&before, &machine.counters);
        Ok(stop)
    }

    fn exits(&self) -> &ExitCounts {
        &self.exits
    }
}
