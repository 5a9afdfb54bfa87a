//! A guest that is too slow to finish, in lockstep with the reference for as long as it may run: so
//! that of its progress more is known than that it was not enough.

use super::{Arguments, Guest, machine};
use crate::lockstep::{End, Lockstep, Options};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Instructions between two looks at the time.
const SLICE: u64 = 100_000;
/// What of its time a guest does not run: it is for setting up and for the last comparison of all
/// memory, before whoever waits gives up.
const REST: Duration = Duration::from_secs(5);
/// Bytes of the serial port's last output that are kept.
const KEPT: usize = 4096;

impl Guest {
    /// Enters the sandbox and runs the guest beside the reference until its time is over, from where
    /// it turns paging on. What is said about that, in a sentence.
    ///
    /// # Errors
    /// When this process cannot be confined, or the host fails.
    pub(super) fn lockstep(mut self, arguments: &Arguments) -> anyhow::Result<String> {
        let mut reference = machine(arguments)?;
        self.confine(arguments)?;
        let words = LastWords::default();
        self.machine.bus.devices.serial.set_output(Box::new(words.clone()));
        if !self.unpack()? {
            return Ok("the guest ended before it turned paging on".to_owned());
        }
        reference.take_memory(&self.machine)?;
        reference.cpu = self.machine.cpu.clone();
        let id = self.strategy.id();
        let mut lockstep =
            Lockstep::new(self.strategy, self.machine, reference, Options::default())?;
        let time = Duration::from_millis(arguments.timeout_ms).saturating_sub(REST);
        let begin = Instant::now();
        let mut end = End::Limit;
        while matches!(end, End::Limit) && self.begin.elapsed() < time {
            end = lockstep.run(SLICE)?;
        }
        let progress = lockstep.progress();
        let found = match end {
            End::Limit => "no difference".to_owned(),
            End::Stopped(stop) => format!("no difference up to its end ({stop})"),
            End::Undecided => "no difference up to where the reference takes too long".to_owned(),
            End::Different(finding) => format!("a difference: {finding}"),
        };
        let seconds = begin.elapsed().as_secs();
        Ok(format!(
            "{id} and interpretation in lockstep, from paging on: {found} in {:.1} million \
             instructions with {} interrupts, which took {seconds} s; the guest's last words: {}",
            progress.instructions as f64 / 1e6,
            progress.interrupts,
            words.line()
        ))
    }
}

/// The end of what a guest printed.
#[derive(Clone, Default)]
struct LastWords(Arc<Mutex<Vec<u8>>>);

impl LastWords {
    /// The last line in which there is anything.
    fn line(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        last.unwrap_or("none").to_owned()
    }
}

impl Write for LastWords {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_with_anything_in_it_is_kept() {
        let mut words = LastWords::default();
        assert_eq!(words.line(), "none");
        for _ in 0..1000 {
            words.write_all(b"[    0.0] line\r\n").unwrap();
        }
        words.write_all(b"[    1.5] the last\r\n\r\n").unwrap();
        assert_eq!(words.line(), "[    1.5] the last");
        assert!(words.0.lock().unwrap().len() <= KEPT);
    }
}
