//! Runs for tests: a small recorded one (`synthetic/`, made up, not measured) and a large one made
//! here, as large as runs get.

use ringside::records::{
    self, EXITS, ExitRow, GroupList, Host, Outcome, PROBES, ProbeOutcome, ProbeRow, SAMPLES,
    SampleRow,
};
use std::path::Path;

/// A copy of the recorded run in a folder of its own.
pub(crate) fn synthetic() -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/synthetic");
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

const STRATEGIES: [&str; 8] = [
    "interpretation",
    "trap-and-emulate",
    "code-patching",
    "binary-translation",
    "hardware-assist",
    "qemu-tcg",
    "qemu-kvm",
    "native",
];

const GROUPS: [(&str, usize); 5] =
    [("nano", 7), ("sensitive", 40), ("simulator", 16), ("compute", 12), ("system", 10)];

/// Eight strategies and peers with long labels, 85 workloads with long names, every outcome.
pub(crate) fn large() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let groups: Vec<GroupList> = GROUPS.iter().map(|&(name, count)| group(name, count)).collect();
    let keys = || {
        let workloads = groups.iter().flat_map(|group| &group.workloads).enumerate();
        workloads.flat_map(|(w, name)| {
            STRATEGIES.iter().enumerate().map(move |(s, strategy)| (s, *strategy, w, name.as_str()))
        })
    };
    let samples: Vec<SampleRow> =
        (0..5).flat_map(|n| keys().map(move |key| sample(n, key))).collect();
    let exits: Vec<ExitRow> = keys().filter(|&(s, ..)| s < 5).flat_map(exits).collect();
    let probes: Vec<ProbeRow> =
        keys().filter(|(_, _, _, name)| name.starts_with("sensitive")).flat_map(probes).collect();
    records::write(&dir.path().join(SAMPLES), &samples).unwrap();
    records::write(&dir.path().join(EXITS), &exits).unwrap();
    records::write(&dir.path().join(PROBES), &probes).unwrap();
    host(groups).save(dir.path()).unwrap();
    dir
}

fn group(name: &str, count: usize) -> GroupList {
    let workload = |index| format!("{name}-other-page-{index}");
    GroupList { name: name.to_owned(), workloads: (0..count).map(workload).collect() }
}

fn host(groups: Vec<GroupList>) -> Host {
    let label = |name: &str| (name.to_owned(), format!("{name} (KVM in software: kvm_pvm)"));
    Host {
        ringside: "0.0.0".into(),
        date: "2026-01-02 03:04 UTC".into(),
        cpu: "Synthetic CPU 9000 with a Very Long Marketing Name (made up for tests)".into(),
        cores: 128,
        kernel: "Linux 6.18.0-cloud-amd64".into(),
        kvm: "KVM in software: kvm_pvm".into(),
        labels: ["hardware-assist", "qemu-kvm"].map(label).into(),
        groups,
        ..Host::default()
    }
}

/// Spread over six decades, the same in every run.
fn nanoseconds(s: usize, w: usize) -> f64 {
    10f64.powf(1.0 + ((s * 37 + w * 61) % 97) as f64 / 97.0 * 6.0)
}

fn sample(number: u32, (s, strategy, w, workload): (usize, &str, usize, &str)) -> SampleRow {
    let outcome = Outcome::ALL[if s == 1 && w % 3 == 0 { w / 3 % 5 } else { 0 }];
    let noise = 1.0 + f64::from(number) / 50.0;
    SampleRow {
        strategy: strategy.to_owned(),
        workload: workload.to_owned(),
        sample: number,
        iterations: 1000,
        seconds: (outcome == Outcome::Ok).then(|| nanoseconds(s, w) * noise * 1e-6),
        outcome,
    }
}

fn exits((s, strategy, w, workload): (usize, &str, usize, &str)) -> Vec<ExitRow> {
    let kinds = strategy::ExitKind::ALL;
    let row = |part: usize| {
        let count = [100_000_000, 3000, 700, 20][part];
        ExitRow {
            strategy: strategy.to_owned(),
            workload: workload.to_owned(),
            kind: kinds[(s + w + part * 5) % kinds.len()].name().to_owned(),
            count,
            per_iteration: count as f64 / 1000.0,
        }
    };
    (0..1 + w % 4).map(row).collect()
}

fn probes((s, strategy, w, workload): (usize, &str, usize, &str)) -> Vec<ProbeRow> {
    let row = |probe: &str| {
        let outcome = ProbeOutcome::ALL[if s == 1 { w % 4 } else { 0 }];
        ProbeRow {
            strategy: strategy.to_owned(),
            workload: workload.to_owned(),
            probe: probe.to_owned(),
            outcome,
            seen: (outcome == ProbeOutcome::Wrong).then_some(0x202),
            expected: (outcome == ProbeOutcome::Wrong).then_some(2),
        }
    };
    vec![row("ring0"), row("ring3")]
}
