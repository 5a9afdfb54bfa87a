//! Running programs in a process, and understanding what it says.

use super::file::Series;
use crate::process::{self, Ending, Stop, Watch};
use crate::strategies::{self, Variant};
use crate::worker::obituary;
use anyhow::Context;
use host::sandbox::record::CrashRecord;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long past its time a process may take: a difference is narrowed down in it.
const GRACE: Duration = Duration::from_secs(25);

/// Instructions of a program at most, and of one under a strategy that does not work here as it should
/// (KVM in software).
const MOST_INSTRUCTIONS: u64 = 20_000;
const MOST_SLOW_INSTRUCTIONS: u64 = 3_000;

/// Characters that are kept of what is said about a difference.
const LONGEST_TEXT: usize = 20_000;

/// A process that is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child<'a> {
    pub(super) strategy: Variant,
    /// Programs of a series, which come first.
    pub(super) series: Option<Series>,
    /// A program in a file.
    pub(super) file: Option<&'a Path>,
    /// When no new program is begun any more.
    pub(super) turn: Duration,
    pub(super) planted_error: bool,
    pub(super) sandbox: bool,
}

/// What a process has said.
#[derive(Debug)]
pub(super) struct Told {
    /// A line for each program that ended.
    pub(super) lines: Vec<String>,
    pub(super) ended: Ended,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// All programs ran without a difference.
    Well,
    /// A difference, at an instruction if it was narrowed down so far.
    Different { number: u64, place: Option<u32>, text: String },
    /// The process died over a program, or had to be killed.
    Died { number: u64, how: String },
    /// It was killed because somebody wants an end.
    Stopped,
}

impl Child<'_> {
    /// Runs the programs.
    ///
    /// # Errors
    /// When the process cannot be started, or set up.
    pub(super) fn run(&self, stop: &Stop) -> anyhow::Result<Told> {
        let record = tempfile::NamedTempFile::new().context("a crash record cannot be made")?;
        let mut command = self.command(record.path());
        let watch = Watch { timeout: self.turn + GRACE, stop, fatal: None };
        let finished = process::run(&mut command, &watch).context("a process cannot be started")?;
        let said: Vec<u8> = finished.output.iter().map(|&(byte, _)| byte).collect();
        let mut said = Said::new(&String::from_utf8_lossy(&said));
        let crash = CrashRecord::read(record.as_file());
        if let Some(stated) = self.stated_end(&said, &crash) {
            said.lines.push(stated);
            return Ok(Told { lines: said.lines, ended: Ended::Well });
        }
        let how = match finished.ending {
            Ending::Stopped => return Ok(Told { lines: said.lines, ended: Ended::Stopped }),
            Ending::Itself(status) if status.success() => None,
            Ending::Itself(status) => {
                let mut how = process::in_words(status);
                let words = process::last_words(&finished.errors);
                if !words.is_empty() {
                    how = format!("{how} ({words})");
                }
                Some(obituary(&how, &crash))
            }
            Ending::TimedOut | Ending::Fatal => Some("the monitor hangs".to_owned()),
        };
        let ended = match (said.different, how, said.begun) {
            (Some((number, place, text)), ..) => Ended::Different { number, place, text },
            (None, None, _) => Ended::Well,
            (None, Some(how), Some(number)) => Ended::Died { number, how },
            (None, Some(how), None) => {
                anyhow::bail!("{}: no program was begun: {how}", self.strategy)
            }
        };
        Ok(Told { lines: said.lines, ended })
    }

    /// The line about a program over which the process died as is stated of the strategy.
    fn stated_end(&self, said: &Said, crash: &CrashRecord) -> Option<String> {
        let number = said
            .begun
            .filter(|_| crash.escape.is_some() && strategies::can_watch(self.strategy))?;
        Some(format!(
            "stated {number} 0 0 nothing in ring 3 keeps a guest from the host's selector for 64-bit \
             code; the sandbox is made for it"
        ))
    }

    fn command(&self, record: &Path) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("check-worker").arg("--strategy").arg(self.strategy.name());
        command.arg("--record").arg(record);
        command.arg("--millis").arg(self.turn.as_millis().to_string());
        let limit = match strategies::is_substituted(self.strategy.id) {
            true => MOST_SLOW_INSTRUCTIONS,
            false => MOST_INSTRUCTIONS,
        };
        command.arg("--limit").arg(limit.to_string());
        if let Some(Series { seed, first, count }) = self.series {
            command.arg("--seed").arg(seed.to_string());
            command.arg("--first").arg(first.to_string());
            command.arg("--count").arg(count.to_string());
        }
        if let Some(path) = self.file {
            command.arg("--file").arg(path);
        }
        if self.planted_error {
            command.arg("--planted-error");
        }
        if !self.sandbox {
            command.arg("--no-sandbox");
        }
        // A panic that looked for its lines in the program's file would end as a forbidden call.
        command.env("RUST_BACKTRACE", "0");
        command
    }
}

/// The output of a process, understood. A guest may have written it.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// The program that had begun and not ended.
    begun: Option<u64>,
    different: Option<(u64, Option<u32>, String)>,
}

impl Said {
    fn new(text: &str) -> Said {
        let mut said = Said::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut words = line.split(' ');
            let (word, number) = (words.next(), words.next().and_then(|word| word.parse().ok()));
            match (word, number) {
                (Some("begin"), Some(number)) => said.begun = Some(number),
                (Some("same" | "stated" | "open" | "undecided"), Some(_)) => {
                    said.begun = None;
                    said.lines.push(process::printable(line, 300));
                }
                (Some("different"), Some(number)) => {
                    said.lines.push(process::printable(line, 300));
                    let place = words.nth(2).and_then(|word| word.parse().ok());
                    let rest = lines.by_ref().map(|line| process::printable(line, 300) + "\n");
                    let text = rest.collect::<String>().chars().take(LONGEST_TEXT).collect();
                    said.different = Some((number, place, text));
                }
                _ => {}
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_without_a_word_was_begun() {
        let said = Said::new("begin 3\nsame 3 100 2 end\nbegin 4\n");
        assert_eq!((said.begun, said.lines.len()), (Some(4), 1));
        assert_eq!(said.different, None);
    }

    #[test]
    fn the_text_of_a_difference_is_what_follows() {
        let said = Said::new("begin 9\ndifferent 9 5 1 \nfirst\nbegin second\n");
        assert_eq!(said.different, Some((9, None, "first\nbegin second\n".to_owned())));
        let said = Said::new("different 9 5 1 4096\nfirst\n");
        assert_eq!(said.different, Some((9, Some(0x1000), "first\n".to_owned())));
    }

    #[test]
    fn what_a_guest_writes_does_no_harm() {
        let said = Said::new("begin\nsame x\n\x1b[2Jdifferent\nstated 1 \x1b[2J\n");
        assert_eq!(said.begun, None);
        assert_eq!(said.lines, ["stated 1 \u{fffd}[2J"]);
    }
}
