//! How many iterations a sample needs. Pure arithmetic; running the guests is the engine's part.

use std::time::Duration;

/// What is aimed at, above the least time of a sample, so that noise does not fall below it.
const MARGIN: f64 = 1.4;

/// No step goes further, for a short time says little about a long one.
const LONGEST_STEP: f64 = 200.0;

/// Nor further than this from a time below the clock's resolution, which says nothing.
const BLIND_STEP: f64 = 10.0;

/// What a clock does not tell from nothing, at least.
const NOTHING: f64 = 1e-9;

/// Iterations to begin with, when a run of one took `single` seconds: not more than the workload's
/// own suggestion, and few enough not to take far longer than a sample.
pub(super) fn begin(suggested: u32, single: Option<f64>, least: Duration) -> u32 {
    match single {
        Some(seconds) if seconds >= least.as_secs_f64() => 1,
        Some(seconds) => suggested.min(scaled(1, seconds, least, LONGEST_STEP)).max(1),
        None => suggested.max(1),
    }
}

/// The iterations to try after `iterations` took `seconds` by a clock of this `resolution`; none
/// where that was long enough, or there are no more.
pub(super) fn next(
    iterations: u32,
    seconds: f64,
    least: Duration,
    resolution: Duration,
) -> Option<u32> {
    if seconds >= least.as_secs_f64() || iterations == u32::MAX {
        return None;
    }
    let is_blind = seconds < resolution.as_secs_f64();
    let longest = if is_blind { BLIND_STEP } else { LONGEST_STEP };
    let more = scaled(iterations, seconds, least, longest);
    Some(more.max(iterations.saturating_add(iterations / 4 + 1)))
}

fn scaled(iterations: u32, seconds: f64, least: Duration, longest: f64) -> u32 {
    let factor = (least.as_secs_f64() * MARGIN / seconds.max(NOTHING)).min(longest);
    // A cast from float saturates.
    (f64::from(iterations) * factor) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(20);

    /// Iterations found for a guest that needs `start` and then `each` seconds an iteration, and
    /// the number of runs that it took.
    fn calibrated(start: f64, each: f64) -> (u32, u32) {
        let mut iterations = begin(1000, Some(start + each), LEAST);
        for runs in 1.. {
            let seconds = start + each * f64::from(iterations);
            match next(iterations, seconds, LEAST, Duration::ZERO) {
                Some(more) => iterations = more,
                None => return (iterations, runs),
            }
        }
        unreachable!("the loop ends when it returns")
    }

    #[test]
    fn samples_come_out_long_enough_and_soon() {
        for each in [1e-10, 1e-9, 1e-8, 1e-6, 1e-4, 1e-2] {
            let (iterations, runs) = calibrated(1e-6, each);
            let seconds = 1e-6 + each * f64::from(iterations);
            assert!((0.02..0.06).contains(&seconds), "{each}: {iterations} take {seconds}");
            assert!(runs <= 6, "{each}: {runs} runs");
        }
    }

    #[test]
    fn one_long_iteration_is_enough() {
        assert_eq!(begin(1000, Some(0.5), LEAST), 1);
        assert_eq!(next(1, 0.5, LEAST, Duration::ZERO), None);
    }

    #[test]
    fn a_guest_that_takes_no_time_ends_at_the_largest_number() {
        let mut iterations = 1;
        while let Some(more) = next(iterations, 0.0, LEAST, Duration::ZERO) {
            assert!(more > iterations);
            iterations = more;
        }
        assert_eq!(iterations, u32::MAX);
    }

    #[test]
    fn a_time_that_the_clock_cannot_see_leads_to_a_short_step() {
        let resolution = Duration::from_millis(2);
        assert_eq!(next(100, 0.0, LEAST, resolution), Some(1000));
        assert_eq!(next(100, 0.0, LEAST, Duration::ZERO), Some(20_000));
        assert_eq!(next(100, 0.0112, LEAST, resolution), next(100, 0.0112, LEAST, Duration::ZERO));
    }
}
