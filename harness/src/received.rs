//! Reports as they come from a guest's process, before anything is made of them.
//!
//! A guest that has taken its monitor over can write what it likes. A report of a shape that no
//! monitor writes is refused as a whole; text is made safe to print. What is left is a guest's word
//! about itself: it can claim a result that it never computed, and a time up to what it really took,
//! but it cannot claim anything about another run.

use crate::guest::{End, Report};
use crate::process::printable;
use std::time::Duration;
use strategy::ExitKind;

/// Probes of one guest; a workload has a handful.
const MOST_PROBES: usize = 64;
/// Characters of a probe's name.
const LONGEST_NAME: usize = 32;
/// Characters of a sentence.
const LONGEST_SENTENCE: usize = 500;

impl Report {
    /// Reads the report of a process that took `took`.
    ///
    /// # Errors
    /// When it is none that a monitor writes: what is wrong with it.
    pub fn received(bytes: &[u8], took: Duration) -> Result<Report, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let report: Report =
            toml::from_str(text).map_err(|error| printable(error.message(), LONGEST_SENTENCE))?;
        report.check(took)?;
        Ok(report.made_printable())
    }

    fn check(&self, took: Duration) -> Result<(), String> {
        let possible = 0.0..=took.as_secs_f64();
        let items = self.items.iter().filter_map(|item| item.seconds);
        let mut times = self.seconds.into_iter().chain(self.first).chain(items);
        if !times.all(|seconds| possible.contains(&seconds)) {
            return Err("a time that it cannot have taken".to_owned());
        }
        if self.probes.len() > MOST_PROBES || self.items.len() > MOST_PROBES {
            return Err(format!("{} probes, {} items", self.probes.len(), self.items.len()));
        }
        let is_name = |name: &str| {
            (1..=LONGEST_NAME).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !self.probes.iter().all(|probe| is_name(&probe.name)) {
            return Err("a probe without a name".to_owned());
        }
        if !self.items.iter().all(|item| is_name(&item.name)) {
            return Err("an item without a name".to_owned());
        }
        let is_kind = |name: &str| ExitKind::ALL.iter().any(|kind| kind.name() == name);
        match self.exits.iter().all(|(name, _)| is_kind(name)) {
            true => Ok(()),
            false => Err("a kind of exit that does not exist".to_owned()),
        }
    }

    fn made_printable(mut self) -> Report {
        if let End::Died(text) | End::Unsupported(text) = &mut self.end {
            *text = printable(text, LONGEST_SENTENCE);
        }
        self.fault = self.fault.map(|text| printable(&text, LONGEST_SENTENCE));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ProbeReport;

    const TOOK: Duration = Duration::from_millis(250);

    fn received(change: impl FnOnce(&mut Report)) -> Result<Report, String> {
        let mut report = Report::only(End::Exit(0));
        change(&mut report);
        Report::received(toml::to_string(&report).unwrap().as_bytes(), TOOK)
    }

    #[test]
    fn what_a_monitor_writes_is_taken_as_it_is() {
        let sent = Report {
            seconds: Some(0.2),
            checksum: Some(42),
            probes: vec![ProbeReport { name: "ring3".into(), difference: Some((1, 2)) }],
            exits: vec![(ExitKind::PortIo.name().to_owned(), 12)],
            ..Report::only(End::Died("triple fault at EIP 0x00001000".into()))
        };
        assert_eq!(received(|report| *report = sent.clone()), Ok(sent));
    }

    #[test]
    fn rubbish_is_refused() {
        for rubbish in
            [&b""[..], b"\xff\xfe\0", b"end = 3", b"end = \"timeout\"\nend = \"timeout\""]
        {
            assert!(Report::received(rubbish, TOOK).is_err(), "{rubbish:?}");
        }
        let mut late = toml::to_string(&Report::only(End::Exit(0))).unwrap().into_bytes();
        late.extend_from_slice(b"rubbish");
        assert!(Report::received(&late, TOOK).is_err());
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        for seconds in [0.3, -1e-9, f64::NAN, f64::INFINITY] {
            assert!(received(|report| report.seconds = Some(seconds)).is_err(), "{seconds}");
        }
    }

    #[test]
    fn names_that_no_monitor_knows_are_refused() {
        let probe = |name: &str| ProbeReport { name: name.into(), difference: None };
        for name in ["", "a b", "\u{1b}[2J", "<script>\n", &"x".repeat(33)] {
            assert!(received(|report| report.probes.push(probe(name))).is_err(), "{name:?}");
        }
        assert!(received(|report| report.probes = vec![probe("ring0"); 65]).is_err());
        assert!(received(|report| report.exits.push(("root".into(), 1))).is_err());
    }

    #[test]
    fn sentences_are_made_safe_to_print() {
        let report = received(|report| report.end = End::Died("\u{1b}]0;x\u{7}".repeat(200)));
        let Ok(Report { end: End::Died(text), .. }) = report else { panic!("{report:?}") };
        assert!(!text.chars().any(char::is_control) && text.chars().count() == 500, "{text}");
    }
}
