//! Recording and replaying a machine.

use super::divergence::{Divergence, Found};
use super::event::{Choice, Event, Position};
use super::file::{LogReader, LogWriter};
use super::player::{Due, Player};
use super::recorder::Recorder;
use super::{Mode, Tap};
use crate::cpu::Eflags;
use crate::signals::Request;
use crate::{Error, FormatError, Machine, PhysicalAddress, Vector};
use std::io::{Read, Write};

impl Machine {
    /// Begins to record into memory. When `most` events are there and nobody takes them
    /// ([`Machine::take_events`]), the run is asked to stop.
    pub fn record(&mut self, most: usize) {
        let recorder = Recorder::in_memory(most, self.counters.instructions);
        self.bus.tap.mode = Mode::Record(Box::new(recorder));
    }

    /// In a recording into memory: asks the run to stop as soon as so many events are there. Those that
    /// come until it does are kept too.
    pub fn ask_to_stop_after(&mut self, events: usize) {
        if let Mode::Record(recorder) = &mut self.bus.tap.mode {
            recorder.enough = events;
        }
    }

    /// Begins to record into a file. When that fails, the run is asked to stop, and
    /// [`Machine::finish_recording`] tells why.
    ///
    /// # Errors
    /// When the file cannot be written or the host cannot read the guest's memory.
    pub fn record_to(&mut self, to: Box<dyn Write + Send>) -> Result<(), Error> {
        let file = LogWriter::new(to, self.fingerprint()?)?;
        let recorder = Recorder::in_file(file, self.counters.instructions);
        self.bus.tap.mode = Mode::Record(Box::new(recorder));
        Ok(())
    }

    /// Takes what was recorded into memory so far. The recording goes on.
    pub fn take_events(&mut self) -> Vec<Event> {
        match &mut self.bus.tap.mode {
            Mode::Record(recorder) => recorder.take(),
            _ => Vec::new(),
        }
    }

    /// Ends the recording with [`Event::End`], and gives what is in memory of it: all since
    /// [`Machine::take_events`], or nothing when it went to a file.
    ///
    /// # Errors
    /// When some of it could not be kept.
    pub fn finish_recording(&mut self) -> Result<Vec<Event>, Error> {
        let end = Event::End { at: self.position(), fingerprint: self.fingerprint()? };
        self.bus.tap.record(end);
        match self.bus.tap.take_mode() {
            Mode::Record(recorder) => Ok(recorder.finish()?),
            _ => Ok(Vec::new()),
        }
    }

    /// Begins to replay. More can follow with [`Machine::replay_more`].
    pub fn replay(&mut self, events: Vec<Event>) {
        let mut player = Player::new(self.signals.clone(), self.counters.instructions);
        player.append(events);
        self.bus.tap.mode = Mode::Replay(Box::new(player));
        self.signals.raise_attention();
    }

    /// Begins to replay from a file.
    ///
    /// # Errors
    /// When the file is no log, or begins in another state than the machine's. What is damaged
    /// further on is found on the way, as a [`Divergence`].
    pub fn replay_from(&mut self, from: Box<dyn Read + Send>) -> Result<(), Error> {
        let (file, expected) = LogReader::new(from)?;
        let found = self.fingerprint()?;
        if found != expected {
            return Err(FormatError::OtherStart { expected, found }.into());
        }
        self.replay(Vec::new());
        if let Some(player) = self.bus.tap.player_mut() {
            player.read_from(file);
        }
        Ok(())
    }

    /// Adds to the log that is replayed.
    pub fn replay_more(&mut self, events: Vec<Event>) {
        if let Some(player) = self.bus.tap.player_mut() {
            player.append(events);
        }
        self.signals.raise_attention();
    }

    /// Ends the replay, and tells where it left its log, if it did: also when something of the log
    /// is left, or when the recording ended in another state.
    ///
    /// # Errors
    /// When the host cannot read the guest's memory.
    pub fn finish_replay(&mut self) -> Result<Option<Divergence>, Error> {
        let at = self.position();
        self.repeat_choices();
        match self.bus.tap.take_mode() {
            Mode::Replay(player) => Ok(player.finish(at, self.fingerprint()?)),
            _ => Ok(None),
        }
    }

    /// Where the replay left its log, if it did.
    #[must_use]
    pub fn divergence(&self) -> Option<&Divergence> {
        self.bus.tap.player()?.divergence.as_ref()
    }

    /// How many events of the log are still to be replayed, those aside that a file has yet to give.
    #[must_use]
    pub fn replay_left(&self) -> usize {
        self.bus.tap.player().map_or(0, Player::left)
    }

