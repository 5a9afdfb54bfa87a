//! Every workload under QEMU's translator, where QEMU is installed: it must report the checksum that
//! the host computed, every probe right, and no fault.
//!
//! QEMU is no oracle for what it is known to do wrong; such probes are in [`KNOWN_WRONG`].

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use workloads::protocol::Transcript;
use workloads::{Image, Workload, disk_image};

const PROGRAM: &str = "qemu-system-i386";
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// `workload/probe` that QEMU's translator gets wrong, with the reason.
const KNOWN_WRONG: &[(&str, &str)] = &[];

/// QEMU's command line for `image` at `kernel`.
fn command(workload: &Workload, image: &Image, directory: &Path) -> Command {
    let kernel = directory.join("kernel");
    std::fs::write(&kernel, &image.bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["-accel", "tcg", "-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-vga", "std", "-serial", "null", "-debugcon"])
        .arg(format!("file:{}", directory.join("console").display()))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-m", &workload.memory_bytes.div_ceil(1 << 20).max(16).to_string()])
        .arg("-kernel")
        .arg(kernel);
    if image.disk_sectors > 0 {
        let disk = directory.join("disk");
        std::fs::write(&disk, disk_image(image.disk_sectors)).unwrap();
        command.arg("-drive").arg(format!("file={},format=raw,if=ide", disk.display()));
    }
    command
}

/// Runs a workload; the exit status and everything it wrote.
fn run(workload: &Workload, image: &Image) -> (Option<i32>, Transcript<usize>) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(workload, image, directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > TIME_LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let bytes = std::fs::read(directory.path().join("console")).unwrap_or_default();
    (status, Transcript::read(bytes.into_iter().enumerate().map(|(at, byte)| (byte, at))))
}

/// What is wrong with a run, if anything.
fn complaint(workload: &Workload, iterations: u32) -> Option<String> {
    let image = workload.assemble(iterations).unwrap();
    let (status, transcript) = run(workload, &image);
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

/// Whether QEMU is there; says so where it is not.
fn qemu_is_installed() -> bool {
    let found = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{PROGRAM} is not installed: no workload was run under QEMU");
    }
    found
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
    if !qemu_is_installed() {
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
