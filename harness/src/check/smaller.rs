//! Making a program that makes a difference smaller, in processes of its own.
//!
//! The measure is instructions: what is left of the program's code, and no time. Each attempt is one
//! process, and none is made twice ([`shrink`]).

use super::child::{Child, Ended};
use super::file::{self, Saved};
use crate::process::Stop;
use anyhow::Context;
use std::time::{Duration, Instant};
use workloads::programs::{Program, VERSION, shrink};

/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(240);

/// The smallest program found that still makes a difference by itself, and what it says. Nothing if
/// already the whole program makes none without others before it. The difference was found at the
/// instruction at `place`, if that is known.
///
/// # Errors
/// When a process cannot be started.
pub(super) fn smaller(
    child: &Child<'_>,
    program: &Program,
    place: Option<u32>,
    stop: &Stop,
) -> anyhow::Result<Option<(Program, String)>> {
    let candidate = tempfile::NamedTempFile::new().context("a program cannot be written")?;
    let begun = Instant::now();
    let mut failure = None;
    let mut last = None;
    let mut still = |program: &Program| {
        if failure.is_some() || stop.is_raised() || begun.elapsed() >= PATIENCE {
            return false;
        }
        let saved = Saved {
            version: VERSION,
            strategy: child.strategy,
            after: None,
            program: program.clone(),
        };
        let told = file::write(candidate.path(), &saved, "").and_then(|()| {
            let child = Child {
                series: None,
                file: Some(candidate.path()),
                turn: Duration::from_secs(3),
                ..*child
            };
            child.run(stop)
        });
        match told.map(|told| told.ended) {
            Ok(Ended::Different { text, .. } | Ended::Died { how: text, .. }) => {
                last = Some(text);
                true
            }
            Ok(Ended::Well | Ended::Stopped) => false,
            Err(error) => {
                failure = Some(error);
                false
            }
        }
    };
    // Behind the instruction that goes wrong the block had better end: what that has done is seen there
    // wherever stretches end, and else only where one ends before it is gone again.
    let cut = place.and_then(|place| program.cut_behind(place));
    // Twice, for what shows only now and then cannot be made smaller.
    let mut shows = |program: &&Program| still(program) && still(program);
    let Some(first) = cut.as_ref().into_iter().chain([program]).find(&mut shows) else {
        return failure.map_or(Ok(None), Err);
    };
    let small = shrink::shrink(first, &mut still);
    match (failure, last) {
        (Some(error), _) => Err(error),
        (None, text) => Ok(text.map(|text| (small, text))),
    }
}
