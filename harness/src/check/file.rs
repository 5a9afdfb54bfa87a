//! Programs of a series, and the file that has one.

use super::repertoire;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;
use strategy::StrategyId;
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
    pub(super) fn programs(self, id: StrategyId) -> impl Iterator<Item = (u64, Program)> {
        let numbers = self.first..self.first.saturating_add(self.count);
        numbers.map(move |number| (number, program(id, self.seed, number)))
    }
}

/// A program of a series. Without an instruction that is not asked of the strategy, on purpose.
pub(super) fn program(id: StrategyId, seed: u64, number: u64) -> Program {
    let seeds = Random::new(seed).number();
    let seed = Random::new(seeds.wrapping_add(number)).number();
    let allows = |instruction: &_| repertoire::exclusion(id, instruction).is_none();
    Program::generate(seed, &Repertoire { allows: &allows, kept_out: repertoire::kept_out(id) })
}

/// A program that made a difference, as it is kept in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// The version of the form.
    pub(super) version: u32,
    /// The strategy.
    pub(super) strategy: StrategyId,
    /// Programs that have to run before it in the same process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Series>,
    /// The program.
    pub(super) program: Program,
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

    #[test]
    fn a_saved_program_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        for number in 0..20 {
            let saved = Saved {
                version: VERSION,
                strategy: StrategyId::BinaryTranslation,
                after: (number % 2 == 0).then_some(Series { seed: 1, first: 0, count: number }),
                program: program(StrategyId::BinaryTranslation, 5, number),
            };
            write(&path, &saved, "two\nlines").unwrap();
            assert_eq!(read(&path).unwrap(), saved);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_programs() {
        let series = Series { seed: 9, first: 3, count: 5 };
        let of = |id| series.programs(id).collect::<Vec<_>>();
        for id in StrategyId::ALL {
            assert_eq!(of(id), of(id));
        }
        let numbers: Vec<_> = of(StrategyId::Interpretation).iter().map(|each| each.0).collect();
        assert_eq!(numbers, [3, 4, 5, 6, 7]);
    }
}
