//! Logs in files, written as a run goes on and read as its replay does.
//!
//! ```text
//! start     the state in which the recording began
//! events    some thousand of them              … again and again
//! end
//! ```
//!
//! A log without its end, of a recorder that died, can be replayed as far as it goes.

use super::Event;
use crate::Fingerprint;
use crate::sections::{Format, FormatError, Reader, Writer};
use std::fmt;
use std::io::{Read, Write};

const FORMAT: Format = Format { what: "recorded log", magic: *b"RINGSLOG", version: 2 };

/// Writes a log: for who makes one of what several machines do. A machine alone is better recorded
/// with [`Machine::record_to`](crate::Machine::record_to).
pub struct LogWriter(Writer<Box<dyn Write + Send>>);

impl LogWriter {
    /// Begins a log of a run that begins in the state `start`.
    ///
    /// # Errors
    /// When it cannot be written, as with all that follows.
    pub fn new(to: Box<dyn Write + Send>, start: Fingerprint) -> Result<LogWriter, FormatError> {
        let mut writer = Writer::new(to, FORMAT)?;
        writer.value("start", &start)?;
        Ok(LogWriter(writer))
    }

    /// Adds events, some thousand at most.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, events: &[Event]) -> Result<(), FormatError> {
        self.0.value("events", &events)
    }

    /// Ends the log; [`Event::End`] is the last event before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self) -> Result<(), FormatError> {
        self.0.section("end", &[])?;
        self.0.flush()
    }
}

/// Reads a log.
pub(super) struct LogReader(Reader<Box<dyn Read + Send>>);

impl LogReader {
    /// Begins to read, and tells the state in which the recording began.
    pub(super) fn new(from: Box<dyn Read + Send>) -> Result<(LogReader, Fingerprint), FormatError> {
        let mut reader = Reader::new(from, FORMAT)?;
        let start = reader.value("start")?;
        Ok((LogReader(reader), start))
    }

    /// The next events; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Event>>, FormatError> {
        let section = self.0.next()?;
        match section.name.as_str() {
            "events" => section.decode().map(Some),
            "end" => Ok(None),
            _ => Err(FormatError::Order { expected: "events", found: section.name }),
        }
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogWriter")
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogReader")
    }
}
