//! Starting QEMU's translator on an image and reading what the guest wrote.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use workloads::protocol::Transcript;
use workloads::{Image, disk_image};

const PROGRAM: &str = "qemu-system-i386";
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// QEMU's command line for `image` at `kernel`.
fn command(image: &Image, memory_bytes: u64, directory: &Path) -> Command {
    let kernel = directory.join("kernel");
    std::fs::write(&kernel, &image.bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["-accel", "tcg", "-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-vga", "std", "-serial", "null", "-debugcon"])
        .arg(format!("file:{}", directory.join("console").display()))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-m", &memory_bytes.div_ceil(1 << 20).max(16).to_string()])
        .arg("-kernel")
        .arg(kernel);
    if image.disk_sectors > 0 {
        let disk = directory.join("disk");
        std::fs::write(&disk, disk_image(image.disk_sectors)).unwrap();
        command.arg("-drive").arg(format!("file={},format=raw,if=ide", disk.display()));
    }
    command
}

/// Runs an image; the exit status and everything it wrote.
pub(crate) fn run(image: &Image, memory_bytes: u64) -> (Option<i32>, Transcript<usize>) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(image, memory_bytes, directory.path())
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

/// Whether QEMU is there; says so where it is not.
pub(crate) fn is_installed() -> bool {
    let found = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{PROGRAM} is not installed: no workload was run under QEMU");
    }
    found
}