    /// The next interrupt that will be replayed: after how many instructions since the beginning,
    /// and its vector.
    #[must_use]
    pub fn next_replayed_interrupt(&self) -> Option<(u64, Vector)> {
        self.bus.tap.player()?.next_interrupt()
    }

    /// In a replay: how many instructions may be executed before [`Machine::service`] has to be
    /// called again, if the log says. Then an interrupt is requested exactly where it was taken.
    #[must_use]
    pub fn replay_distance(&self) -> Option<u64> {
        self.bus.tap.player()?.distance(self.position())
    }

    /// The time-stamp counter as the guest reads it.
    #[inline]
    pub fn read_tsc(&mut self) -> u64 {
        if self.bus.tap.is_off() { self.clock.tsc() } else { self.tapped_tsc() }
    }

    /// What the guest's time-stamp counter is ahead of the host's; nothing where it has to be read
    /// by [`Machine::read_tsc`]: on a virtual clock, and while inputs are recorded or replayed.
    #[inline]
    #[must_use]
    pub fn host_tsc_offset(&self) -> Option<u64> {
        if self.bus.tap.is_off() { self.clock.host_tsc_offset() } else { None }
    }

    #[cold]
    fn tapped_tsc(&mut self) -> u64 {
        let Some(player) = self.bus.tap.player_mut() else {
            let now = self.clock.tsc();
            self.bus.tap.record(Event::TimeStamp(now));
            return now;
        };
        let value = player.expect(Found::TimeStamp, |event| match event {
            Event::TimeStamp(value) => Some(*value),
            _ => None,
        });
        value.unwrap_or(u64::MAX)
    }

    /// The place where the guest is, counted from the beginning of the recording or replay.
    fn position(&self) -> Position {
        let begun = match &self.bus.tap.mode {
            Mode::Off => 0,
            Mode::Record(recorder) => recorder.begun,
            Mode::Replay(player) => player.begun,
        };
        let instructions = self.counters.instructions.wrapping_sub(begun);
        Position { instructions, eip: self.cpu.eip }
    }

    /// Notes an interrupt that was acknowledged.
    #[cold]
    pub(crate) fn record_interrupt(&mut self, vector: Vector) {
        let at = self.position();
        self.bus.tap.record(Event::Interrupt { vector: vector.0, at });
    }

    /// Takes the interrupt that is due from the log. Where none is, that is a divergence, and the
    /// vector means nothing.
    #[cold]
    pub(crate) fn replay_interrupt(&mut self) -> Vector {
        let here = self.position();
        self.interrupt_requested = false;
        let Some(player) = self.bus.tap.player_mut() else { return Vector(0) };
        let vector = player.expect(Found::Interrupt(here), |event| match *event {
            Event::Interrupt { vector, at } => (at == here).then_some(vector),
            _ => None,
        });
        Vector(vector.unwrap_or(0))
    }

    /// [`Machine::service`] with a log in place of devices.
    #[cold]
    pub(crate) fn service_from_log(&mut self) -> Option<Request> {
        self.signals.take_attention();
        if let Some(request) = self.signals.take_request() {
            return Some(request);
        }
        self.repeat_choices();
        let (here, interruptible) = (self.position(), self.cpu.interruptible());
        let player = self.bus.tap.player_mut()?;
        let due = player.due(here, interruptible);
        self.interrupt_requested = due == Due::Interrupt;
        if due == Due::Soon {
            // Makes the emulator come back even if it counts no instruction.
            self.signals.raise_attention();
        }
        self.signals.take_request()
    }

    /// Does what the log says of the CPU's own choice at this place.
    fn repeat_choices(&mut self) {
        let here = self.position();
        while let Some(choice) =
            self.bus.tap.player_mut().and_then(|player| player.take_choice(here))
        {
            match choice {
                Choice::Accessed { address, value } => {
                    self.memory.write(PhysicalAddress(address), &[value]);
                }
                Choice::Flags { value, mask } => {
                    let mask = Eflags::from_bits_truncate(mask) & Eflags::ARITHMETIC;
                    self.cpu.flags.merge(value, mask);
                }
            }
        }
    }

    /// [`Machine::wait_for_event`] with a log in place of devices.
    #[cold]
    pub(crate) fn halt_in_log(&mut self) {
        let here = self.position();
        if let Some(player) = self.bus.tap.player_mut() {
            player.halt(here);
        }
    }
}

impl Tap {
    fn take_mode(&mut self) -> Mode {
        std::mem::replace(&mut self.mode, Mode::Off)
    }
}
