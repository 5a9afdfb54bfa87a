//! Random instructions in random states: nothing a guest does panics the monitor, and single steps
//! agree with decoded blocks.
//!
//! A case is a seed, and for the regression corpus (`tests/corpus/instructions.txt`) a seed with the
//! instruction bytes that once failed. `RINGSIDE_FUZZ_CASES` and `RINGSIDE_FUZZ_SEED` make runs
//! longer and different.

mod code;
mod compare;
mod random;
mod state;

use compare::{Pair, Verdict};
use random::Random;
use state::Start;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CASES: u64 = 100_000;
const THREADS: u64 = 2;
/// Cases between two looks at the memory that cases are not expected to touch.
const BATCH: u64 = 256;

/// Runs the case of `seed`; `code` replaces its instruction bytes.
fn run_case(pair: &mut Pair, seed: u64, code: Option<&[u8]>) -> Verdict {
    let mut random = Random::new(seed);
    let generated = code::generate(&mut random);
    let start = Start::new(&mut random, code.unwrap_or(&generated));
    pair.run(&mut random, &start)
}

/// The same with what went wrong as a text that goes into the corpus.
fn check(pair: &mut Pair, seed: u64, code: Option<&[u8]>) -> Result<bool, String> {
    let verdict = catch_unwind(AssertUnwindSafe(|| run_case(pair, seed, code)));
    let trouble = match verdict {
        Ok(Verdict::Same) => return Ok(true),
        Ok(Verdict::Incomparable) => return Ok(false),
        Ok(Verdict::Different(difference)) => difference,
        Err(_) => {
            *pair = Pair::new();
            "a panic (see above)".to_owned()
        }
    };
    let generated = code::generate(&mut Random::new(seed));
    let hex: String = code.unwrap_or(&generated).iter().map(|b| format!("{b:02x}")).collect();
    Err(format!("{seed:#018x} {hex}\n{trouble}"))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs `seeds`; returns how many could be compared, and all failures.
fn run_range(seeds: std::ops::Range<u64>) -> (u64, Vec<String>) {
    let mut pair = Pair::new();
    let (mut compared, mut failures) = (0, Vec::new());
    for seed in seeds.clone() {
        match check(&mut pair, seed, None) {
            Ok(true) => compared += 1,
            // It may have written different things anywhere.
            Ok(false) => _ = pair.compare_the_rest(),
            Err(failure) => failures.push(failure),
        }
        if (seed - seeds.start) % BATCH == BATCH - 1 && !pair.compare_the_rest() {
            failures.push(format!("memory behind the cases' own differs, up to seed {seed:#x}"));
        }
        if failures.len() >= 8 {
            break;
        }
    }
    (compared, failures)
}

#[test]
fn random_instructions_never_panic_and_blocks_agree_with_steps() {
    let first = setting("RINGSIDE_FUZZ_SEED", 1) << 32;
    let cases = setting("RINGSIDE_FUZZ_CASES", CASES);
    println!("seeds {first:#x} to {:#x}", first + cases);
    let share = cases.div_ceil(THREADS);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let start = first + number * share;
                scope.spawn(move || run_range(start..start + share))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a fuzzing thread")).collect()
    });
    let failures: Vec<_> = results.iter().flat_map(|(_, failures)| failures.clone()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let compared: u64 = results.iter().map(|(compared, _)| compared).sum();
    assert!(compared > cases * 3 / 4, "only {compared} of {cases} cases could be compared");
}

#[test]
fn inputs_that_once_failed_pass() {
    let corpus = include_str!("../corpus/instructions.txt");
    let mut pair = Pair::new();
    for line in corpus.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (seed, hex) = line.split_once(' ').expect("a seed and bytes");
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16).expect("a hex seed");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex bytes");
        let code: Vec<u8> = (0..hex.len() / 2).map(|number| byte(number * 2)).collect();
        if let Err(failure) = check(&mut pair, seed, Some(&code)) {
            panic!("{failure}");
        }
    }
}
