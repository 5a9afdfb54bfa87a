//! Guests that go wrong by design, and what runs without a guest: what the bench makes of them.

use ringside::records::{Outcome, ProbeRow, SummaryRow, read};
use std::process::{Command, Stdio};
use strategy::StrategyId;
use tempfile::TempDir;

/// The folder of a run with these arguments and one sample.
fn bench(arguments: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringside"))
        .args(["bench", "--samples", "1", "--out", "out"])
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn summary(folder: &TempDir) -> Vec<SummaryRow> {
    read(&folder.path().join("out/summary.csv")).unwrap()
}

/// Whether this host runs guest code natively; says so where it does not.
fn runs_natively() -> bool {
    let support = ringside::strategies::support(StrategyId::TrapAndEmulate);
    if !support.is_usable() {
        eprintln!("nothing was run: {support:?}");
    }
    support.is_usable()
}

#[test]
fn a_guest_that_goes_wrong_has_no_time_but_the_place_where_it_did() {
    if !runs_natively() {
        return;
    }
    let folder = bench(&["--strategy", "trap-and-emulate", "--workload", "popf"]);
    let rows = summary(&folder);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.outcome, row.ns_per_iteration), (Outcome::Wrong, None));
    assert!(row.detail.starts_with("left the architecture at 0x"), "{}", row.detail);
    assert!(row.detail.contains(": popfd: EFLAGS 0x2 instead of 0x202"), "{}", row.detail);
    assert!(row.detail.contains("probe ring0-set"), "{}", row.detail);
    let probes: Vec<ProbeRow> = read(&folder.path().join("out/probes.csv")).unwrap();
    assert_eq!(probes.len(), 6);
    let report = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(report.contains("POPF does not trap"), "the stated reason is not in the report");
}

#[test]
fn native_runs_compute_workloads_and_nothing_else() {
    if !runs_natively() {
        return;
    }
    let folder =
        bench(&["--strategy", "interpretation", "--peer", "native", "--workload", "crc32,callret"]);
    let rows = summary(&folder);
    let ran = |row: &SummaryRow| (row.strategy.clone(), row.workload.clone(), row.outcome);
    let expected =
        [("interpretation", "callret"), ("interpretation", "crc32"), ("native", "crc32")];
    let expected = expected.map(|(who, what)| (who.to_owned(), what.to_owned(), Outcome::Ok));
    let mut found: Vec<_> = rows.iter().map(ran).collect();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    assert_eq!(found, expected);
    let report = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(report.contains("of native speed"));
}

#[test]
fn native_alone_with_nothing_to_compute_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = "strategies = []\npeers = [\"native\"]\nworkloads = [\"nano\"]\n";
    std::fs::write(folder.path().join("x.toml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringside"))
        .args(["bench", "x.toml", "--out", "out"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("native runs compute workloads only"), "{said}");
    assert!(!folder.path().join("out").exists());
}
