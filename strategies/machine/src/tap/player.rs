//! Gives recorded events back, and holds what the guest does against them.

use super::divergence::{Divergence, Expected, Found};
use super::event::{Choice, Event, Position};
use super::file::LogReader;
use crate::signals::{Request, Signals};
use crate::{Fingerprint, Vector};
use std::collections::VecDeque;
use std::sync::Arc;

/// Events that are read ahead from a file, at least. The next interrupt has to be known before the
/// guest gets to it: no block of the emulator makes that many accesses.
const AHEAD: usize = 1 << 15;

/// A replay.
#[derive(Debug)]
pub(super) struct Player {
    signals: Arc<Signals>,
    events: VecDeque<Event>,
    /// Those of the events that have a place: their numbers in the log.
    stops: VecDeque<u64>,
    file: Option<LogReader>,
    /// Why the file cannot be read on.
    unreadable: Option<String>,
    /// The number of the first of `events` in the log.
    index: u64,
    /// The emulator's instruction counter when the replay began.
    pub(super) begun: u64,
    pub(super) divergence: Option<Divergence>,
    /// The recording's end, once it was reached.
    end: Option<Event>,
}

/// What the log has for a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// Something, once EIP has moved without an instruction being counted (an instruction fetch
    /// that faults does that).
    Soon,
    /// An interrupt.
    Interrupt,
}

impl Player {
    pub(super) fn new(signals: Arc<Signals>, begun: u64) -> Player {
        Player {
            signals,
            events: VecDeque::new(),
            stops: VecDeque::new(),
            file: None,
            unreadable: None,
            index: 0,
            begun,
            divergence: None,
            end: None,
        }
    }

    /// Reads on from a file.
    pub(super) fn read_from(&mut self, file: LogReader) {
        self.file = Some(file);
        self.read_ahead();
    }

    /// Adds to the log.
    pub(super) fn append(&mut self, events: Vec<Event>) {
        let first = self.index + self.events.len() as u64;
        let numbered = (first..).zip(&events);
        let stops = numbered.filter(|(_, event)| place(event).is_some()).map(|(index, _)| index);
        self.stops.extend(stops);
        self.events.extend(events);
    }

    fn read_ahead(&mut self) {
        let knew_stop = !self.stops.is_empty();
        while self.events.len() < AHEAD
            && let Some(file) = &mut self.file
        {
            match file.next() {
                Ok(Some(events)) => self.append(events),
                Ok(None) => self.file = None,
                Err(error) => {
                    self.file = None;
                    self.unreadable = Some(error.to_string());
                }
            }
        }
        if !knew_stop && !self.stops.is_empty() {
            // The strategy runs on without knowing of it.
            self.signals.raise_attention();
        }
    }

    /// Events that are in memory and still to happen.
    pub(super) fn left(&self) -> usize {
        self.events.len()
    }

    /// The next event that has a place: its number, itself and its place.
    fn next_stop(&self) -> Option<(u64, &Event, Position)> {
        let index = *self.stops.front()?;
        let event = self.events.get((index - self.index) as usize)?;
        Some((index, event, place(event)?))
    }

    /// The next interrupt, if nothing else with a place comes before.
    pub(super) fn next_interrupt(&self) -> Option<(u64, Vector)> {
        match self.next_stop()? {
            (_, Event::Interrupt { vector, at }, _) => Some((at.instructions, Vector(*vector))),
            _ => None,
        }
    }

    /// Instructions until the log has to be asked again what is due; none where that is now.
    pub(super) fn distance(&self, here: Position) -> Option<u64> {
        let (index, _, at) = self.next_stop()?;
        let left = at.instructions.saturating_sub(here.instructions);
        Some(if at == here && index == self.index { 0 } else { left.max(1) })
    }

