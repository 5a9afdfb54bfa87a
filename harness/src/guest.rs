//! One run of a measured guest: what is to be run, what came out, and what that is worth.
//!
//! The workers and the peers both end in a [`Report`]; the verdict on it is the same for both.

use crate::records::{Outcome, ProbeOutcome, ProbeRow};
use machine::cpu::CpuModel;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};
use workloads::Workload;
use workloads::protocol::Transcript;

/// Probes and stray lines of one guest that are kept; a workload has a handful.
const KEPT: usize = 64;

/// A guest to run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What it measures.
    pub workload: &'a Workload,
    /// The iterations in its image.
    pub iterations: u32,
    /// The multiboot image.
    pub image: &'a Path,
    /// The disk, if the guest needs one.
    pub disk: Option<&'a Path>,
    /// What is booted beside the image if that is a Linux kernel, not a multiboot image.
    pub linux: Option<LinuxBoot<'a>>,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// The CPU that the guest sees.
    pub cpu: CpuModel,
    /// How long it may run.
    pub timeout: Duration,
    /// Whether its process is confined; peers take no notice.
    pub sandbox: bool,
}

/// What a Linux kernel is given.
#[derive(Clone, Copy, Debug)]
pub struct LinuxBoot<'a> {
    /// The initial RAM disk.
    pub initrd: &'a Path,
    /// The command line.
    pub append: &'a str,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The guest wrote this value to the exit port.
    Exit(u8),
    /// The guest died, or its monitor did: how.
    Died(String),
    /// The strategy cannot run it: why.
    Unsupported(String),
    /// It did not finish in time.
    Timeout,
    /// The same, with what is known of how far it came.
    Late(String),
    /// We were asked to stop.
    Interrupted,
}

/// What one probe saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Which probe, such as `ring3`.
    pub name: String,
    /// What the guest saw and what the architecture says, where they differ.
    pub difference: Option<(u32, u32)>,
}

/// What one of several items came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ItemReport {
    /// Which item.
    pub name: String,
    /// Host time between its marks.
    pub seconds: Option<f64>,
    /// The checksum that the guest reported.
    pub checksum: Option<u32>,
}

/// Everything that is known of one run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// Host time between the marks.
    pub seconds: Option<f64>,
    /// The checksum that the guest reported.
    pub checksum: Option<u32>,
    /// An exception that the guest did not expect, in words.
    pub fault: Option<String>,
    /// The probes, in order.
    pub probes: Vec<ProbeReport>,
    /// Exits of the whole run by kind, those that happened.
    pub exits: Vec<(String, u64)>,
    /// Host time from the start of the guest's process to the first byte on the debug console.
    #[serde(default)]
    pub first: Option<f64>,
    /// The items of a guest that does several things, in order.
    #[serde(default)]
    pub items: Vec<ItemReport>,
}

impl Report {
    /// A run of which only the end is known.
    #[must_use]
    pub fn only(end: End) -> Report {
        Report {
            end,
            seconds: None,
            checksum: None,
            fault: None,
            probes: Vec::new(),
            exits: Vec::new(),
            first: None,
            items: Vec::new(),
        }
    }

    /// What a debug console says about a run that began at `begin` and ended so.
    #[must_use]
    pub fn new(
        begin: Instant,
        end: End,
        console: impl IntoIterator<Item = (u8, Instant)>,
    ) -> Report {
        let transcript = Transcript::read(console);
        let between = |(begin, end): (Instant, Instant)| (end - begin).as_secs_f64();
        let measured = transcript.measured.map(between);
        let fault = transcript.fault.map(|fault| {
            format!(
                "exception {} in the guest, error code {:#x}, EIP {:#010x}, CR2 {:#010x}",
                fault.vector, fault.error_code, fault.eip, fault.cr2
            )
        });
        let probes = transcript.probes.into_iter().take(KEPT);
        let items = transcript.items.into_iter().take(KEPT).map(|item| ItemReport {
            name: item.name,
            seconds: item.measured.map(between),
            checksum: item.result,
        });
        Report {
            first: transcript.first.map(|at| between((begin, at))),
            items: items.collect(),
            seconds: measured,
            checksum: transcript.result,
            fault,
            probes: probes
                .map(|probe| ProbeReport { name: probe.name, difference: probe.difference })
                .collect(),
            ..Report::only(end)
        }
    }

    /// What the run is worth, for a workload that must report `checksum`; a run that is not ok
    /// gets a sentence that says why.
    #[must_use]
    pub fn verdict(&self, checksum: u32) -> Verdict {
        match (&self.end, &self.fault) {
            (End::Unsupported(why), _) => Verdict::not(Outcome::Unsupported, why.clone()),
            (End::Timeout, _) => Verdict::not(Outcome::Timeout, "not finished in time".to_owned()),
            (End::Late(how), _) => {
                Verdict::not(Outcome::Timeout, format!("not finished in time; {how}"))
            }
            (End::Interrupted, _) => Verdict::not(Outcome::Crashed, "interrupted".to_owned()),
            (_, Some(fault)) => Verdict::not(Outcome::Crashed, fault.clone()),
            (End::Died(how), None) => Verdict::not(Outcome::Crashed, how.clone()),
            (End::Exit(value), None) => self.verdict_at_exit(*value, checksum),
        }
    }

