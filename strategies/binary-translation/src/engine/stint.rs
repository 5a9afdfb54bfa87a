//! One call of the run loop: how far it may go, and when the machine has to be looked at.

use emulator::Outcome;
use host::compatibility::CompatibilityMode;
use host::kick::Kick;
use host::translated::TranslatedCode;
use machine::Machine;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop};

/// Between two looks at the machine while the guest stays in translated code.
const GLANCE: Duration = Duration::from_millis(1);
/// The shortest stay.
const SHORTEST_STAY: Duration = Duration::from_micros(20);
/// What an instruction limit counts a stay in translated code as, for each microsecond.
pub(super) const INSTRUCTIONS_PER_MICROSECOND: u64 = 1000;

/// One call of [`Engine::run`].
pub(super) struct Stint<'a> {
    pub(super) limit: &'a Limit,
    pub(super) spent: u64,
    pub(super) kick: Kick,
    // Dropped before what it was made after: each gives back the signals' stack that it found.
    pub(super) native: Option<CompatibilityMode>,
    pub(super) _code: TranslatedCode,
}

/// Looks at what the host and the devices want: the end of the run, if any, or an interrupt.
pub(super) fn attend(m: &mut Machine) -> Option<Stop> {
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
    pub(super) fn is_over(&self) -> bool {
        self.limit.instructions.is_some_and(|count| self.spent >= count)
            || self.limit.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    pub(super) fn left(&self) -> Duration {
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        self.limit.deadline.map_or(Duration::MAX, left)
    }
}

/// How long the guest may stay before the machine has to be looked at.
pub(super) fn glance(m: &Machine, stint: &Stint<'_>) -> Duration {
    let event = m.next_event().map_or(GLANCE, |at| m.clock().until(at));
    let count = stint.limit.instructions.map_or(GLANCE, |count| {
        let left = count.saturating_sub(stint.spent) / INSTRUCTIONS_PER_MICROSECOND;
        Duration::from_micros(left)
    });
    event.min(count).min(stint.left()).clamp(SHORTEST_STAY, GLANCE)
}
