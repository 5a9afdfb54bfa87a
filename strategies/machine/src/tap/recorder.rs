//! Keeps events, in memory or in a file.

use super::Event;
use super::file::LogWriter;
use crate::sections::{FormatError, nonsense};

/// Events that are written at a time.
const BATCH: usize = 4096;

/// A recording.
#[derive(Debug)]
pub(super) struct Recorder {
    events: Vec<Event>,
    most: usize,
    /// Events with which the run is asked to stop; those that come until it does are kept as well.
    pub(super) enough: usize,
    file: Option<LogWriter>,
    /// The emulator's instruction counter when it began.
    pub(super) begun: u64,
    failure: Option<FormatError>,
}

impl Recorder {
    /// Keeps at most so many events until they are taken.
    pub(super) fn in_memory(most: usize, begun: u64) -> Recorder {
        Recorder { events: Vec::new(), most, enough: usize::MAX, file: None, begun, failure: None }
    }

    /// Writes all events to a file.
    pub(super) fn in_file(file: LogWriter, begun: u64) -> Recorder {
        Recorder { file: Some(file), ..Recorder::in_memory(BATCH, begun) }
    }

    /// Keeps an event. False when that fails; the events before it stay.
    pub(super) fn push(&mut self, event: Event) -> bool {
        if self.failure.is_none() && self.events.len() >= self.most {
            self.failure = self.make_room().err();
        }
        if self.failure.is_none() {
            self.events.push(event);
        }
        self.failure.is_none()
    }

    /// Whether the run is to stop with what there is.
    pub(super) fn has_enough(&self) -> bool {
        self.events.len() >= self.enough
    }

    fn make_room(&mut self) -> Result<(), FormatError> {
        let Some(file) = &mut self.file else {
            let reason = format!("more than the {} that are to be kept", self.most);
            return Err(nonsense("events", reason));
        };
        file.append(&self.events)?;
        self.events.clear();
        Ok(())
    }

    /// Takes the events that are in memory.
    pub(super) fn take(&mut self) -> Vec<Event> {
        if self.file.is_some() { Vec::new() } else { std::mem::take(&mut self.events) }
    }

    /// Ends the recording, and gives what is in memory.
    pub(super) fn finish(mut self) -> Result<Vec<Event>, FormatError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.file.is_some() {
            self.make_room()?;
        }
        if let Some(file) = &mut self.file {
            file.finish()?;
        }
        Ok(self.events)
    }
}
