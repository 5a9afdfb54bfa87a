//! What was learned about single instructions: *innocent until proven guilty* (Adams & Agesen 2006).
//!
//! An access begins as a plain one through the window. One that faults again and again is found
//! guilty, and from then on looks its page up in the software TLB.

use rustc_hash::FxHashMap;

/// Faults after which an access is guilty.
const PATIENCE: u32 = 2;
/// Faults after which nothing but the emulator is left.
const LAST_PATIENCE: u32 = 6;

/// What tests ask of a translator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Testing {
    /// Every access is guilty before it was tried.
    pub(crate) all_guilty: bool,
    /// One instruction is translated wrongly.
    pub(crate) planted_error: bool,
}

/// What is known, by the physical address of the instruction.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    faults: FxHashMap<u64, u32>,
    testing: Testing,
}

impl Sites {
    /// Nothing is known, and this is asked for.
    pub(crate) fn for_tests(testing: Testing) -> Sites {
        Sites { testing, ..Sites::default() }
    }

    /// Whether an error was asked for.
    pub(crate) fn has_planted_error(&self) -> bool {
        self.testing.planted_error
    }

    /// Notes that an access faulted in vain: the window was not what it needed. True when it has
    /// just been found guilty, and its unit is to be translated anew.
    pub(crate) fn accuse(&mut self, physical: u64) -> bool {
        let faults = self.faults.entry(physical).or_default();
        *faults += 1;
        *faults == PATIENCE || *faults == LAST_PATIENCE
    }

    /// Whether the instruction goes on faulting although it was found guilty.
    pub(crate) fn is_hopeless(&self, physical: u64) -> bool {
        self.faults.get(&physical).is_some_and(|&faults| faults >= LAST_PATIENCE)
    }

    /// Whether accesses go through the software TLB.
    pub(crate) fn is_soft(&self, physical: u64) -> bool {
        self.testing.all_guilty
            || self.faults.get(&physical).is_some_and(|&faults| faults >= PATIENCE)
    }

    /// Gives the guilty another chance: returns those whose units are to be translated anew. One
    /// more fault in vain, and they are guilty again.
    pub(crate) fn parole(&mut self) -> Vec<u64> {
        let guilty = |(_, faults): &(&u64, &mut u32)| **faults >= PATIENCE;
        let released = self.faults.iter_mut().filter(guilty).map(|(&physical, faults)| {
            *faults = PATIENCE - 1;
            physical
        });
        released.collect()
    }

    /// Forgets about the instructions in a range: they were overwritten.
    pub(crate) fn forget(&mut self, physical: std::ops::Range<u64>) {
        if self.faults.is_empty() {
            return;
        }
        if physical.end - physical.start < 64 {
            for address in physical {
                self.faults.remove(&address);
            }
        } else {
            self.faults.retain(|address, _| !physical.contains(address));
        }
    }
}
