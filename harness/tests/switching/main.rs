//! A running guest changes its strategy every few thousand instructions and still gets its checksum.
//!
//! Each trial is a set of strategies and a workload, `interpretation+hardware-assist/fib`: pairs of
//! strategies that work here and all of them together, and each named setting of a strategy with the
//! reference and with the strategy's usual one, over the workloads whose code can be virtualized
//! by all of them. When a stretch ends and which strategy comes next are random; the seed is printed when a
//! trial fails, and `RINGSIDE_SWITCHING_SEED` starts at another one.
//!
//! The trials `saved:…` do more: between two stretches the machine is saved now and then, and all go
//! on with what is restored from that.
//!
//! Trials run one after the other: direct execution has one window in a process.

mod guest;

use guest::Guest;
use libtest_mimic::{Arguments, Failed, Trial};
use ringside::strategies::{self, Variant};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy, StrategyId, Support};
use workloads::{Group, Workload};

/// The seed of the first trial; the others count up.
const FIRST_SEED: u64 = 0x5317_c4e5_0000_0000;

/// The longest stretch of a strategy at first, in instructions.
const STRETCH: u64 = 8_000;

/// The same for direct execution. It takes an instruction limit for the time that so many take, and
/// after a switch that time goes into showing its window's pages again before it goes anywhere.
const NATIVE_STRETCH: u64 = 2_000_000;

/// After so many stretches all become twice as long, for there are guests of a hundred million
/// instructions.
const PATIENCE: u64 = 50;

/// A trial counts when each strategy has brought the guest forward so many times. With fewer, the
/// guest was too short: it runs again with more iterations.
const ENOUGH: u64 = 4;
const MORE: u32 = 6;

/// Of so many changes of strategy one goes over a saved machine, where that is tried.
const SAVING: u64 = 6;

const TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let seed = match std::env::var("RINGSIDE_SWITCHING_SEED") {
        Ok(text) => text.parse().expect("RINGSIDE_SWITCHING_SEED is a number"),
        Err(_) => FIRST_SEED,
    };
    let usable = usable();
    let all: Vec<Variant> = usable.iter().map(|&id| id.into()).collect();
    let sets = sets(&all);
    let mut trials = Vec::new();
    for workload in workloads::all().into_iter().filter(is_virtualizable) {
        let sets = sets.iter().map(|set| (set, false)).chain([(&all, true)]);
        for (set, saves) in sets {
            let names: Vec<&str> = set.iter().map(|variant| variant.name()).collect();
            let prefix = if saves { "saved:" } else { "" };
            let name = format!("{prefix}{}/{}", names.join("+"), workload.name);
            let (set, seed) = (set.clone(), seed.wrapping_add(trials.len() as u64));
            trials.push(Trial::test(name, move || {
                trial(&set, saves, &workload, seed)
                    .map_err(|error| Failed::from(format!("{error} (seed {seed})")))
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What all strategies run right: sensitive instructions are what trap-and-emulate gets wrong. The
/// simulator group is about costs of single operations that the others have as well.
fn is_virtualizable(workload: &Workload) -> bool {
    matches!(workload.group, Group::Nano | Group::Compute | Group::System)
}

/// The strategies that work on this host; says which do not.
fn usable() -> Vec<StrategyId> {
    let works = |id: &StrategyId| match strategies::support(*id) {
        Support::Missing(why) => {
            eprintln!("{id} does not work here and is left out: {why}");
            false
        }
        Support::Full | Support::Qualified(_) => true,
    };
    StrategyId::ALL.into_iter().filter(|&id| strategies::is_built(id)).filter(works).collect()
}

/// All pairs, all of them together, and pairs with named settings.
fn sets(all: &[Variant]) -> Vec<Vec<Variant>> {
    let pairs = all.iter().enumerate().flat_map(|(index, &first)| {
        all[index + 1..].iter().map(move |&second| vec![first, second])
    });
    let named = Variant::all().filter(|variant| !all.contains(variant));
    let named = named.filter(|named| all.iter().any(|variant| variant.id == named.id));
    let with_named = named.flat_map(|named| {
        let others = [StrategyId::Interpretation, named.id].map(Variant::from);
        others.map(|other| vec![other, named])
    });
    pairs.chain([all.to_vec()]).chain(with_named).collect()
}

/// One strategy in a trial.
struct Turn {
    variant: Variant,
    strategy: Box<dyn Strategy>,
    /// Its longest stretch, in instructions: more where it got nowhere.
    longest: u64,
    /// How many of its stretches brought the guest forward.
    moved: u64,
}

impl Turn {
    fn new(variant: Variant) -> Result<Turn, String> {
        let strategy = strategies::make(variant).map_err(|error| format!("{variant}: {error}"))?;
        let longest = match variant.id {
            StrategyId::TrapAndEmulate => NATIVE_STRETCH,
            _ => STRETCH,
        };
        Ok(Turn { variant, strategy, longest, moved: 0 })
    }

    /// Begins anew: another machine is to be run.
    fn renew(&mut self) -> Result<(), String> {
        let variant = self.variant;
        self.strategy = strategies::make(variant).map_err(|error| format!("{variant}: {error}"))?;
        Ok(())
    }

    /// Runs the guest for one stretch.
    fn run(&mut self, guest: &mut Guest, random: &mut Random) -> Result<Stop, String> {
        let limit = Limit::instructions(1 + random.below(self.longest));
        let before = guest.machine.cpu.clone();
        let stop = self.strategy.run(&mut guest.machine, &limit);
        if guest.machine.cpu == before {
            self.longest = self.longest.saturating_mul(2);
        } else {
            self.moved += 1;
        }
        stop.map_err(|error| format!("{}: {error}", self.variant))
    }
}

fn trial(set: &[Variant], saves: bool, workload: &Workload, seed: u64) -> Result<(), String> {
    let random = &mut Random(seed);
    let mut iterations = workload.first_iterations;
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let mut guest = Guest::boot(workload, iterations)?;
        let mut turns =
            set.iter().map(|&variant| Turn::new(variant)).collect::<Result<Vec<_>, _>>()?;
        let stop = run(&mut guest, &mut turns, saves, random, deadline)?;
        guest.check(stop).map_err(|error| format!("{iterations} iterations: {error}"))?;
        if turns.iter().all(|turn| turn.moved >= ENOUGH) {
            return Ok(());
        }
        iterations = iterations.saturating_mul(MORE);
    }
    Err("not every strategy brought the guest forward".to_owned())
}

/// Runs the guest to its end under one strategy after the other.
fn run(
    guest: &mut Guest,
    turns: &mut [Turn],
    saves: bool,
    random: &mut Random,
    deadline: Instant,
) -> Result<Stop, String> {
    let (mut current, mut stretches) = (0, 0);
    while Instant::now() < deadline {
        let step = 1 + random.below(turns.len() as u64 - 1);
        current = (current + step as usize) % turns.len();
        match turns[current].run(guest, random)? {
            Stop::Limit => {}
            stop => return Ok(stop),
        }
        if saves && random.below(SAVING) == 0 {
            guest.save_and_restore()?;
            turns.iter_mut().try_for_each(Turn::renew)?;
        }
        stretches += 1;
        if stretches % PATIENCE == 0 {
            turns.iter_mut().for_each(|turn| turn.longest = turn.longest.saturating_mul(2));
        }
    }
    Err(format!("not finished after {stretches} stretches"))
}

/// Splitmix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound.max(1)
    }
}