    fn verdict_at_exit(&self, value: u8, checksum: u32) -> Verdict {
        if let Some(wrong) = self.wrong_probes() {
            return Verdict::not(Outcome::Wrong, wrong);
        }
        match (self.checksum, self.seconds) {
            _ if value != 0 => {
                Verdict::not(Outcome::Crashed, format!("the guest gave up with status {value}"))
            }
            (Some(seen), _) if seen != checksum => Verdict::not(
                Outcome::Wrong,
                format!("checksum {seen:08x}, expected {checksum:08x}"),
            ),
            (None, _) => Verdict::not(Outcome::Crashed, "the guest reported no result".to_owned()),
            (Some(_), None) => {
                Verdict::not(Outcome::Crashed, "the guest marked no measured part".to_owned())
            }
            (Some(_), Some(seconds)) => {
                Verdict { outcome: Outcome::Ok, seconds: Some(seconds), detail: String::new() }
            }
        }
    }

    fn wrong_probes(&self) -> Option<String> {
        let one = |probe: &ProbeReport| {
            let (seen, expected) = probe.difference?;
            Some(format!("{}: saw {seen:08x}, expected {expected:08x}", probe.name))
        };
        let wrong: Vec<String> = self.probes.iter().filter_map(one).collect();
        (!wrong.is_empty()).then(|| format!("probe {}", wrong.join("; ")))
    }

    /// Each probe's row. A run that ended before it could report all of them has one more, named
    /// `run`.
    #[must_use]
    pub fn probe_rows(&self, strategy: &str, workload: &str) -> Vec<ProbeRow> {
        let row = |name: &str, outcome, difference: Option<(u32, u32)>| ProbeRow {
            strategy: strategy.to_owned(),
            workload: workload.to_owned(),
            probe: name.to_owned(),
            outcome,
            seen: difference.map(|(seen, _)| seen),
            expected: difference.map(|(_, expected)| expected),
        };
        let ended = match &self.end {
            End::Unsupported(_) => Some(ProbeOutcome::Unsupported),
            End::Exit(0) => None,
            _ => Some(ProbeOutcome::Trapped),
        };
        let reported = self.probes.iter().map(|probe| {
            let right = probe.difference.is_none();
            let outcome = if right { ProbeOutcome::Right } else { ProbeOutcome::Wrong };
            row(&probe.name, outcome, probe.difference)
        });
        reported.chain(ended.map(|outcome| row("run", outcome, None))).collect()
    }

    /// How often each kind of exit happened, 0 where it did not.
    #[must_use]
    pub fn exits_of(&self, kind: &str) -> u64 {
        self.exits.iter().find(|(name, _)| name == kind).map_or(0, |&(_, count)| count)
    }
}

/// What a run is worth.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// How it ended, in a word.
    pub outcome: Outcome,
    /// Host time between the marks, only with [`Outcome::Ok`].
    pub seconds: Option<f64>,
    /// Why it is not ok.
    pub detail: String,
}

impl Verdict {
    fn not(outcome: Outcome, detail: String) -> Verdict {
        Verdict { outcome, seconds: None, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(end: End, text: &[u8]) -> Report {
        let start = Instant::now();
        let at = |index: usize| start + Duration::from_millis(index as u64);
        Report::new(start, end, text.iter().enumerate().map(|(index, &byte)| (byte, at(index))))
    }

    #[test]
    fn a_right_result_has_a_time() {
        let verdict = report(End::Exit(0), b"\x02\x03result 0000002a\n").verdict(42);
        assert_eq!(verdict.outcome, Outcome::Ok);
        assert!((verdict.seconds.unwrap() - 1e-3).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_result_has_none() {
        let verdict = report(End::Exit(0), b"\x02\x03result 0000002a\n").verdict(43);
        assert_eq!((verdict.outcome, verdict.seconds), (Outcome::Wrong, None));
        assert_eq!(verdict.detail, "checksum 0000002a, expected 0000002b");
    }

    #[test]
    fn a_wrong_probe_spoils_a_right_checksum() {
        let text = b"probe ring0 ok\nprobe ring3 wrong 1 2\n\x02\x03result 0000002a\n";
        let report = report(End::Exit(0), text);
        assert_eq!(report.verdict(42).outcome, Outcome::Wrong);
        let rows = report.probe_rows("interpretation", "sgdt");
        let [right, wrong] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((right.probe.as_str(), right.outcome), ("ring0", ProbeOutcome::Right));
        assert_eq!((wrong.probe.as_str(), wrong.outcome), ("ring3", ProbeOutcome::Wrong));
        assert_eq!((wrong.seen, wrong.expected), (Some(1), Some(2)));
    }

    #[test]
    fn a_fault_is_a_crash_that_names_its_address() {
        let verdict = report(End::Exit(1), b"\x02fault d 10 00101234 0\n").verdict(42);
        assert_eq!(verdict.outcome, Outcome::Crashed);
        assert!(verdict.detail.contains("EIP 0x00101234"), "{}", verdict.detail);
    }

    #[test]
    fn what_never_reported_is_no_time() {
        assert_eq!(report(End::Exit(0), b"").verdict(0).outcome, Outcome::Crashed);
        assert_eq!(report(End::Exit(0), b"result 0\n").verdict(0).outcome, Outcome::Crashed);
        assert_eq!(report(End::Timeout, b"\x02").verdict(0).outcome, Outcome::Timeout);
        let died = report(End::Died("segmentation fault".to_owned()), b"\x02");
        assert_eq!(died.verdict(0).outcome, Outcome::Crashed);
        let rows = died.probe_rows("interpretation", "sgdt");
        assert_eq!((rows.len(), rows[0].outcome), (1, ProbeOutcome::Trapped));
    }

    #[test]
    fn reports_survive_the_way_from_the_worker() {
        let text = b"probe ring3 wrong 1 2\n\x02\x03result 0000002a\n";
        let mut sent = report(End::Died("trap".to_owned()), text);
        sent.exits.push(("port-io".to_owned(), 12));
        let received: Report = toml::from_str(&toml::to_string(&sent).unwrap()).unwrap();
        assert_eq!(received, sent);
    }
}