    /// What the log has for this place. Its end is a request to stop.
    pub(super) fn due(&mut self, here: Position, interruptible: bool) -> Due {
        let Some((index, &event, at)) = self.next_stop() else { return Due::Nothing };
        if at.instructions > here.instructions {
            Due::Nothing
        } else if at.instructions < here.instructions {
            self.diverge(Found::Passed(here))
        } else if at.eip != here.eip || index != self.index {
            Due::Soon
        } else if matches!(event, Event::End { .. }) {
            self.end = Some(event);
            self.advance();
            self.signals.request(Request::Stop);
            Due::Nothing
        } else if interruptible {
            Due::Interrupt
        } else {
            self.diverge(Found::Masked(here))
        }
    }

    /// The next thing in the log, if it is a choice of the CPU's at this place.
    pub(super) fn take_choice(&mut self, here: Position) -> Option<Choice> {
        let choice = match *self.events.front()? {
            Event::Choice { choice, at } if at == here => choice,
            _ => return None,
        };
        self.advance();
        Some(choice)
    }

    /// The guest waits for an interrupt. Where the log ends, so does the run.
    pub(super) fn halt(&mut self, here: Position) {
        if self.distance(here) == Some(0) {
            return;
        }
        if self.is_at_end() {
            self.signals.request(Request::Stop);
        } else {
            self.diverge(Found::Halt(here));
        }
    }

    /// Whether all that was recorded has happened.
    pub(super) fn is_at_end(&self) -> bool {
        self.events.is_empty() && self.unreadable.is_none()
    }

    /// The guest does `found`: takes the next event if `matching` makes something of it.
    pub(super) fn expect<T>(
        &mut self,
        found: Found,
        matching: impl FnOnce(&Event) -> Option<T>,
    ) -> Option<T> {
        if self.divergence.is_some() {
            return None;
        }
        let Some(value) = self.events.front().and_then(matching) else {
            self.diverge(found);
            return None;
        };
        self.advance();
        while let Some(&Event::Request(request)) = self.events.front() {
            self.advance();
            self.signals.request(request);
        }
        Some(value)
    }

    fn advance(&mut self) {
        self.events.pop_front();
        self.index += 1;
        while self.stops.front().is_some_and(|&stop| stop < self.index) {
            self.stops.pop_front();
        }
        if self.file.is_some() && self.events.len() < AHEAD {
            self.read_ahead();
        }
    }

    /// Keeps the first divergence, and asks for the run's end.
    pub(super) fn diverge(&mut self, found: Found) -> Due {
        if self.divergence.is_none() {
            let expected = self.expected();
            self.divergence = Some(Divergence { index: self.index, expected, found });
            self.stops.clear();
        }
        self.signals.request(Request::Stop);
        Due::Nothing
    }

    /// The replay is ended here. Unless the recording was as well, and in the same state, that is
    /// the divergence, if there was none before.
    pub(super) fn finish(mut self, at: Position, fingerprint: Fingerprint) -> Option<Divergence> {
        if let Some(end @ Event::End { .. }) = self.events.front() {
            self.end = Some(*end);
            self.advance();
        }
        let ended = self.end.filter(|_| self.is_at_end());
        let here = Event::End { at, fingerprint };
        if self.divergence.is_none() && !(self.is_at_end() && ended.is_none_or(|end| end == here)) {
            let (index, expected) = match ended {
                Some(end) => (self.index - 1, Expected::Event(end)),
                None => (self.index, self.expected()),
            };
            let found = Found::End { at, fingerprint };
            self.divergence = Some(Divergence { index, expected, found });
        }
        self.divergence
    }

    fn expected(&self) -> Expected {
        match (self.events.front(), &self.unreadable) {
            (Some(event), _) => Expected::Event(*event),
            (None, Some(error)) => Expected::Unreadable(error.clone()),
            (None, None) => Expected::Nothing,
        }
    }
}

/// Where an event takes place, if that was recorded.
fn place(event: &Event) -> Option<Position> {
    match event {
        Event::Interrupt { at, .. } | Event::Choice { at, .. } | Event::End { at, .. } => Some(*at),
        _ => None,
    }
}
