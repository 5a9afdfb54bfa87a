//! The CPU as oracle: random user-level code on the real CPU, in compatibility mode, and in the
//! emulator; what ends it, registers, flags, memory, and x87, MMX and SSE state must be equal.
//!
//! `RINGSIDE_ORACLE_CASES` makes the run longer, `RINGSIDE_ORACLE_SEED` starts it at another seed;
//! with one case and the seed that a failure printed, that case is run again.

mod bench;
mod case;
mod emulated;
mod ending;
mod generator;
mod layout;
mod native;
mod random;
mod rules;

use bench::{Bench, Verdict};
use generator::Mix;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use layout::{ARENA_DISTANCE, ARENAS, Flavour};
use std::collections::{BTreeMap, HashSet};

/// Cases of each test.
const CASES: u64 = 60_000;
const FIRST_SEED: u64 = 0x0123_4567_0000_0000;
/// Host threads of each test; each has an arena of its own.
const THREADS: u64 = 2;
/// Differences of one thread after which it stops.
const MOST_DIFFERENCES: usize = 400;

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
    /// How many cases ended with each vector.
    vectors: BTreeMap<u8, u64>,
    /// Differences by class: how many, and the first of them in full.
    differences: BTreeMap<String, (usize, String)>,
}

impl Findings {
    fn add(&mut self, other: Findings) {
        self.compared += other.compared;
        self.excluded += other.excluded;
        for (vector, count) in other.vectors {
            *self.vectors.entry(vector).or_default() += count;
        }
        for (class, (count, text)) in other.differences {
            self.differences.entry(class).or_insert((0, text)).0 += count;
        }
    }

    /// The most frequent first.
    fn print(&self) {
        let Findings { compared, excluded, vectors, differences } = self;
        println!("{compared} compared, {excluded} excluded, ended with vectors {vectors:?}");
        let mut classes: Vec<_> = differences.iter().collect();
        classes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (class, (count, text)) in classes {
            println!("{count} x {class}\n{text}");
        }
    }
}

/// Compares the cases of `seeds`; with `show`, lists each before it runs, lest it end the process.
fn compare(mix: Mix, seeds: impl Iterator<Item = u64>, arena: u32, show: bool) -> Findings {
    let mut bench = Bench::new(arena);
    let mut findings = Findings::default();
    let mut differences = 0;
    for seed in seeds {
        let mut case = bench.case(mix, seed);
        if show {
            println!("{}", bench.listing(&case));
        }
        match bench.run(&case) {
            Verdict::Excluded => findings.excluded += 1,
            Verdict::Same(ending) => {
                findings.compared += 1;
                *findings.vectors.entry(ending.event.vector).or_default() += 1;
            }
            Verdict::Different(mut found) => {
                findings.compared += 1;
                bench.shrink(&mut case, &mut found);
                let text = bench.describe(&case, &found);
                findings.differences.entry(bench.class(&case, &found)).or_insert((0, text)).0 += 1;
                differences += 1;
                if differences == MOST_DIFFERENCES {
                    break;
                }
            }
        }
    }
    findings
}

/// One test: `first_arena` is its own, since tests run side by side.
fn compare_all(mix: Mix, first_arena: u32) {
    let first = number_from("RINGSIDE_ORACLE_SEED", FIRST_SEED);
    let cases = number_from("RINGSIDE_ORACLE_CASES", CASES);
    println!("{mix:?}: {cases} cases, seeds {first:#x} to {:#x}", first.wrapping_add(cases - 1));
    let mut findings = Findings::default();
    std::thread::scope(|scope| {
        let start = |thread: u64| {
            let numbers = (thread..cases).step_by(THREADS as usize);
            let seeds = numbers.map(move |number| first.wrapping_add(number));
            let arena = first_arena + thread as u32 * ARENA_DISTANCE;
            scope.spawn(move || compare(mix, seeds, arena, cases == 1))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        for thread in threads {
            findings.add(thread.join().expect("a thread that compares"));
        }
    });
    findings.print();
    let classes = findings.differences.len();
    assert!(classes == 0, "{classes} classes of differences");
    assert!(findings.compared >= cases * 9 / 10, "too few of {cases} cases could be compared");
}

#[test]
fn random_integer_code_ends_as_on_the_real_cpu() {
    compare_all(Mix::Integer, ARENAS.start);
}

#[test]
fn random_code_of_all_kinds_ends_as_on_the_real_cpu() {
    compare_all(Mix::All, ARENAS.start + THREADS as u32 * ARENA_DISTANCE);
}

/// What is not generated is not compared: nearly all of the encodings must be.
#[test]
fn random_code_reaches_the_instruction_set() {
    let comparable = |code: &Code| {
        let (mut instruction, opcode) = (Instruction::new(), code.op_code());
        instruction.set_code(*code);
        // What the decoder shows as FWAIT and another instruction has no FWAIT of its own.
        opcode.is_instruction()
            && opcode.mode32()
            && !opcode.fwait()
            && !instruction.is_invalid()
            && rules::exclusion(&instruction).is_none()
            && !rules::always_faults(&instruction)
    };
    let mut missing: HashSet<Code> = Code::values().filter(comparable).collect();
    let all = missing.len();
    for seed in 0..CASES {
        let case = generator::case(&Flavour::ALL, Mix::All, FIRST_SEED + seed, ARENAS.start);
        for item in &case.items {
            let mut decoder = Decoder::new(case.flavour.bits(), &item.bytes, DecoderOptions::NONE);
            missing.remove(&decoder.decode().code());
        }
    }
    println!("{} of {all} encodings are not generated: {missing:?}", missing.len());
    assert!(missing.len() * 50 < all, "{} of {all} encodings are not generated", missing.len());
}
