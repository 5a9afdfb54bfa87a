//! A guest on its way through a plan: one strategy after the other, with the looks at the clock and
//! at the screen that lie between.
//!
//! All times are of running: what a debugger spends over a stopped guest does not count.

use super::plan::{Course, Plan, Turn};
use super::screen::{FRAME_TIME, frame};
use super::vm_worker::{VmEnd, place};
use crate::strategies;
use anyhow::Context;
use machine::Machine;
use machine::boot::BootSource;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

/// A guest and what is planned for it.
pub(super) struct Session {
    pub(super) machine: Machine,
    /// What it was booted from, if it is to be booted again when it resets itself.
    source: Option<BootSource>,
    strategy: Box<dyn Strategy>,
    /// Those that follow, each when the guest has run for so long.
    turns: VecDeque<(Duration, Box<dyn Strategy>)>,
    saves: Saves,
    watch: Watch,
    /// How long the guest has run.
    ran: Duration,
}

/// How a slice of a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Slice {
    /// It can go on.
    Over,
    /// The host asked for a stop.
    Requested,
    /// The guest ended.
    Ended(VmEnd),
}

impl Session {
    /// Opens and makes all that the plan takes: later there is no right to.
    pub(super) fn new(
        plan: &Plan,
        machine: Machine,
        source: Option<BootSource>,
        frames: Option<File>,
        saved: Option<File>,
    ) -> anyhow::Result<Session> {
        let turn = |turn: &Turn| anyhow::Ok((turn.at, strategies::make(turn.to)?));
        Ok(Session {
            machine,
            source: source.filter(|_| plan.vm.reboot && !plan.course.has_log()),
            strategy: strategies::make(plan.vm.strategy)?,
            turns: plan.course.turns.iter().map(turn).collect::<anyhow::Result<_>>()?,
            saves: Saves::open(&plan.course, saved)?,
            watch: Watch { frames: frames.map(Frames::new), timeout: plan.vm.timeout },
            ran: Duration::ZERO,
        })
    }

    /// Runs the guest to its end, through resets; at a request, up to there.
    pub(super) fn run(&mut self) -> anyhow::Result<Slice> {
        loop {
            match self.slice(None)? {
                Slice::Over => {}
                end => return Ok(end),
            }
        }
    }

    /// Runs the guest until something is to be done, at most for `most`.
    pub(super) fn slice(&mut self, most: Option<Duration>) -> anyhow::Result<Slice> {
        self.do_what_is_due()?;
        if self.watch.is_over(self.ran) {
            return Ok(Slice::Ended(VmEnd::Timeout));
        }
        let begin = Instant::now();
        let limit = Limit { instructions: None, deadline: self.deadline(begin, most) };
        let stop = self.strategy.run(&mut self.machine, &limit)?;
        self.ran += begin.elapsed();
        self.watch.show(&self.machine)?;
        self.judge(stop)
    }

    /// Lets another strategy than the planned one have the guest for about `most`.
    pub(super) fn lend(
        &mut self,
        other: &mut dyn Strategy,
        most: Duration,
    ) -> anyhow::Result<Slice> {
        let begin = Instant::now();
        let stop = other.run(&mut self.machine, &Limit::until(begin + most))?;
        self.ran += begin.elapsed();
        self.watch.show(&self.machine)?;
        self.judge(stop)
    }

    fn do_what_is_due(&mut self) -> anyhow::Result<()> {
        self.saves.save_due(&self.machine, self.ran)?;
        while let Some((_, strategy)) = self.turns.pop_front_if(|(at, _)| *at <= self.ran) {
            tracing::debug!(target: "run", "{} after {:?}", strategy.id(), self.ran);
            // The one before is dropped first: what it holds of the host may be there once only.
            drop(std::mem::replace(&mut self.strategy, strategy));
        }
        Ok(())
    }

    /// When the next thing is to be done.
    fn deadline(&self, now: Instant, most: Option<Duration>) -> Option<Instant> {
        let times = [self.watch.timeout, self.saves.next(), self.turns.front().map(|(at, _)| *at)];
        let times = times.into_iter().flatten().map(|at| at.saturating_sub(self.ran));
        let deadlines = times.chain(most).filter_map(|left| now.checked_add(left));
        // The screen is looked at between two runs.
        deadlines.chain(self.watch.frames.as_ref().map(|frames| frames.next)).min()
    }

