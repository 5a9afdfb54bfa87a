//! What a run does besides running its guest: go on under other strategies, save the machine, be
//! recorded, replayed or debugged. Read from the options here, for the guest's process to carry out.

use crate::config::{self, Time, Vm};
use crate::strategies::{Options, Variant};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use strategy::StrategyId;

/// The options for that.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct CourseOptions {
    /// Go on under another strategy, each time that --after gives; as often as you like
    #[arg(long, value_name = "STRATEGY", requires = "after")]
    pub then: Vec<String>,
    /// How long the strategy before it runs, such as 5s: one for each --then
    #[arg(long, value_name = "TIME", requires = "then")]
    pub after: Vec<String>,
    /// Save the machine when it has run for this time, such as 5s=FILE, and go on
    #[arg(long, value_name = "TIME=FILE")]
    pub save_at: Vec<String>,
    /// Record what the guest gets from outside
    #[arg(long, value_name = "FILE", conflicts_with_all = ["then", "save_at"])]
    pub record: Option<PathBuf>,
    /// Give the guest what was recorded, under interpretation, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["then", "save_at", "record"])]
    pub replay: Option<PathBuf>,
    /// Wait for gdb at this port of 127.0.0.1 before the first instruction (0: any that is free)
    #[arg(long, value_name = "PORT", conflicts_with_all = ["record", "replay"])]
    pub gdb: Option<u16>,
}

/// What the guest's process is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The machine.
    pub(super) vm: Vm,
    /// What is done with it.
    pub(super) course: Course,
}

/// What is done with a machine.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Course {
    /// Strategies after the first, in their order.
    pub(super) turns: Vec<Turn>,
    /// When the machine is saved, in the order of time.
    pub(super) saves: Vec<Save>,
    /// The file for the log of this run.
    pub(super) record: Option<PathBuf>,
    /// The log from which this run is repeated.
    pub(super) replay: Option<PathBuf>,
}

impl Course {
    /// Whether the run writes or reads a log. It then ends where the guest resets itself.
    pub(super) fn has_log(&self) -> bool {
        self.record.is_some() || self.replay.is_some()
    }
}

/// A change of strategy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Turn {
    /// To this one.
    pub(super) to: Variant,
    /// When the guest has run for so long since the beginning.
    pub(super) at: Duration,
}

/// A machine to be saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Save {
    /// When the guest has run for so long.
    pub(super) at: Duration,
    /// Into this file.
    pub(super) file: PathBuf,
}

impl Plan {
    /// The plan for a machine and the options. Whatever the machine's description says, a log is
    /// replayed under interpretation.
    ///
    /// # Errors
    /// When the options make no sense.
    pub(super) fn new(
        mut vm: Vm,
        options: &CourseOptions,
        asked: Option<&str>,
    ) -> anyhow::Result<Plan> {
        let course = Course {
            turns: turns(options, &vm.options)?,
            saves: saves(options)?,
            record: options.record.clone(),
            replay: options.replay.clone(),
        };
        if course.replay.is_some() {
            let other = asked.filter(|_| vm.strategy.id != StrategyId::Interpretation);
            if let Some(other) = other {
                bail!("--replay: a log is replayed under interpretation, not {other}");
            }
            vm.strategy = StrategyId::Interpretation.into();
        }
        Ok(Plan { vm, course })
    }

    /// The strategies that it takes, in the order of their turns.
    pub(super) fn strategies(&self) -> Vec<Variant> {
        let first = std::iter::once(self.vm.strategy);
        first.chain(self.course.turns.iter().map(|turn| turn.to)).collect()
    }
}

fn turns(options: &CourseOptions, of_strategies: &Options) -> anyhow::Result<Vec<Turn>> {
    let (then, after) = (&options.then, &options.after);
    ensure!(
        then.len() == after.len(),
        "{} --then and {} --after: each --then needs its --after",
        then.len(),
        after.len()
    );
    let mut at = Duration::ZERO;
    let pairs = then.iter().zip(after);
    pairs
        .map(|(then, after)| {
            let to = config::variant(then, of_strategies);
            let to = to.map_err(|message| anyhow::anyhow!("--then: {message}"));
            at = at.saturating_add(time("--after", after)?);
            Ok(Turn { to: to?, at })
        })
        .collect()
}

fn saves(options: &CourseOptions) -> anyhow::Result<Vec<Save>> {
    let mut saves = Vec::new();
    for text in &options.save_at {
        let split = text.split_once('=').filter(|(_, file)| !file.is_empty());
        let (at, file) =
            split.with_context(|| format!("--save-at {text}: TIME=FILE is expected"))?;
        saves.push(Save { at: time("--save-at", at)?, file: Path::new(file).to_owned() });
    }
    saves.sort_by_key(|save| save.at);
    Ok(saves)
}

fn time(option: &str, text: &str) -> anyhow::Result<Duration> {
    let time: Result<Time, String> = text.parse();
    time.map(|time| time.0).map_err(|message| anyhow::anyhow!("{option}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(then: &[&str], after: &[&str], save_at: &[&str]) -> CourseOptions {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        CourseOptions {
            then: owned(then),
            after: owned(after),
            save_at: owned(save_at),
            ..CourseOptions::default()
        }
    }

    #[test]
    fn times_of_turns_add_up() {
        let given = options(&["hardware-assist", "interpretation"], &["2s", "500ms"], &[]);
        let turns = turns(&given, &Options::default()).unwrap();
        let expected = [
            Turn { to: StrategyId::HardwareAssist.into(), at: Duration::from_millis(2000) },
            Turn { to: StrategyId::Interpretation.into(), at: Duration::from_millis(2500) },
        ];
        assert_eq!(turns, expected);
    }

    #[test]
    fn machines_are_saved_in_the_order_of_time() {
        let saves = saves(&options(&[], &[], &["2s=late=r", "1s=sooner"])).unwrap();
        let files: Vec<_> = saves.iter().map(|save| save.file.as_path()).collect();
        assert_eq!(files, [Path::new("sooner"), Path::new("late=r")]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let said = |given: &CourseOptions| {
            let error = turns(given, &Options::default()).err().or_else(|| saves(given).err());
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        for (given, words) in [
            (options(&["interpretation"], &[], &[]), "each --then needs its --after"),
            (options(&["bochs"], &["1s"], &[]), "--then: "),
            (options(&["interpretation"], &["soon"], &[]), "--after: \"soon\""),
            (options(&[], &[], &["5s"]), "--save-at 5s: TIME=FILE"),
            (options(&[], &[], &["5=x"]), "--save-at: \"5\""),
        ] {
            assert!(said(&given).contains(words), "{}", said(&given));
        }
    }
}
