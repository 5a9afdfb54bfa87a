//! What a strategy must make of a workload where that is not simply the right result: data with a
//! reason, in `expectations.toml`.
//!
//! A known failure still runs, and must fail in the stated way: one that is right after all is as
//! much a finding as one that is wrong in another way.

use crate::guest::{Report, Verdict};
use crate::records::Outcome;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What is expected of one workload under one strategy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Why it is right all the same, or how it goes wrong.
    pub why: String,
    /// Probes that must be wrong.
    #[serde(default)]
    wrong: BTreeSet<String>,
    /// What the guest sees at a probe that is wrong, where that does not depend on the host.
    #[serde(default)]
    seen: BTreeMap<String, u32>,
    /// Probes that the host decides about.
    #[serde(default)]
    host: BTreeSet<String>,
}

/// What is stated about one strategy.
#[derive(Clone, Default, Debug, Deserialize)]
struct Statements {
    /// What is not stated here, is as it is for this strategy.
    #[serde(rename = "as")]
    other: Option<String>,
    #[serde(flatten)]
    workloads: BTreeMap<String, Expectation>,
}

type Table = BTreeMap<String, Statements>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        toml::from_str(include_str!("expectations.toml")).expect("a test reads the same text")
    })
}

/// What stands in the table about a workload under a strategy.
#[must_use]
pub fn stated(strategy: &str, workload: &str) -> Option<&'static Expectation> {
    let statements = table().get(strategy)?;
    let own = statements.workloads.get(workload);
    own.or_else(|| stated(statements.other.as_deref()?, workload))
}

/// Whether a run came out as it must: with the right result, or wrong in the stated way.
///
/// # Errors
/// In words, when it did not.
pub fn check(
    strategy: &str,
    workload: &str,
    report: &Report,
    verdict: &Verdict,
) -> Result<(), String> {
    match stated(strategy, workload) {
        Some(expectation) => expectation.check(report, verdict),
        None if verdict.outcome == Outcome::Ok => Ok(()),
        None => Err(format!("{}: {}", verdict.outcome.name(), verdict.detail)),
    }
}

impl Expectation {
    /// Whether it goes wrong, or does so on some hosts.
    #[must_use]
    pub fn goes_wrong(&self) -> bool {
        !self.wrong.is_empty() || !self.host.is_empty()
    }

    /// The outcome in a word, or two where the host decides.
    #[must_use]
    pub fn in_words(&self) -> &'static str {
        match (self.wrong.is_empty(), self.host.is_empty()) {
            (false, _) => "wrong",
            (true, true) => "right",
            (true, false) => "as the host has it",
        }
    }

    fn check(&self, report: &Report, verdict: &Verdict) -> Result<(), String> {
        let differences: BTreeMap<&str, u32> = report
            .probes
            .iter()
            .filter_map(|probe| Some((probe.name.as_str(), probe.difference?.0)))
            .collect();
        for name in &self.wrong {
            if !differences.contains_key(name.as_str()) {
                return Err(format!(
                    "probe {name} is no longer wrong ({}): update expectations.toml",
                    verdict.outcome.name()
                ));
            }
        }
        for (&name, &seen) in &differences {
            if !self.wrong.contains(name) && !self.host.contains(name) {
                return Err(format!(
                    "probe {name} is wrong, which is not stated: {}",
                    verdict.detail
                ));
            }
            if let Some(stated) = self.seen.get(name).filter(|&&stated| stated != seen) {
                return Err(format!("probe {name} saw {seen:#010x}, and {stated:#010x} is stated"));
            }
        }
        let expected = if differences.is_empty() { Outcome::Ok } else { Outcome::Wrong };
        if verdict.outcome == expected {
            Ok(())
        } else {
            Err(format!("{}: {}", verdict.outcome.name(), verdict.detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{End, ProbeReport};
    use crate::strategies::Variant;

    fn run(end: End, probes: &[(&str, Option<u32>)]) -> (Report, Verdict) {
        let probes = probes.iter().map(|&(name, seen)| ProbeReport {
            name: name.to_owned(),
            difference: seen.map(|seen| (seen, !seen)),
        });
        let report = Report {
            probes: probes.collect(),
            checksum: Some(1),
            seconds: Some(1.0),
            ..Report::only(end)
        };
        let verdict = report.verdict(1);
        (report, verdict)
    }

    fn checked(probes: &[(&str, Option<u32>)]) -> Result<(), String> {
        let expectation = Expectation {
            why: "it does not trap".to_owned(),
            wrong: ["ring0".to_owned()].into(),
            seen: [("ring0".to_owned(), 7)].into(),
            host: ["ring3".to_owned()].into(),
        };
        let (report, verdict) = run(End::Exit(0), probes);
        expectation.check(&report, &verdict)
    }

    #[test]
    fn the_stated_failure_is_what_must_happen() {
        assert_eq!(checked(&[("ring0", Some(7)), ("ring3", None)]), Ok(()));
        assert_eq!(checked(&[("ring0", Some(7)), ("ring3", Some(9))]), Ok(()));
    }

    #[test]
    fn any_other_result_is_a_finding() {
        let right = checked(&[("ring0", None), ("ring3", None)]).unwrap_err();
        assert!(right.contains("no longer wrong"), "{right}");
        let other = checked(&[("ring0", Some(8))]).unwrap_err();
        assert!(other.contains("0x00000008"), "{other}");
        let more = checked(&[("ring0", Some(7)), ("ring0-new", Some(7))]).unwrap_err();
        assert!(more.contains("ring0-new"), "{more}");
    }

    #[test]
    fn a_crash_is_never_what_was_stated() {
        let (report, verdict) = run(End::Died("trap".to_owned()), &[("ring0-osxsave", None)]);
        for workload in ["cpuid", "sieve"] {
            let found = check("trap-and-emulate", workload, &report, &verdict);
            assert_eq!(found, Err("crashed: trap".to_owned()));
        }
    }

    #[test]
    fn every_entry_is_about_a_strategy_and_a_workload_and_gives_a_reason() {
        let workloads = workloads::all();
        let is_strategy = |name: &str| Variant::all().any(|variant| variant.name() == name);
        for (strategy, statements) in table() {
            assert!(is_strategy(strategy), "{strategy}");
            assert!(statements.other.as_deref().is_none_or(is_strategy), "{strategy}");
            for (workload, entry) in &statements.workloads {
                assert!(workloads.iter().any(|each| each.name == workload), "{workload}");
                assert!(!entry.why.is_empty() && !entry.why.ends_with('.'), "{workload}");
                let known = |name| entry.wrong.contains(name) || entry.host.contains(name);
                assert!(entry.seen.keys().all(known), "{workload}: seen where nothing is wrong");
                assert!(entry.wrong.is_disjoint(&entry.host), "{workload}");
            }
        }
    }

    #[test]
    fn what_runs_unexamined_has_a_statement_about_every_sensitive_instruction() {
        let sensitive = workloads::all().into_iter();
        let sensitive = sensitive.filter(|each| each.group == workloads::Group::Sensitive);
        for workload in sensitive {
            for strategy in ["trap-and-emulate", "code-patching(on-trap)"] {
                assert!(stated(strategy, workload.name).is_some(), "{}", workload.name);
            }
        }
    }
}
