//! Guest time: the host's monotonic clock, or a virtual clock that instructions drive.
//!
//! Every timed device holds an [`Arc<Clock>`](std::sync::Arc) and asks it; nothing else in the
//! machine reads [the host's time](crate::host_time), except for the marks of the debug console.

use crate::host_time;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds since the machine was made.
pub type Nanos = u64;

/// Where guest time comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    /// The host's monotonic clock; RDTSC shows the host's counter, less its value at the start.
    #[default]
    Host,
    /// A clock that advances with executed instructions: exact repetition under interpretation.
    Virtual,
}

/// No guest's time gets here: nanoseconds of a century. What computes with moments before it does
/// not overflow.
pub(crate) const LATEST: Nanos = 100 * 365 * 86_400 * 1_000_000_000;

/// Virtual nanoseconds that one instruction takes: a 100 MIPS machine.
pub const VIRTUAL_NANOS_PER_INSTRUCTION: u64 = 10;

/// The one clock of a machine.
#[derive(Debug)]
pub struct Clock {
    source: ClockSource,
    /// When it was made, by the host's clock.
    origin: Nanos,
    /// Guest time at the origin.
    begun: Nanos,
    host_tsc_origin: u64,
    virtual_now: AtomicU64,
    tsc_offset: AtomicU64,
}

/// A moment of a clock.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ClockState {
    pub(crate) now: Nanos,
    pub(crate) tsc: u64,
}

impl Clock {
    /// A clock that starts at zero now.
    #[must_use]
    pub fn new(source: ClockSource) -> Clock {
        Clock::resumed(source, &ClockState { now: 0, tsc: 0 })
    }

    /// A clock that goes on from a moment.
    pub(crate) fn resumed(source: ClockSource, state: &ClockState) -> Clock {
        let clock = Clock {
            source,
            origin: host_time::nanos(),
            begun: state.now,
            host_tsc_origin: host_tsc(),
            virtual_now: AtomicU64::new(state.now),
            tsc_offset: AtomicU64::new(0),
        };
        clock.set_tsc(state.tsc);
        clock
    }

    /// This moment.
    pub(crate) fn state(&self) -> ClockState {
        ClockState { now: self.now(), tsc: self.tsc() }
    }

    /// Where this clock's time comes from.
    #[must_use]
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Guest time, in nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> Nanos {
        match self.source {
            ClockSource::Host => {
                let elapsed = host_time::nanos().saturating_sub(self.origin);
                self.begun.saturating_add(elapsed)
            }
            ClockSource::Virtual => self.virtual_now.load(Ordering::Relaxed),
        }
    }

    /// The guest's time-stamp counter, which wraps.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        let raw = match self.source {
            ClockSource::Host => host_tsc().wrapping_sub(self.host_tsc_origin),
            ClockSource::Virtual => self.now(),
        };
        raw.wrapping_add(self.tsc_offset.load(Ordering::Relaxed))
    }

    /// What the guest's time-stamp counter is ahead of the host's; nothing if it does not follow it.
    #[inline]
    #[must_use]
    pub fn host_tsc_offset(&self) -> Option<u64> {
        let offset = self.tsc_offset.load(Ordering::Relaxed);
        (self.source == ClockSource::Host).then(|| offset.wrapping_sub(self.host_tsc_origin))
    }

    /// Makes the time-stamp counter read `value` now (WRMSR to IA32_TIME_STAMP_COUNTER).
    pub fn set_tsc(&self, value: u64) {
        let raw = self.tsc().wrapping_sub(self.tsc_offset.load(Ordering::Relaxed));
        self.tsc_offset.store(value.wrapping_sub(raw), Ordering::Relaxed);
    }

    /// Accounts for `count` executed instructions; moves only a virtual clock.
    pub fn retire(&self, count: u64) {
        if self.source == ClockSource::Virtual {
            self.virtual_now.fetch_add(count * VIRTUAL_NANOS_PER_INSTRUCTION, Ordering::Relaxed);
        }
    }

    /// Moves a virtual clock forward to `deadline` (an idle guest waits no real time); the host's
    /// clock is not moved.
    pub fn skip_to(&self, deadline: Nanos) {
        if self.source == ClockSource::Virtual {
            self.virtual_now.fetch_max(deadline, Ordering::Relaxed);
        }
    }

    /// How long the host has to wait until `deadline`: nothing on a virtual clock.
    #[must_use]
    pub fn until(&self, deadline: Nanos) -> Duration {
        match self.source {
            ClockSource::Host => Duration::from_nanos(deadline.saturating_sub(self.now())),
            ClockSource::Virtual => Duration::ZERO,
        }
    }
}

fn host_tsc() -> u64 {
    // SAFETY: RDTSC has no preconditions in user mode unless PR_SET_TSC forbids it, and where the
    // monitor forbids it, its signal handler allows it again.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_moves_with_instructions_only() {
        let clock = Clock::new(ClockSource::Virtual);
        assert_eq!(clock.now(), 0);
        clock.retire(7);
        assert_eq!(clock.now(), 7 * VIRTUAL_NANOS_PER_INSTRUCTION);
        clock.skip_to(1_000);
        clock.skip_to(500);
        assert_eq!(clock.now(), 1_000);
    }

    #[test]
    fn a_resumed_clock_goes_on_from_its_moment() {
        for source in [ClockSource::Host, ClockSource::Virtual] {
            let state = ClockState { now: 5_000_000_000, tsc: 77_000_000_000 };
            let clock = Clock::resumed(source, &state);
            let later = clock.state();
            assert!((state.now..state.now + 1_000_000_000).contains(&later.now), "{source:?}");
            assert!((state.tsc..state.tsc + 10_000_000_000).contains(&later.tsc), "{source:?}");
        }
    }

    #[test]
    fn the_time_stamp_counter_can_be_set() {
        let clock = Clock::new(ClockSource::Virtual);
        clock.set_tsc(u64::MAX);
        clock.retire(1);
        assert_eq!(clock.tsc(), VIRTUAL_NANOS_PER_INSTRUCTION - 1);
    }
}
