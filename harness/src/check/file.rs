//! Programs of a series, and the file that has one.

use super::repertoire;
use crate::strategies::Variant;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;
use workloads::programs::{Program, Random, Repertoire, VERSION};

/// Programs that follow from a seed, each from its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Series {
    /// The seed.
    pub(super) seed: u64,
    /// The number of the first.
    pub(super) first: u64,
    /// How many they are.
    pub(super) count: u64,
}

impl Series {
    /// They and their numbers, for a strategy.
    pub(super) fn programs(self, strategy: Variant) -> impl Iterator<Item = (u64, Program)> {
        let numbers = self.first..self.first.saturating_add(self.count);
        numbers.map(move |number| (number, program(strategy, self.seed, number)))
    }
}

/// A program of a series. Without an instruction that is not asked of the strategy, on purpose.
pub(super) fn program(strategy: Variant, seed: u64, number: u64) -> Program {
    let seeds = Random::new(seed).number();
    let seed = Random::new(seeds.wrapping_add(number)).number();
    let allows = |instruction: &_| repertoire::exclusion(strategy, instruction).is_none();
    Program::generate(
        seed,
        &Repertoire { allows: &allows, kept_out: repertoire::kept_out(strategy) },
    )
}

/// A program that made a difference, as it is kept in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// The version of the form.
    pub(super) version: u32,
    /// The strategy.
    #[serde(with = "by_name")]
    pub(super) strategy: Variant,
    /// Programs that have to run before it in the same process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Series>,
    /// The program.
    pub(super) program: Program,
}

/// A strategy as the name that it has everywhere.
mod by_name {
    use crate::config;
    use crate::strategies::{Options, Variant};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(strategy: &Variant, to: S) -> Result<S::Ok, S::Error> {
        strategy.name().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Variant, D::Error> {
        let name = String::deserialize(from)?;
        config::variant(&name, &Options::default()).map_err(D::Error::custom)
    }
}

/// Reads such a file.
///
/// # Errors
/// When it cannot be read or is none.
pub(super) fn read(path: &Path) -> anyhow::Result<Saved> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    let saved: Saved = toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{name}: {}", error.to_string().replace('\n', " ")))?;
    if saved.version != VERSION {
        bail!("{name}: version {} of a program; this is version {VERSION}", saved.version);
    }
    saved.program.assemble().map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    Ok(saved)
}

/// Writes such a file, with what is known about it as comments.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, saved: &Saved, about: &str) -> anyhow::Result<()> {
    let mut text = String::from("# Again: ringside check --reproduce FILE\n#\n");
    for line in about.lines().chain(listing(&saved.program).lines()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "#{}{line}", if line.is_empty() { "" } else { " " });
    }
    text.push('\n');
    text.push_str(&toml::to_string(saved)?);
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// The code of a program, disassembled.
fn listing(program: &Program) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut text = String::from("\nThe program:\n");
    let places = program.places().unwrap_or_default();
    for (block, place) in program.blocks.iter().zip(places) {
        let _ = writeln!(text, "  {:?}, from {place:#x}", block.mode);
        for (item, start) in block.code.iter().zip(block.boundaries(place)) {
            let decoder = Decoder::with_ip(
                block.mode.bits(),
                &item.bytes,
                u64::from(start),
                DecoderOptions::NONE,
            );
            for instruction in decoder {
                let mut meaning = String::new();
                IntelFormatter::new().format(&instruction, &mut meaning);
                let link = item.link.map_or(String::new(), |link| {
                    format!("  ({:?} link to item {})", link.kind, link.target)
                });
                let _ = writeln!(text, "    {:08x}  {meaning}{link}", instruction.ip());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strategy::StrategyId;

    #[test]
    fn a_saved_program_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let strategies: Vec<_> = Variant::all().collect();
        for number in 0..20 {
            let strategy = strategies[number as usize % strategies.len()];
            let saved = Saved {
                version: VERSION,
                strategy,
                after: (number % 2 == 0).then_some(Series { seed: 1, first: 0, count: number }),
                program: program(strategy, 5, number),
            };
            write(&path, &saved, "two\nlines").unwrap();
            assert_eq!(read(&path).unwrap(), saved);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_programs() {
        let series = Series { seed: 9, first: 3, count: 5 };
        let of = |id| series.programs(id).collect::<Vec<_>>();
        for id in Variant::all() {
            assert_eq!(of(id), of(id));
        }
        let numbers: Vec<_> =
            of(StrategyId::Interpretation.into()).iter().map(|each| each.0).collect();
        assert_eq!(numbers, [3, 4, 5, 6, 7]);
    }
}
