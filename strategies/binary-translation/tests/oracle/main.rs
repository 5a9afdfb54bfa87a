//! The emulator as oracle: random code under the translator and under interpretation, from the same
//! state, must end in the same state, whatever ends it.
//!
//! The cases are those that the emulator itself is compared with the real CPU by
//! (`emulator/tests/oracle`), in flat segments, with more of what a translator has to replace:
//! stack, calls, loops, system instructions, code that changes itself, pages of all kinds, ring 0.
//! Each runs twice under the translator: with accesses that are innocent until proven guilty, and
//! with all of them guilty, which sends them through the software TLB.
//!
//! `RINGSIDE_TRANSLATOR_CASES` makes the run longer, `RINGSIDE_TRANSLATOR_SEED` starts it at another
//! seed; with one case and the seed that a failure printed, that case is run again.

#[path = "../../../emulator/tests/oracle/case.rs"]
mod case;
mod compare;
#[path = "../../../emulator/tests/oracle/generator.rs"]
mod generator;
mod guest;
#[expect(dead_code, reason = "segments with bases are the emulator's own tests'")]
#[path = "../../../emulator/tests/oracle/layout.rs"]
mod layout;
#[path = "../../../emulator/tests/oracle/random.rs"]
mod random;
mod rules;
mod scene;
mod twist;

use binary_translation::BinaryTranslation;
use compare::{Bench, Verdict};
use std::collections::BTreeMap;

const CASES: u64 = 100_000;
const FIRST_SEED: u64 = 0x0123_4567_0000_0000;
/// Host threads, each with machines of its own.
const THREADS: u64 = 2;
/// Differences of one thread after which it stops.
const MOST_DIFFERENCES: usize = 40;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
}

/// What was found, and in how many cases.
#[derive(Default)]
struct Findings {
    compared: u64,
    excluded: u64,
    /// How many cases ended with each vector, or with none.
    endings: BTreeMap<Option<u8>, u64>,
    /// Differences by class: how many, and the first of them in full.
    differences: BTreeMap<String, (usize, String)>,
}

impl Findings {
    fn add(&mut self, other: Findings) {
        self.compared += other.compared;
        self.excluded += other.excluded;
        for (vector, count) in other.endings {
            *self.endings.entry(vector).or_default() += count;
        }
        for (class, (count, text)) in other.differences {
            self.differences.entry(class).or_insert((0, text)).0 += count;
        }
    }

    /// The most frequent first.
    fn print(&self) {
        let Findings { compared, excluded, endings, differences } = self;
        println!("{compared} compared, {excluded} excluded, ended with vectors {endings:?}");
        let mut classes: Vec<_> = differences.iter().collect();
        classes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (class, (count, text)) in classes {
            println!("{count} x {class}\n{text}");
        }
    }
}

/// Compares the cases of `seeds`; with `show`, lists each before it runs, lest it end the process.
fn compare(seeds: impl Iterator<Item = u64>, show: bool) -> Findings {
    let mut bench = Bench::new();
    let mut findings = Findings::default();
    let mut differences = 0;
    for seed in seeds {
        let mut case = twist::case(seed);
        if show {
            println!("{}", bench.listing(&case));
        }
        match bench.run(&case) {
            Verdict::Excluded => findings.excluded += 1,
            Verdict::Same(vector) => {
                findings.compared += 1;
                *findings.endings.entry(vector).or_default() += 1;
            }
            Verdict::Different(mut found) => {
                findings.compared += 1;
                bench.shrink(&mut case, &mut found);
                let text = format!("seed {seed:#x}\n{}{}", bench.listing(&case), found.text());
                let class = bench.class(&case, &found);
                findings.differences.entry(class).or_insert((0, text)).0 += 1;
                differences += 1;
                if differences == MOST_DIFFERENCES {
                    break;
                }
            }
        }
    }
    findings
}

fn is_supported() -> bool {
    let support = binary_translation::support();
    let full = support == strategy::Support::Full;
    if !full {
        println!("not compared: {support:?}");
    }
    full
}

/// What compares would be worth nothing if it did not see a wrong flag.
#[test]
fn a_planted_error_is_found() {
    if !is_supported() {
        return;
    }
    let translator = BinaryTranslation::with_planted_error().expect("a translator");
    let mut bench = Bench::of(vec![("with an error", translator)]);
    let found = (FIRST_SEED..FIRST_SEED + CASES).find_map(|seed| {
        let mut case = twist::case(seed);
        let Verdict::Different(mut found) = bench.run(&case) else { return None };
        bench.shrink(&mut case, &mut found);
        Some(bench.class(&case, &found))
    });
    let found = found.expect("a difference");
    assert!(found.contains("Adc_r32_rm32") || found.contains("Adc_rm32_r32"), "{found}");
}

#[test]
fn random_code_ends_under_the_translator_as_under_interpretation() {
    if !is_supported() {
        return;
    }
    let first = number_from("RINGSIDE_TRANSLATOR_SEED", FIRST_SEED);
    let cases = number_from("RINGSIDE_TRANSLATOR_CASES", CASES);
    println!("{cases} cases, seeds {first:#x} to {:#x}", first.wrapping_add(cases - 1));
    let mut findings = Findings::default();
    std::thread::scope(|scope| {
        let start = |thread: u64| {
            let share = cases.div_ceil(THREADS);
            let numbers = thread * share..cases.min((thread + 1) * share);
            let seeds = numbers.map(move |number| first.wrapping_add(number));
            scope.spawn(move || compare(seeds, cases == 1))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        for thread in threads {
            findings.add(thread.join().expect("a thread that compares"));
        }
    });
    findings.print();
    let classes = findings.differences.len();
    assert!(classes == 0, "{classes} classes of differences");
    assert!(findings.compared >= cases * 8 / 10, "too few of {cases} cases could be compared");
}
