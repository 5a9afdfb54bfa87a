//! A log of a comparison: inputs from the one side, counts of instructions from the other.
//!
//! It is replayed as one that was recorded under interpretation.

use machine::tap::{Choice, Event, LogWriter, Position};
use machine::{Cpu, Fingerprint, FormatError, Vector};

/// Events that are written at a time.
const BATCH: usize = 4096;

/// What becomes of a comparison's events.
#[derive(Default)]
pub(super) struct Log {
    to: Option<LogWriter>,
    events: Vec<Event>,
}

impl Log {
    /// A log that is written.
    pub(super) fn new(to: LogWriter) -> Log {
        Log { to: Some(to), events: Vec::new() }
    }

    /// Notes what came in during a stretch.
    pub(super) fn extend(&mut self, events: &[Event]) -> Result<(), FormatError> {
        let Some(to) = &mut self.to else { return Ok(()) };
        self.events.extend_from_slice(events);
        for batch in self.events.chunks(BATCH) {
            to.append(batch)?;
        }
        self.events.clear();
        Ok(())
    }

    /// Notes an interrupt that the CPU takes when so many instructions have been executed.
    pub(super) fn interrupt(&mut self, vector: Vector, cpu: &Cpu, instructions: u64) {
        if self.to.is_some() {
            let at = Position { instructions, eip: cpu.eip };
            self.events.push(Event::Interrupt { vector: vector.0, at });
        }
    }

    /// Notes what the strategy has made of what the architecture leaves open.
    pub(super) fn choices(&mut self, choices: Vec<Choice>, cpu: &Cpu, instructions: u64) {
        if self.to.is_some() {
            let at = Position { instructions, eip: cpu.eip };
            self.events.extend(choices.into_iter().map(|choice| Event::Choice { choice, at }));
        }
    }

    /// Ends the log in this state.
    pub(super) fn finish(
        &mut self,
        cpu: &Cpu,
        instructions: u64,
        fingerprint: Fingerprint,
    ) -> Result<(), FormatError> {
        let at = Position { instructions, eip: cpu.eip };
        self.extend(&[Event::End { at, fingerprint }])?;
        self.to.take().map_or(Ok(()), |mut to| to.finish())
    }
}
