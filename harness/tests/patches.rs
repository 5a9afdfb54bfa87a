//! `ringside patches` from outside: images that are looked at, guests that run, and what makes no sense.

use ringside::strategies;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use strategy::StrategyId;
use tempfile::TempDir;
use workloads::linux::Installed;

/// cli; push eax; mov eax, ebx; jz to the start; out 0x80, al; jmp to itself; hlt (which nobody reaches)
const CODE: [u8; 11] = [0xfa, 0x50, 0x89, 0xd8, 0x74, 0xfa, 0xe6, 0x80, 0xeb, 0xfe, 0xf4];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.arg("patches").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().unwrap()
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("kernel"), CODE).unwrap();
    let vm = "kernel = \"kernel\"\nkind = \"flat32\"\n";
    std::fs::write(folder.path().join("vm.toml"), vm).unwrap();
    folder
}

#[track_caller]
fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

type Row = HashMap<String, String>;

fn rows(path: &Path) -> Vec<Row> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

fn is_usable() -> bool {
    let usable = strategies::support(StrategyId::CodePatching).is_usable();
    if !usable {
        eprintln!("code-patching does not work here; no guest is run");
    }
    usable
}

#[test]
fn an_image_is_examined_from_its_entry() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["kernel", "--kind", "flat32", "--csv", "sites.csv", "--plot", "sites.svg"],
    );
    let text = said(&output);
    let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap().to_owned();
    assert!(
        line("00100000  fa").contains("jump for 6 bytes, 3 neighbours moved; stub of"),
        "{text}"
    );
    assert!(line("00100006  e680").contains("trap byte: a neighbour is branched to"), "{text}");
    assert!(!text.contains("hlt"), "{text}");
    let rows = rows(&folder.path().join("sites.csv"));
    let of = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("kind"), ["CLI", "OUT"]);
    assert_eq!(of("way"), ["virtual", ""]);
    let svg = std::fs::read_to_string(folder.path().join("sites.svg")).unwrap();
    assert!(svg.contains("the sites of kernel") && !svg.contains("warms up"));
    let swept = said(&run(folder.path(), &["kernel", "--kind", "flat32", "--sweep"]));
    assert!(swept.contains("hlt"), "{swept}");
}

