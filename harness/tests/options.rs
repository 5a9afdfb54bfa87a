//! Options of strategies from outside: in descriptions of machines, in experiments, on the command
//! line, and what becomes of them in the guest's process.

use ringside::records::{ExitRow, SampleRow, read};
use ringside::strategies;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use strategy::StrategyId;
use tempfile::TempDir;

/// cli; pushfd; pop eax; shr eax, 9; and al, 1; out 0xf4, al: the exit status is 3 where IF is seen
/// set, and 1 where it is not.
const SHOWS_IF: [u8; 10] = [0xfa, 0x9c, 0x58, 0xc1, 0xe8, 0x09, 0x24, 0x01, 0xe6, 0xf4];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn is_usable() -> bool {
    let usable = strategies::support(StrategyId::CodePatching).is_usable();
    if !usable {
        eprintln!("code-patching does not work here; nothing is tested");
    }
    usable
}

/// The exit status of the guest with this behind `kernel` and `kind`.
fn status(rest: &str, more: &[&str]) -> Option<i32> {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("code.bin"), SHOWS_IF).unwrap();
    let text = format!("kernel = \"code.bin\"\nkind = \"flat32\"\ntimeout = \"20s\"\n{rest}");
    std::fs::write(folder.path().join("vm.toml"), text).unwrap();
    let output = run(folder.path(), &[&["run", "vm.toml"], more].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(2) || error.lines().count() == 1, "{error}");
    output.status.code()
}

#[test]
fn the_mode_decides_what_the_guest_sees() {
    if !is_usable() {
        return;
    }
    let patching = "strategy = \"code-patching\"\n";
    let on_trap = "[options.code-patching]\nmode = \"on-trap\"\n";
    assert_eq!(status(patching, &[]), Some(1));
    assert_eq!(status(&format!("{patching}{on_trap}"), &[]), Some(3));
    assert_eq!(status(on_trap, &["--strategy", "code-patching"]), Some(3));
    assert_eq!(status("strategy = \"code-patching(on-trap)\"\n", &[]), Some(3));
    assert_eq!(status("", &["--strategy", "code-patching(on-trap)"]), Some(3));
    assert_eq!(status(&format!("{patching}{on_trap}threshold = 0"), &[]), Some(2));
}

#[test]
fn both_modes_are_measured_side_by_side() {
    if !is_usable() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let text = "strategies = [\"code-patching\", \"code-patching(on-trap)\"]\n\
                workloads = [\"cli-sti\", \"pushf\"]\nsamples = 1\nsample-time = \"2ms\"\n\
                [options.code-patching]\nthreshold = 3\n";
    std::fs::write(folder.path().join("x.toml"), text).unwrap();
    let output = run(folder.path(), &["bench", "x.toml", "--out", "out"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = folder.path().join("out");
    let samples: Vec<SampleRow> = read(&out.join("samples.csv")).unwrap();
    let outcome = |strategy: &str, workload: &str| {
        let row = samples.iter().find(|row| row.strategy == strategy && row.workload == workload);
        row.unwrap().outcome.name()
    };
    assert_eq!(outcome("code-patching", "cli-sti"), "ok");
    assert_eq!(outcome("code-patching(on-trap)", "cli-sti"), "ok");
    assert_eq!(outcome("code-patching", "pushf"), "ok");
    assert_eq!(outcome("code-patching(on-trap)", "pushf"), "wrong");
    let exits: Vec<ExitRow> = read(&out.join("exits.csv")).unwrap();
    let traps = exits.iter().filter(|row| row.workload == "cli-sti" && row.kind == "privileged");
    let traps = traps.map(|row| row.per_iteration).fold(0.0, f64::max);
    assert!(traps < 0.1, "{traps} traps an iteration, although CLI and STI were patched");
    let host = std::fs::read_to_string(out.join("host.toml")).unwrap();
    assert!(host.contains("code-patching(on-trap) (threshold 3"), "{host}");
    let saved = std::fs::read_to_string(out.join("experiment.toml")).unwrap();
    assert!(saved.contains("threshold = 3"), "{saved}");
}

/// What `pushf` comes to in an experiment with this in it.
fn outcome_of_pushf(rest: &str) -> Result<String, String> {
    let folder = TempDir::new().unwrap();
    let text = format!("workloads = [\"pushf\"]\nsamples = 1\nsample-time = \"2ms\"\n{rest}");
    std::fs::write(folder.path().join("x.toml"), text).unwrap();
    let output = run(folder.path(), &["bench", "x.toml", "--out", "out"]);
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(2));
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let samples: Vec<SampleRow> = read(&folder.path().join("out/samples.csv")).unwrap();
    Ok(samples[0].outcome.name().to_owned())
}

#[test]
fn user_code_is_run_as_said() {
    if !is_usable() || !strategies::support(StrategyId::BinaryTranslation).is_usable() {
        return;
    }
    let plain = "strategies = [\"binary-translation\"]\n";
    let named = "strategies = [\"binary-translation(direct)\"]\n";
    let option = |user| format!("[options.binary-translation]\nuser = \"{user}\"\n");
    assert_eq!(outcome_of_pushf(plain).as_deref(), Ok("ok"));
    assert_eq!(outcome_of_pushf(named).as_deref(), Ok("wrong"));
    assert_eq!(outcome_of_pushf(&format!("{plain}{}", option("direct"))).as_deref(), Ok("wrong"));
    let error = outcome_of_pushf(&format!("{named}{}", option("translated"))).unwrap_err();
    assert!(error.contains("contradicts") && error.contains("x.toml:6"), "{error}");
    let error = outcome_of_pushf(&format!("{plain}{}", option("native"))).unwrap_err();
    assert!(error.contains("x.toml:6") && error.contains("translated"), "{error}");
}
