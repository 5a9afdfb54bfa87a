//! What each strategy has had of the time, and what came of it.

use super::child::Told;
use super::repertoire;
use crate::strategies::{self, Variant};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use strategy::StrategyId;

/// Shares of the time. The reference held against itself shows little; a strategy that works here in a
/// way of its own (KVM in software) is slow, and shows mostly what its host's module does.
const USUAL: u32 = 4;
const SUBSTITUTED: u32 = 2;
const REFERENCE: u32 = 1;

/// One strategy.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) strategy: Variant,
    weight: u32,
    pub(super) spent: Duration,
    /// Programs that have ended.
    pub(super) programs: u64,
    instructions: u64,
    stretches: u64,
    /// How they ended, and why differences were none.
    ends: BTreeMap<String, u64>,
    stated: BTreeMap<String, u64>,
    open: BTreeMap<String, u64>,
    undecided: u64,
    /// Differences.
    pub(super) different: u64,
    /// Whether it is left alone from now on.
    pub(super) done: bool,
}

impl Share {
    pub(super) fn new(strategy: Variant) -> Share {
        let weight = match strategy.id {
            StrategyId::Interpretation => REFERENCE,
            id if strategies::is_substituted(id) => SUBSTITUTED,
            _ => USUAL,
        };
        Share {
            strategy,
            weight,
            spent: Duration::ZERO,
            programs: 0,
            instructions: 0,
            stretches: 0,
            ends: BTreeMap::new(),
            stated: BTreeMap::new(),
            open: BTreeMap::new(),
            undecided: 0,
            different: 0,
            done: false,
        }
    }

    /// Counts what a process has told.
    pub(super) fn add(&mut self, told: &Told) {
        use super::child::Ended;
        for line in &told.lines {
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let text = (*words.get(4).unwrap_or(&"")).to_owned();
            self.programs += 1;
            self.instructions = self.instructions.saturating_add(number(2).unwrap_or(0));
            self.stretches = self.stretches.saturating_add(number(3).unwrap_or(0));
            match words.first() {
                Some(&"same") => *self.ends.entry(text).or_default() += 1,
                Some(&"stated") => *self.stated.entry(text).or_default() += 1,
                Some(&"undecided") => self.undecided += 1,
                Some(&"open") => *self.open.entry(text).or_default() += 1,
                _ => {}
            }
        }
        if let Ended::Died { .. } = told.ended {
            self.programs += 1;
        }
    }
}

/// Who is next: the one that has had the least of its share.
pub(super) fn next(shares: &[Share], most: u64) -> Option<usize> {
    let waiting = shares.iter().enumerate();
    let waiting = waiting.filter(|(_, share)| !share.done && share.programs < most);
    waiting.min_by_key(|(_, share)| share.spent / share.weight).map(|(number, _)| number)
}

/// The table at the end.
pub(super) fn summary(shares: &[Share], seed: u32) -> String {
    let mut text = format!("\nSeed {seed}; each strategy against the reference:\n\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<22} {:>9} {:>13} {:>10} {:>8} {:>7} {:>6} {:>9} {:>10}",
        "strategy",
        "programs",
        "instructions",
        "compared",
        "seconds",
        "stated",
        "open",
        "undecided",
        "different"
    );
    for share in shares {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let _ = writeln!(
            text,
            "{:<22} {:>9} {:>13} {:>10} {:>8} {:>7} {:>6} {:>9} {:>10}",
            share.strategy.name(),
            share.programs,
            share.instructions,
            share.stretches,
            share.spent.as_secs(),
            sum(&share.stated),
            sum(&share.open),
            share.undecided,
            share.different,
        );
    }
    for share in shares {
        if let Some(remark) = repertoire::remark(share.strategy) {
            let _ = writeln!(text, "{}: {remark}", share.strategy);
        }
        let parts = [("ended", &share.ends), ("stated", &share.stated), ("open", &share.open)];
        for (word, counts) in parts {
            for (what, count) in counts {
                let _ = writeln!(text, "{} {word}: {count} x {what}", share.strategy);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::child::Ended;
    use super::*;

    #[test]
    fn who_has_had_least_of_its_share_is_next() {
        let mut shares: Vec<_> = [StrategyId::Interpretation, StrategyId::BinaryTranslation]
            .map(|id| Share::new(id.into()))
            .into();
        shares[1].weight = USUAL;
        assert_eq!(next(&shares, 10), Some(0));
        shares[0].spent = Duration::from_secs(1);
        shares[1].spent = Duration::from_secs(3);
        assert_eq!(next(&shares, 10), Some(1));
        shares[1].programs = 10;
        assert_eq!(next(&shares, 10), Some(0));
        shares[0].done = true;
        assert_eq!(next(&shares, 10), None);
    }

    #[test]
    fn every_kind_of_end_is_counted_and_shown() {
        let mut share = Share::new(StrategyId::BinaryTranslation.into());
        let lines = [
            "same 1 100 3 end",
            "stated 2 10 1 Pushf: why",
            "open 3 5 1 Enter: because",
            "undecided 4 2 1 ",
        ];
        let lines = lines.map(str::to_owned).into();
        share.add(&Told { lines, ended: Ended::Well });
        assert_eq!((share.programs, share.instructions, share.stretches), (4, 117, 6));
        assert_eq!(share.undecided, 1);
        let text = summary(&[share], 1);
        for words in ["ended: 1 x end", "stated: 1 x Pushf: why", "open: 1 x Enter: because"] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
    }
}