    /// What a stop means for the session.
    pub(super) fn judge(&mut self, stop: Stop) -> anyhow::Result<Slice> {
        if stop != Stop::Limit {
            tracing::debug!(target: "run", "{stop} at {}", place(&self.machine.cpu));
        }
        if let (Stop::Reset, Some(source)) = (stop, &self.source) {
            self.machine.reset();
            // The new image is written past the strategy, which may know the old one's code.
            self.machine.memory.forget_code();
            machine::boot::load(&mut self.machine, source)?;
            return Ok(Slice::Over);
        }
        Ok(match (stop, end(stop, &self.machine)) {
            (_, Some(end)) => Slice::Ended(end),
            (Stop::Requested, None) => Slice::Requested,
            (_, None) => Slice::Over,
        })
    }

    /// The strategy, its guest, and what looks after them.
    pub(super) fn into_parts(self) -> (Box<dyn Strategy>, Machine, Watch) {
        (self.strategy, self.machine, self.watch)
    }
}

/// What the guest's end means; nothing where it has not ended.
pub(super) fn end(stop: Stop, machine: &Machine) -> Option<VmEnd> {
    Some(match stop {
        Stop::Limit | Stop::Requested => return None,
        Stop::Reset | Stop::PowerOff => VmEnd::PowerOff,
        Stop::Exit(value) => VmEnd::Exit(value),
        Stop::TripleFault => VmEnd::TripleFault(place(&machine.cpu)),
        Stop::Halted => VmEnd::Halted(place(&machine.cpu)),
    })
}

/// Machines that are still to be saved.
struct Saves {
    due: VecDeque<(Duration, File)>,
    /// Grows by a byte for each machine that was saved, for the process that waits for us.
    done: Option<File>,
}

impl Saves {
    fn open(course: &Course, done: Option<File>) -> anyhow::Result<Saves> {
        let mut due = VecDeque::new();
        for save in &course.saves {
            let file = File::options().write(true).open(&save.file);
            due.push_back((save.at, file.context("the file for the saved machine is gone")?));
        }
        Ok(Saves { due, done })
    }

    fn next(&self) -> Option<Duration> {
        self.due.front().map(|(at, _)| *at)
    }

    fn save_due(&mut self, machine: &Machine, ran: Duration) -> anyhow::Result<()> {
        while let Some((_, file)) = self.due.pop_front_if(|(at, _)| *at <= ran) {
            let mut file = BufWriter::new(file);
            let saved = machine.save(&mut file).map_err(anyhow::Error::from);
            let saved = saved.and_then(|()| Ok(file.into_inner()?.sync_data()?));
            saved.context("the machine cannot be saved")?;
            if let Some(done) = &mut self.done {
                done.write_all(&[1])?;
            }
        }
        Ok(())
    }
}

/// What looks after a guest, whoever runs it.
pub(super) struct Watch {
    frames: Option<Frames>,
    timeout: Option<Duration>,
}

impl Watch {
    /// Whether a guest that has run for so long has no time left.
    pub(super) fn is_over(&self, ran: Duration) -> bool {
        self.timeout.is_some_and(|timeout| ran >= timeout)
    }

    /// How long such a guest may still run.
    pub(super) fn left(&self, ran: Duration) -> Duration {
        self.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(ran))
    }

    /// Shows the screen, if somebody looks at it.
    pub(super) fn show(&mut self, machine: &Machine) -> std::io::Result<()> {
        self.frames.as_mut().map_or(Ok(()), |frames| frames.show(machine))
    }
}

/// Where the screen goes.
struct Frames {
    file: File,
    last: [u8; frame::SIZE],
    next: Instant,
}

impl Frames {
    fn new(file: File) -> Frames {
        Frames { file, last: [0; frame::SIZE], next: Instant::now() }
    }

    /// Shows the screen to the process that waits for us, if it has changed.
    fn show(&mut self, machine: &Machine) -> std::io::Result<()> {
        self.next = Instant::now() + FRAME_TIME;
        let now = frame::encode(&machine.bus.devices.vga.text_screen());
        if now != self.last {
            self.file.write_all_at(&now, 0)?;
            self.last = now;
        }
        Ok(())
    }
}
