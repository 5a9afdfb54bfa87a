//! Recorded runs, and their repetition under interpretation.
//!
//! A log has interrupts at instructions that are counted, and only interpretation counts them. So
//! interpretation is recorded alone, and any other strategy while the emulator follows it in
//! lockstep and counts.

use super::plan::Plan;
use super::session::{self, Session, Slice};
use super::vm_worker::{Report, VmEnd};
use super::wire::Wire;
use crate::lockstep::{End, Lockstep, Options};
use anyhow::Context;
use machine::Machine;
use machine::tap::LogWriter;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strategy::StrategyId;

/// Time between two looks at the clock and the screen: all memory is compared each time.
const SLICE: Duration = Duration::from_millis(500);

/// What a run has to do with a log.
pub(super) enum Log {
    /// Nothing.
    None,
    /// The machine writes it.
    Written,
    /// The machine reads it.
    Read,
    /// It is written of what two machines do in lockstep.
    InLockstep(Box<Machine>, LogWriter),
}

impl Log {
    /// Opens what `plan` asks for; `again` makes a second machine in the same state.
    ///
    /// # Errors
    /// When a file cannot be used, or a log begins elsewhere.
    pub(super) fn open(
        plan: &Plan,
        machine: &mut Machine,
        again: impl FnOnce() -> anyhow::Result<Machine>,
    ) -> anyhow::Result<Log> {
        if let Some(path) = &plan.course.replay {
            let from = File::open(path).with_context(|| cannot("read", path))?;
            let begun = machine.replay_from(Box::new(BufReader::new(from)));
            begun.with_context(|| path.display().to_string())?;
            return Ok(Log::Read);
        }
        let Some(path) = &plan.course.record else { return Ok(Log::None) };
        let to = File::create(path).with_context(|| cannot("written", path))?;
        let to: Box<dyn Write + Send> = Box::new(BufWriter::new(to));
        if plan.vm.strategy.id == StrategyId::Interpretation {
            machine.record_to(to)?;
            return Ok(Log::Written);
        }
        let log = LogWriter::new(to, machine.fingerprint()?)?;
        Ok(Log::InLockstep(Box::new(again()?), log))
    }
}

fn cannot(what: &str, path: &Path) -> String {
    format!("{} cannot be {what}", path.display())
}

/// Runs a guest whose machine writes a log.
///
/// # Errors
/// When the host fails.
pub(super) fn record(mut session: Session, wire: Option<&Wire>) -> anyhow::Result<Report> {
    if let Some(wire) = wire {
        wire.wake(Arc::clone(session.machine.signals()));
    }
    let end = match session.run()? {
        Slice::Ended(end) => end,
        Slice::Over | Slice::Requested => VmEnd::Left,
    };
    // First, for it is what tells why a run had to stop that nobody asked to.
    session.machine.finish_recording().context("the run cannot be recorded")?;
    Ok(Report { end, state: Some(session.machine.fingerprint()?.to_string()) })
}

/// Runs a guest whose machine reads a log.
///
/// # Errors
/// When the host fails.
pub(super) fn replay(mut session: Session) -> anyhow::Result<Report> {
    let slice = session.run()?;
    let divergence = session.machine.finish_replay()?;
    // Behind that, which repeats what is left of the log at this place.
    let state = Some(session.machine.fingerprint()?.to_string());
    let end = match (divergence, slice) {
        (Some(divergence), _) => VmEnd::Diverged(divergence.to_string()),
        (None, Slice::Ended(end)) => end,
        (None, Slice::Over | Slice::Requested) => VmEnd::Replayed,
    };
    Ok(Report { end, state })
}

/// Records a guest that the emulator follows on a machine of its own.
///
/// # Errors
/// When the host fails.
pub(super) fn record_in_lockstep(
    session: Session,
    reference: Machine,
    log: LogWriter,
    mut wire: Option<Wire>,
) -> anyhow::Result<Report> {
    let (strategy, machine, mut watch) = session.into_parts();
    let id = strategy.id();
    let mut lockstep = Lockstep::new(strategy, machine, reference, Options::default())?;
    lockstep.record_to(log);
    let begun = Instant::now();
    let end = loop {
        let slice = watch.left(begun.elapsed()).min(SLICE);
        let end = lockstep.run_until(u64::MAX, Some(Instant::now() + slice))?;
        watch.show(lockstep.machine())?;
        match end {
            End::Limit if watch.is_over(begun.elapsed()) => break VmEnd::Timeout,
            End::Limit if wire.as_mut().is_some_and(Wire::has_received) => break VmEnd::Left,
            End::Limit => {}
            End::Stopped(stop) => {
                break session::end(stop, lockstep.machine()).unwrap_or(VmEnd::Left);
            }
            End::Different(_) | End::Undecided => {
                let at = lockstep.progress().instructions;
                let what = match end {
                    End::Undecided => "takes too long to follow",
                    _ => "and interpretation differ",
                };
                let what = format!(
                    "{id} {what} behind instruction {at}, so the run cannot be recorded (ringside \
                     compare shows where)"
                );
                return Ok(VmEnd::Diverged(what).into());
            }
        }
    };
    let state = lockstep.finish_recording()?.to_string();
    Ok(Report { end, state: Some(state) })
}
