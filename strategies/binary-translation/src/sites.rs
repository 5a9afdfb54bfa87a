//! What was learned about single instructions: *innocent until proven guilty* (Adams & Agesen 2006).
//!
//! An access begins as a plain one through the window. One that faults again and again is found
//! guilty, and from then on looks its page up in the software TLB.

use rustc_hash::FxHashMap;

/// Faults after which an access is guilty.
const PATIENCE: u32 = 2;
/// Faults after which nothing but the emulator is left.
const LAST_PATIENCE: u32 = 6;

/// Sites in one page that faulted in vain after which all of the page is guilty: such code runs astray,
/// as over zeroed memory, and would fault at each instruction.
const PAGE_PATIENCE: u32 = 64;
const PAGE: u64 = 4096;

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
    /// Sites found so far, by page.
    pages: FxHashMap<u64, u32>,
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
        if *faults == 1 {
            let sites = self.pages.entry(physical / PAGE).or_default();
            *sites += 1;
            return *sites >= PAGE_PATIENCE;
        }
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
            || self.pages.get(&(physical / PAGE)).is_some_and(|&sites| sites >= PAGE_PATIENCE)
    }

    /// Gives the guilty another chance: returns those whose units are to be translated anew. One
    /// more fault in vain, and they are guilty again.
    pub(crate) fn parole(&mut self) -> Vec<std::ops::Range<u64>> {
        let pages = self.pages.drain().filter(|&(_, sites)| sites >= PAGE_PATIENCE);
        let mut released: Vec<_> = pages.map(|(page, _)| page * PAGE..(page + 1) * PAGE).collect();
        let guilty = |(_, faults): &(&u64, &mut u32)| **faults >= PATIENCE;
        released.extend(self.faults.iter_mut().filter(guilty).map(|(&physical, faults)| {
            *faults = PATIENCE - 1;
            physical..physical + 1
        }));
        released
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
