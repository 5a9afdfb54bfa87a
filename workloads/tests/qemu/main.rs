//! Every workload under QEMU's translator, where QEMU is installed: it must report the checksum that
//! the host computed, every probe right, and no fault.
//!
//! QEMU is no oracle for what it is known to do wrong; such probes are in [`KNOWN_WRONG`].

mod emulator;
mod runtime;

use emulator::{is_installed, run};
use workloads::Workload;

/// `workload/probe` that QEMU's translator gets wrong, with the reason.
const KNOWN_WRONG: &[(&str, &str)] = &[
    ("mov-seg/ring0-limit", NO_LIMITS),
    ("mov-seg/ring0-through-null", NO_LIMITS),
    ("pop-seg/ring0-limit", NO_LIMITS),
    ("pop-seg/ring0-through-null", NO_LIMITS),
    ("ltr/ring0-null", "LTR accepts the null selector"),
    ("mov-cr0/ring0-nw-without-cd", "MOV to CR0 checks no combination of bits"),
    ("mov-dr/ring0-detect", NO_GENERAL_DETECT),
    ("mov-dr/ring0-detect-dr6", NO_GENERAL_DETECT),
];

const NO_LIMITS: &str = "data accesses are not checked against the segment";
const NO_GENERAL_DETECT: &str = "DR7.GD does nothing";

/// What is wrong with a run, if anything.
fn complaint(workload: &Workload, iterations: u32) -> Option<String> {
    let image = workload.assemble(iterations).unwrap();
    let (status, transcript) = run(&image, workload.memory_bytes);
    let mut complaints = Vec::new();
    if status != Some(1) {
        complaints.push(format!("exit status {status:?}"));
    }
    if transcript.result != Some(image.checksum) {
        let result = transcript.result;
        complaints.push(format!("result {result:x?} instead of {:x}", image.checksum));
    }
    if transcript.measured.is_none() {
        complaints.push("no marks".to_owned());
    }
    if let Some(fault) = transcript.fault {
        complaints.push(format!("{fault:x?}"));
    }
    if !transcript.other.is_empty() {
        complaints.push(format!("also said {:?}", transcript.other));
    }
    for probe in transcript.probes.iter().filter(|probe| probe.difference.is_some()) {
        let name = format!("{}/{}", workload.name, probe.name);
        if !KNOWN_WRONG.iter().any(|(known, _reason)| *known == name) {
            complaints.push(format!("{probe:x?}"));
        }
    }
    let name = workload.name;
    (!complaints.is_empty()).then(|| format!("{name}({iterations}): {}", complaints.join(", ")))
}

/// The workloads to run: all, or the one that the environment variable WORKLOAD names.
fn chosen() -> Vec<Workload> {
    let only = std::env::var("WORKLOAD").ok();
    workloads::all()
        .into_iter()
        .filter(|workload| only.as_ref().is_none_or(|name| name == workload.name))
        .collect()
}

#[test]
fn every_workload_is_right_under_qemu() {
    if !is_installed() {
        return;
    }
    let complaints: Vec<String> = chosen()
        .iter()
        .flat_map(|workload| {
            // Once round, and often enough that a loop's second time round differs from its first.
            [1, 3, workload.first_iterations].map(|iterations| complaint(workload, iterations))
        })
        .flatten()
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
