//! Debian's Linux in a virtual machine. The kernel is installed by `workloads/linux/install`; where it
//! is not, these tests say so. Two boots under binary-translation take seconds; what takes minutes is
//! ignored by default:
//!
//! ```sh
//! cargo test --release -p ringside --test linux -- --ignored --nocapture
//! ```

use std::process::{Command, Output};
use workloads::linux::{Installed, command_line, items};

/// The status after the exit port was written 0 to.
const EXIT_PORT: i32 = 1;
/// The status after a power-off.
const POWER_OFF: i32 = 0;

/// Boots a kernel under a strategy; gives what the guest printed, or nothing where Linux is not
/// installed.
fn boot(strategy: &str, cpu: &str, append: &str, status: i32) -> Option<String> {
    let installed = match Installed::find() {
        Ok(installed) => installed,
        Err(why) => {
            eprintln!("Linux is {why}: this boot is not tested");
            return None;
        }
    };
    let Output { status: ended, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_ringside"))
        .arg("run")
        .args(["--strategy", strategy, "--cpu", cpu, "--timeout", "280s", "--memory", "128M"])
        .arg("--kernel")
        .arg(&installed.kernel)
        .arg("--initrd")
        .arg(&installed.initrd)
        .args(["--append", append])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr);
    assert_eq!(ended.code(), Some(status), "{errors}\n{text}");
    Some(text)
}

/// Does the whole list of work, and looks at every result.
fn work(strategy: &str, cpu: &str) {
    let names: Vec<&str> = items().map(|(name, _)| name).collect();
    if let Some(text) = boot(strategy, cpu, &command_line(&names), EXIT_PORT) {
        for (name, checksum) in items() {
            assert!(text.contains(&format!("work: {name} {checksum:08x}")), "{name}: {text}");
        }
    }
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
fn a_bare_pc_boots_to_the_first_process() {
    let append = command_line(&[]);
    if let Some(text) = boot("binary-translation", "pentium3", &append, EXIT_PORT) {
        assert!(text.contains("init has started: "), "{text}");
    }
}

#[test]
fn a_kernel_that_is_told_nothing_finds_the_machine_and_switches_it_off() {
    let append = "console=ttyS0 work=nothing";
    if let Some(text) = boot("binary-translation", "pentium4", append, POWER_OFF) {
        for found in [
            "ACPI: PM-Timer IO Port: 0x608",
            "ACPI: 1 ACPI AML tables successfully acquired and loaded",
            "ACPI: PM: (supports S0 S5)",
            "rtc_cmos 00:02: setting system clock",
            "init has started: ",
            "reboot: Power down",
        ] {
            assert!(text.contains(found), "{found}: {text}");
        }
        assert!(!text.contains("ACPI Error") && !text.contains("ACPI BIOS Error"), "{text}");
    }
}

#[test]
#[ignore = "boots Linux: a minute"]
fn interpretation_boots_to_the_first_process() {
    if let Some(text) = boot("interpretation", "pentium3", &command_line(&[]), EXIT_PORT) {
        assert!(text.contains("init has started: "), "{text}");
    }
}

#[test]
#[ignore = "boots Linux and does the whole list of work"]
fn binary_translation_does_the_work_with_the_right_results() {
    work("binary-translation", "pentium4");
}

#[test]
#[ignore = "boots Linux and does the whole list of work: two minutes"]
fn interpretation_does_the_work_with_the_right_results() {
    work("interpretation", "pentium4");
}
