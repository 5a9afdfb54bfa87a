//! Debian's Linux in a virtual machine. The kernel is installed by `workloads/linux/install`; where it
//! is not, these tests say so. Booting takes a minute without optimization for speed, so what boots is
//! ignored by default:
//!
//! ```sh
//! cargo test --release -p ringside --test linux -- --ignored --nocapture
//! ```

use std::process::Command;
use workloads::linux::{Installed, command_line, items};

/// Boots under a strategy with the items to do; gives what the guest printed, or nothing where Linux
/// is not installed.
fn boot(strategy: &str, items: &[&str], cpu: &str) -> Option<String> {
    let installed = match Installed::find() {
        Ok(installed) => installed,
        Err(why) => {
            eprintln!("Linux is {why}");
            return None;
        }
    };
    let output = Command::new(env!("CARGO_BIN_EXE_ringside"))
        .arg("run")
        .args(["--strategy", strategy, "--cpu", cpu, "--timeout", "280s", "--memory", "128M"])
        .arg("--kernel")
        .arg(&installed.kernel)
        .arg("--initrd")
        .arg(&installed.initrd)
        .args(["--append", &command_line(items)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The guest leaves by the exit port with 0, which is status 1.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}\n{text}");
    Some(text)
}

#[test]
fn it_is_said_whether_linux_is_installed() {
    let list = Command::new(env!("CARGO_BIN_EXE_ringside")).arg("list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let line = list.lines().find(|line| line.contains("group linux")).unwrap();
    match Installed::find() {
        Ok(installed) => {
            assert!(installed.kernel.is_file() && installed.initrd.is_file());
            assert!(!line.contains("not installed"), "{line}");
        }
        Err(why) => {
            eprintln!("Linux is {why}: no boot is tested");
            assert!(line.contains("workloads/linux/install"), "{line}");
        }
    }
}

#[test]
#[ignore = "boots Linux: a minute"]
fn linux_boots_to_its_first_process() {
    if let Some(text) = boot("interpretation", &[], "pentium3") {
        assert!(text.contains("init has started: "), "{text}");
    }
}

#[test]
#[ignore = "boots Linux and does the whole list of work: two minutes"]
fn linux_does_its_work_with_the_right_results() {
    let names: Vec<&str> = items().map(|(name, _)| name).collect();
    if let Some(text) = boot("interpretation", &names, "pentium4") {
        for (name, checksum) in items() {
            assert!(text.contains(&format!("work: {name} {checksum:08x}")), "{name}: {text}");
        }
    }
}
