//! What was counted at moments of a guest's run.
//!
//! A run may take milliseconds or hours, and warming up is over after the first seconds. So there are
//! never more than so many moments: when they are too many, every second is dropped, and they come half
//! as often from then on.

use crate::sites::Moment;
use std::time::Duration;

/// The most moments.
const MOST: usize = 2048;
/// Between two, at first.
const FIRST_INTERVAL: Duration = Duration::from_micros(200);

/// Moments in ascending order.
#[derive(Debug)]
pub(crate) struct History {
    moments: Vec<Moment>,
    interval: Duration,
}

impl Default for History {
    fn default() -> History {
        History { moments: Vec::new(), interval: FIRST_INTERVAL }
    }
}

impl History {
    pub(crate) fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// Whether it is time for the next.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.moments.last().is_none_or(|last| now >= last.at + self.interval)
    }

    pub(crate) fn note(&mut self, moment: Moment) {
        self.moments.push(moment);
        if self.moments.len() == MOST {
            let mut number = 0_usize;
            self.moments.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.interval *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_moments_all_over() {
        let mut history = History::default();
        for number in 0..100_000 {
            let at = Duration::from_millis(number);
            if history.is_due(at) {
                history.note(Moment { at, traps: number, ..Moment::default() });
            }
        }
        let moments = history.moments();
        assert!((MOST / 3..MOST).contains(&moments.len()), "{}", moments.len());
        assert!(moments.is_sorted_by(|a, b| a.at < b.at));
        assert_eq!(moments[0].at, Duration::ZERO);
        assert!(moments[moments.len() - 1].at > Duration::from_secs(99));
    }
}