#[test]
fn a_guest_tells_how_often_each_site_ran() {
    if !is_usable() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let output = run(
        folder.path(),
        &[
            "--workload",
            "cli-sti",
            "--iterations",
            "20000",
            "--mode",
            "both",
            "--threshold",
            "5",
            "--for",
            "60s",
            "--csv",
            "sites.csv",
            "--plot",
            "sites.png",
        ],
    );
    let text = said(&output);
    assert!(text.contains("cli-sti, prescan: ran for"), "{text}");
    assert!(text.contains("cli-sti, on-trap, threshold 5: ran for"), "{text}");
    assert!(text.contains("and ended: guest exit with value 0x0"), "{text}");
    let rows = rows(&folder.path().join("sites.csv"));
    for mode in ["prescan", "on-trap"] {
        let number = |row: &Row, key: &str| row[key].parse::<u64>().unwrap();
        let hot = rows.iter().filter(|row| row["mode"] == mode && number(row, "runs") >= 20_000);
        let hot: Vec<&Row> = hot.collect();
        let mut kinds: Vec<&str> = hot.iter().map(|row| row["kind"].as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["CLI", "STI"], "{mode}");
        for row in hot {
            assert_eq!((row["became"].as_str(), row["way"].as_str()), ("stub", "virtual"));
            assert!(number(row, "in_stub") + number(row, "traps") <= 20_500, "{row:?}");
            assert_eq!(number(row, "traps") > 0, mode == "on-trap", "{row:?}");
        }
    }
    assert!(rows.iter().any(|row| row["mode"] == "on-trap" && row["became"] == "left"));
    let png = std::fs::read(folder.path().join("sites.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
}

#[test]
fn a_guest_that_never_ends_is_looked_at_in_time() {
    if !is_usable() {
        return;
    }
    let folder = folder();
    let text = said(&run(folder.path(), &["vm.toml", "--for", "200ms", "--plot", "sites.svg"]));
    assert!(text.contains("vm.toml, prescan: ran for 2"), "{text}");
    assert!(text.contains("00100006  e680"), "{text}");
    let svg = std::fs::read_to_string(folder.path().join("sites.svg")).unwrap();
    assert!(svg.contains("As the guest warms up") && svg.contains("stubs made"));
}

#[test]
fn the_description_says_how_code_is_patched() {
    if !is_usable() {
        return;
    }
    let folder = folder();
    let vm = "kernel = \"kernel\"\nkind = \"flat32\"\nstrategy = \"code-patching\"\n\
              [options.code-patching]\nmode = \"on-trap\"\nthreshold = 7\n";
    std::fs::write(folder.path().join("vm.toml"), vm).unwrap();
    let text = said(&run(folder.path(), &["vm.toml", "--for", "100ms"]));
    assert!(text.contains("vm.toml, on-trap, threshold 7: ran for"), "{text}");
    let text = said(&run(folder.path(), &["vm.toml", "--for", "100ms", "--mode", "prescan"]));
    assert!(text.contains("vm.toml, prescan: ran for"), "{text}");
}

#[test]
fn nonsense_gets_one_error() {
    let folder = folder();
    let bad = "kernel = \"kernel\"\n[options.code-patching]\nmode = \"sometimes\"\n";
    std::fs::write(folder.path().join("bad.toml"), bad).unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["kernel"], "kernel"),
        (&["kernel", "--kind", "flat16"], "16-bit code is not patched"),
        (&["kernel", "--kind", "flat32", "--for", "5s"], "--for is for a guest that runs"),
        (&["kernel", "--kind", "flat32", "--entry", "0x50"], "--entry 0x50: no code is there"),
        (&["vm.toml", "--kind", "flat32"], "--kind is for an image that is only looked at"),
        (&["vm.toml", "--threshold", "5"], "--threshold is for on-trap mode"),
        (&["bad.toml"], "bad.toml:3: key \"options.code-patching.mode\": unknown mode"),
        (&["--workload", "nothing"], "no workload \"nothing\""),
        (&["no.toml"], "no.toml"),
    ];
    for (arguments, expected) in cases {
        let output = run(folder.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn every_workload_can_be_looked_at() {
    if !is_usable() {
        return;
    }
    let folder = TempDir::new().unwrap();
    for name in ["syscall", "self-modify", "interrupts", "sgdt", "disk", "fib"] {
        if !workloads::all().iter().any(|workload| workload.name == name) {
            continue;
        }
        let arguments =
            ["--workload", name, "--iterations", "20", "--for", "20s", "--mode", "both"];
        let text = said(&run(folder.path(), &arguments));
        assert_eq!(
            text.matches("and ended: guest exit with value 0x0").count(),
            2,
            "{name}: {text}"
        );
    }
}

#[test]
fn linux_shows_where_its_kernel_is_patched() {
    let installed = match Installed::find() {
        Ok(installed) => installed,
        Err(why) => return eprintln!("Linux is {why}: it is not looked at"),
    };
    let folder = TempDir::new().unwrap();
    let kernel = installed.kernel.to_str().unwrap();
    let text = said(&run(folder.path(), &[kernel, "--csv", "sites.csv", "--most", "3"]));
    assert!(text.contains("all of its executable bytes were examined"), "{text}");
    let sites = rows(&folder.path().join("sites.csv"));
    let count = |kind: &str| sites.iter().filter(|row| row["kind"] == kind).count();
    assert!(count("CLI") > 300 && count("PUSHF") > 300 && count("load segment") > 50);
    assert!(sites.iter().all(|row| row["became"] == "stub" || !row["reason"].is_empty()));
    if !is_usable() {
        return;
    }
    let vm = format!("kernel = {kernel:?}\ninitrd = {:?}\n", installed.initrd);
    std::fs::write(folder.path().join("vm.toml"), vm).unwrap();
    let text = said(&run(folder.path(), &["vm.toml", "--for", "3s", "--csv", "run.csv"]));
    assert!(text.contains("vm.toml, prescan: ran for"), "{text}");
    let ran = rows(&folder.path().join("run.csv"));
    assert!(ran.iter().any(|row| row["kind"] == "CLI" && row["in_stub"] != "0"), "{text}");
}
