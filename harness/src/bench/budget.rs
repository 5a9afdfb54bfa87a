//! How long a run may take, and what that means for each workload and guest. Pure arithmetic.

use std::time::Duration;

/// Samples of each row that are taken even where a workload has used up its share.
const LEAST_SAMPLES: u32 = 3;

/// A guest gets this many times its even share of what is left before it counts as hanging.
const PATIENCE: u32 = 40;

/// A row gets this many times its even part of a workload's share: a program that starts slowly
/// would take the others' samples.
const GREED: u32 = 2;

/// The shortest time after which a guest counts as hanging: slow hosts exist, and some guests set up
/// tens of megabytes before they begin.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What is left of a run's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Budget {
    /// For the whole run; none if it may take as long as it takes.
    pub whole: Option<Duration>,
    /// Used so far.
    pub used: Duration,
    /// Workloads that are not finished, the current one among them.
    pub workloads: u32,
}

impl Budget {
    fn left(&self) -> Option<Duration> {
        self.whole.map(|whole| whole.saturating_sub(self.used))
    }

    /// What the current workload may use, asked before it begins.
    pub(super) fn share(&self) -> Option<Duration> {
        self.left().map(|left| left / self.workloads.max(1))
    }

    /// How long one of `guests` guests of the current workload may run, if `timeout` is the most.
    pub(super) fn timeout(&self, timeout: Duration, guests: u32) -> Duration {
        match self.share() {
            Some(share) => {
                let fair = share / guests.max(1) * PATIENCE;
                timeout.min(fair.max(SHORTEST_TIMEOUT))
            }
            None => timeout,
        }
    }

    /// Whether one of `rows` rows may have a sample in such a round, if it has used `spent` so far.
    pub(super) fn affords(
        &self,
        taken: u32,
        spent: Duration,
        share: Option<Duration>,
        rows: u32,
    ) -> bool {
        let Some(share) = share else { return true };
        taken < LEAST_SAMPLES || spent < share / rows.max(1) * GREED
    }

    /// Whether another round of samples is due in a workload that has `taken` of each row and used
    /// `spent` of its `share`.
    pub(super) fn allows(&self, taken: u32, spent: Duration, share: Option<Duration>) -> bool {
        let Some(share) = share else { return true };
        let least = if self.left().is_some_and(|left| left.is_zero()) { 1 } else { LEAST_SAMPLES };
        taken < least || spent < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(whole: Option<u64>, used: u64, workloads: u32) -> Budget {
        Budget { whole: whole.map(Duration::from_secs), used: Duration::from_secs(used), workloads }
    }

    #[test]
    fn what_is_left_is_shared_evenly() {
        assert_eq!(budget(Some(150), 50, 50).share(), Some(2 * SECOND));
        assert_eq!(budget(Some(150), 200, 3).share(), Some(Duration::ZERO));
        assert_eq!(budget(None, 50, 50).share(), None);
    }

    #[test]
    fn without_a_budget_every_sample_is_taken() {
        assert!(budget(None, 1_000_000, 1).allows(9_999, 1_000 * SECOND, None));
        assert_eq!(budget(None, 0, 1).timeout(10 * SECOND, 8), 10 * SECOND);
    }

    #[test]
    fn a_share_that_is_used_up_ends_a_workload_after_a_few_samples() {
        let budget = budget(Some(100), 10, 10);
        let share = budget.share();
        assert!(budget.allows(7, 8 * SECOND, share));
        assert!(!budget.allows(7, 9 * SECOND, share));
        assert!(budget.allows(2, 9 * SECOND, share));
    }

    #[test]
    fn a_row_that_starts_slowly_leaves_time_to_the_others() {
        let (budget, share) = (budget(Some(100), 0, 10), Some(10 * SECOND));
        assert!(budget.affords(3, 3 * SECOND, share, 5));
        assert!(!budget.affords(3, 4 * SECOND, share, 5));
        assert!(budget.affords(2, 4 * SECOND, share, 5));
        assert!(budget.affords(9, 900 * SECOND, None, 5));
    }

    #[test]
    fn past_the_budget_one_sample_is_still_taken() {
        let budget = budget(Some(100), 101, 10);
        assert!(budget.allows(0, SECOND, budget.share()));
        assert!(!budget.allows(1, SECOND, budget.share()));
    }

    #[test]
    fn guests_that_hang_cannot_eat_the_budget() {
        assert_eq!(budget(Some(100), 0, 100).timeout(10 * SECOND, 20), 3 * SECOND);
        assert_eq!(budget(Some(100), 0, 1).timeout(10 * SECOND, 20), 10 * SECOND);
    }
}
