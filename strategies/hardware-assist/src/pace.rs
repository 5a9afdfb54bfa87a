//! How long a run goes on, and when the guest has to be interrupted meanwhile.

use machine::Machine;
use machine::clock::Nanos;
use std::time::{Duration, Instant};
use strategy::Limit;

/// At least so often the monitor looks at what other threads want. Nothing else tells a thread
/// that is inside of KVM_RUN.
const LOOK: Duration = Duration::from_millis(1);

/// At least so often the machine is serviced while exits keep the monitor busy anyway.
const SERVICE: Duration = Duration::from_micros(100);

/// A stay in the guest is not made shorter than this, or it would end before it has begun and a
/// small limit would never be reached.
const SHORTEST_STAY: Duration = Duration::from_micros(50);

/// The limits of one run.
///
/// KVM counts no instructions, so one counts as a nanosecond, whatever the guest's speed. What
/// the emulator executes is counted exactly.
#[derive(Debug)]
pub(crate) struct Pace {
    deadline: Option<Instant>,
    instructions: Option<u64>,
    serviced: Option<Instant>,
}

impl Pace {
    /// The pace that `limit` sets.
    pub(crate) fn new(limit: &Limit) -> Pace {
        Pace { deadline: limit.deadline, instructions: limit.instructions, serviced: None }
    }

    /// Whether the limit is reached.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.instructions == Some(0) || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Accounts for a stay in the guest, on a virtual clock too: time is all that is known of it.
    pub(crate) fn spend_time(&mut self, machine: &Machine, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        machine.clock().retire(nanos / machine::clock::VIRTUAL_NANOS_PER_INSTRUCTION);
        self.spend_instructions(nanos);
    }

    /// Accounts for emulated instructions.
    pub(crate) fn spend_instructions(&mut self, count: u64) {
        self.instructions = self.instructions.map(|left| left.saturating_sub(count));
    }

    /// At most `most` instructions, and no more than are left.
    pub(crate) fn batch(&self, most: u64) -> u64 {
        self.instructions.map_or(most, |left| left.min(most))
    }

    /// Whether [`Machine::service`] is due; then it counts as done.
    pub(crate) fn service_is_due(&mut self, machine: &Machine, now: Instant) -> bool {
        let due = machine.signals().attention()
            || self.serviced.is_none_or(|last| now.saturating_duration_since(last) >= SERVICE)
            || machine.next_event().is_some_and(|at| at <= machine.clock().now());
        if due {
            self.serviced = Some(now);
        }
        due
    }

    /// Until when the guest may run at most before the monitor looks again.
    pub(crate) fn next_look(&self, machine: &Machine, now: Instant) -> Instant {
        now + self.left(now).min(until_next_event(machine)).min(LOOK).max(SHORTEST_STAY)
    }

    /// How long a halted guest may be left alone.
    pub(crate) fn longest_wait(&self, now: Instant) -> Duration {
        self.left(now).min(Duration::from_millis(100))
    }

    fn left(&self, now: Instant) -> Duration {
        let by_count = self.instructions.map_or(Duration::MAX, Duration::from_nanos);
        let by_time = self.deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        by_count.min(by_time)
    }
}

/// Guest time until a device does something by itself. While KVM runs the guest, a virtual clock
/// goes at the host's speed as well.
fn until_next_event(machine: &Machine) -> Duration {
    let left = |at: Nanos| Duration::from_nanos(at.saturating_sub(machine.clock().now()));
    machine.next_event().map_or(Duration::MAX, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_counts_as_a_nanosecond() {
        let machine = Machine::new(&small()).unwrap();
        let mut pace = Pace::new(&Limit::instructions(1_000));
        let now = Instant::now();
        assert!(!pace.is_over(now));
        pace.spend_time(&machine, Duration::from_nanos(600));
        assert_eq!(pace.batch(1_000), 400);
        pace.spend_instructions(1_000);
        assert!(pace.is_over(now));
    }

    #[test]
    fn a_stay_is_neither_too_long_nor_too_short() {
        let mut machine = Machine::new(&small()).unwrap();
        let now = Instant::now();
        machine.service();
        let look = |limit| Pace::new(&limit).next_look(&machine, now) - now;
        assert!(look(Limit::none()) <= LOOK);
        assert_eq!(look(Limit::instructions(5)), SHORTEST_STAY);
        assert_eq!(look(Limit::until(now)), SHORTEST_STAY);
    }

    fn small() -> machine::MachineConfig {
        machine::MachineConfig { memory_bytes: 1 << 20, ..Default::default() }
    }
}
