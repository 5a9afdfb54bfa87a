//! `ringside` from outside: what it says, what it leaves behind, and the status that it ends with.

use ringside::config::{Kind, Vm, VmOptions};
use ringside::records::{SampleRow, read};
use ringside::strategies;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use strategy::StrategyId;
use tempfile::TempDir;

fn ringside() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringside"))
}

fn run(arguments: &[&str], folder: &Path) -> Output {
    ringside().args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// A folder with one file in it.
fn folder_with(name: &str, contents: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), contents).unwrap();
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs with `arguments` in `folder`; it must fail as a bad set-up does, say so in one line with
/// all of `words`, and leave the folder as it was.
#[track_caller]
fn refuses(folder: &TempDir, arguments: &[&str], words: &[&str]) {
    let before = names(folder.path());
    let output = run(arguments, folder.path());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
    assert_eq!(names(folder.path()), before, "something was written");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let folder = folder_with("x.toml", "workloads = [\"in\"]\nstrategies = []\nsmaples = 3\n");
    refuses(
        &folder,
        &["bench", "x.toml", "--out", "out"],
        &["x.toml:3:", "\"smaples\"", "did you mean \"samples\"?"],
    );
}

#[test]
fn a_wrong_type_is_named_with_its_key() {
    let folder = folder_with(
        "x.toml",
        "strategies = [\"interpretation\"]\nworkloads = [\"in\"]\nsamples = \"many\"\n",
    );
    refuses(
        &folder,
        &["bench", "x.toml", "--out", "out"],
        &["x.toml:3:", "\"samples\"", "\"many\"", "expected a whole number"],
    );
}

#[test]
fn an_unknown_workload_is_named_with_the_nearest_one() {
    let folder = folder_with(
        "x.toml",
        "strategies = [\"interpretation\"]\nworkloads = [\n  \"seive\",\n]\n",
    );
    refuses(
        &folder,
        &["bench", "x.toml", "--out", "out"],
        &["x.toml:3:", "\"workloads\"", "\"seive\"", "did you mean \"sieve\"?"],
    );
}

#[test]
fn names_on_the_command_line_are_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    refuses(
        &folder,
        &["bench", "--strategy", "interpretatoin", "--out", "out"],
        &["command line:", "did you mean \"interpretation\"?"],
    );
}

#[test]
fn text_that_is_no_toml_is_located() {
    let folder = folder_with("x.toml", "name = \"x\"\nsamples = = 3\n");
    refuses(&folder, &["bench", "x.toml", "--out", "out"], &["x.toml:2:"]);
}

#[test]
fn an_experiment_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    refuses(&folder, &["bench", "no.toml", "--out", "out"], &["no.toml: cannot be read"]);
}

#[test]
fn a_memory_size_that_makes_no_sense_is_refused() {
    for (size, words) in [("\"63\"", "63"), ("\"5G\"", "5G"), ("4097", "4097")] {
        let folder = folder_with("vm.toml", format!("kernel = \"vm.toml\"\nmemory = {size}\n"));
        refuses(
            &folder,
            &["run", "vm.toml"],
            &["vm.toml:2:", "\"memory\"", words, "from 1M to 3G"],
        );
    }
}

#[test]
fn a_disk_that_is_not_there_is_named() {
    let folder = folder_with("vm.toml", "kernel = \"vm.toml\"\n\ndisk = \"no-disk.img\"\n");
    refuses(&folder, &["run", "vm.toml"], &["vm.toml:3:", "\"disk\"", "no-disk.img"]);
    refuses(
        &folder,
        &["run", "--kernel", "vm.toml", "--disk", "none.img"],
        &["command line: --disk", "none.img"],
    );
}

#[test]
fn a_machine_without_a_kernel_is_refused() {
    let folder = folder_with("vm.toml", "memory = \"64M\"\n");
    refuses(&folder, &["run", "vm.toml"], &["vm.toml:", "nothing to boot"]);
}

#[test]
fn a_truncated_kernel_is_refused_with_the_place() {
    let mut image = workload("sieve");
    image.truncate(image.len() / 2);
    let folder = folder_with("short.bin", image);
    refuses(&folder, &["run", "--kernel", "short.bin"], &["short.bin"]);
}

#[test]
fn results_that_cannot_be_written_are_refused_before_any_guest_runs() {
    let folder = folder_with("file", "");
    refuses(
        &folder,
        &["bench", "--strategy", "interpretation", "--workload", "in", "--out", "file/out"],
        &["file/out", "cannot be made"],
    );
    refuses(
        &folder,
        &["bench", "--strategy", "interpretation", "--workload", "in", "--out", "."],
        &["is not empty"],
    );
}

#[test]
fn a_run_can_be_read_and_is_not_mixed_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let one = ["bench", "--strategy", "interpretation", "--workload", "in", "--out", "out"];
    let output = run(&[&one[..], &["--samples", "2"]].concat(), folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("out/report.html"));
    let out = folder.path().join("out");
    for file in ["samples.csv", "summary.csv", "exits.csv", "host.toml", "experiment.toml"] {
        assert!(out.join(file).exists(), "{file} is missing");
    }
    let rows: Vec<SampleRow> = read(&out.join("samples.csv")).unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.seconds.is_some_and(|seconds| seconds >= 0.02)), "{rows:?}");

    let other = run(&[&one[..], &["--samples", "3"]].concat(), folder.path());
    assert_eq!(other.status.code(), Some(2));
    assert!(text(&other.stderr).contains("holds another experiment"));
}

#[test]
fn an_interrupted_run_keeps_what_it_has_and_goes_on() {
    let folder = folder_with(
        "x.toml",
        "strategies = [\"interpretation\"]\nworkloads = [\"in\", \"callret\"]\nsamples = 12\n",
    );
    let samples = folder.path().join("out/samples.csv");
    let mut bench = ringside();
    bench.args(["bench", "x.toml", "--out", "out"]).current_dir(&folder);
    let mut child = bench.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("a sample", || {
        std::fs::read_to_string(&samples).is_ok_and(|s| s.lines().count() > 2)
    });
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before: Vec<SampleRow> = read(&samples).unwrap();
    assert!((1..24).contains(&before.len()), "{} samples", before.len());
    assert!(folder.path().join("out/summary.csv").exists());

    let again = run(&["bench", "--resume", "out"], folder.path());
    assert!(again.status.success(), "{}", text(&again.stderr));
    let after: Vec<SampleRow> = read(&samples).unwrap();
    assert_eq!(after[..before.len()], before);
    for workload in ["in", "callret"] {
        let rows = after.iter().filter(|row| row.workload == workload);
        let numbers: Vec<u32> = rows.map(|row| row.sample).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>(), "{workload}");
    }
}

#[test]
fn list_names_everything() {
    let output = run(&["list"], Path::new("/"));
    assert!(output.status.success());
    let listed = text(&output.stdout);
    for name in strategies::Variant::all().map(strategies::Variant::name) {
        assert!(listed.contains(name), "{name} is not listed");
    }
    for workload in workloads::all() {
        assert!(listed.contains(workload.summary), "{} is not listed", workload.name);
    }
    assert!(listed.contains("qemu-tcg") && listed.contains("pentium4"));
}

#[test]
fn doctor_says_what_there_is() {
    let output = run(&["doctor"], Path::new("/"));
    assert!(output.status.success());
    let said = text(&output.stdout);
    for line in ["CPU", "kernel", "vm.mmap_min_addr", "interpretation", "hardware-assist"] {
        assert!(said.contains(line), "nothing about {line} in {said}");
    }
}

/// Boots `code` as 32-bit code, with `input` on the serial port.
fn boot(code: &[u8], input: &[u8], more: &[&str]) -> Output {
    let folder = folder_with("code.bin", code);
    let mut command = ringside();
    command.args(["run", "--kernel", "code.bin", "--kind", "flat32"]).args(more);
    command.current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_exit_port_gives_the_status() {
    // mov al, 5; out 0xf4, al
    assert_eq!(boot(&[0xb0, 5, 0xe6, 0xf4], b"", &[]).status.code(), Some(11));
}

#[test]
fn a_guest_that_never_ends_is_stopped_in_time() {
    // jmp $
    let begin = Instant::now();
    let output = boot(&[0xeb, 0xfe], b"", &["--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    assert!(begin.elapsed() < Duration::from_secs(3), "it took {:?}", begin.elapsed());
}

#[test]
fn a_guest_that_halts_for_ever_ends() {
    // cli; hlt
    let output = boot(&[0xfa, 0xf4], b"", &["--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
}

#[test]
fn a_triple_fault_ends_with_the_place() {
    // lidt [0]; ud2
    let output = boot(&[0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0x0f, 0x0b], b"", &["--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("triple fault at CS:EIP"));
}

#[test]
fn the_serial_port_is_on_the_terminal() {
    #[rustfmt::skip]
    let echo = [
        0x66, 0xba, 0xfd, 0x03, // 0: mov dx, 0x3fd
        0xec,                   // 4: in al, dx
        0xa8, 0x01,             // test al, 1
        0x74, 0xf7,             // jz 0
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec,                   // in al, dx
        0xee,                   // out dx, al
        0x3c, b'!',             // cmp al, '!'
        0x75, 0xed,             // jne 0
        0x31, 0xc0,             // xor eax, eax
        0xe6, 0xf4,             // out 0xf4, al
    ];
    let output = boot(&echo, b"hello!", &["--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello!");
}

#[test]
fn a_workload_boots_as_a_machine() {
    let folder = folder_with("in.bin", workload("in"));
    std::fs::write(
        folder.path().join("vm.toml"),
        "kernel = \"in.bin\"\nmemory = \"64M\"\ncpu = \"pentium4\"\nstrategy = \"interpretation\"\n\
         debug-console = true\ntimeout = \"30s\"\n",
    )
    .unwrap();
    let output = run(&["run", "vm.toml"], folder.path());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("result "), "{said}");
}

#[test]
fn the_command_line_changes_what_a_file_says() {
    let toml = "kernel = \"vm.toml\"\nkind = \"flat16\"\nmemory = \"16M\"\nappend = \"quiet\"\n";
    let folder = folder_with("vm.toml", toml);
    let options =
        VmOptions { memory: Some("32M".into()), append: Some("".into()), ..Default::default() };
    let vm = Vm::load(Some(&folder.path().join("vm.toml")), &options).unwrap();
    assert_eq!((vm.memory_bytes, vm.append.as_str(), vm.kind), (32 << 20, "", Kind::Flat16));
    assert_eq!(vm.kernel, Some(folder.path().join("vm.toml")));
}

fn workload(name: &str) -> Vec<u8> {
    let all = workloads::all();
    let workload = all.iter().find(|workload| workload.name == name).unwrap();
    workload.assemble(10).unwrap().bytes
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_comparison_ends_with_a_status_that_says_whether_there_was_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let same = ["compare", "interpretation", "interpretation", "--workload", "disk"];
    let output = run(&same, folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("interpretation: no difference"),
        "{}",
        text(&output.stdout)
    );
    if !strategies::support(StrategyId::TrapAndEmulate).is_usable() {
        eprintln!("trap-and-emulate does not work here: its SGDT is not compared");
        return;
    }
    let wrong = ["compare", "trap-and-emulate", "interpretation", "--workload", "sgdt"];
    let output = run(&wrong, folder.path());
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let culprit = found.lines().find(|line| line.starts_with("-->"));
    assert!(culprit.is_some_and(|line| line.contains("sgdt")), "{found}");

    // A setting of a strategy by its name, as everywhere else.
    let named = ["compare", "code-patching(on-trap)", "interpretation", "--workload", "sgdt"];
    let output = run(&named, folder.path());
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{found}{}", text(&output.stderr));
    assert!(found.starts_with("code-patching(on-trap): "), "{found}");
}

#[test]
fn a_comparison_goes_on_from_where_a_machine_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let compare = |more: &[&str]| {
        let all = [&["compare", "interpretation", "interpretation"], more].concat();
        let output = run(&all, folder.path());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let fib = ["--workload", "fib", "--iterations", "100"];
    let whole = compare(&fib);
    let options = ["--limit", "1000000", "--save-at", "500000=saved"];
    compare(&[&fib[..], &options[..]].concat());
    let rest = compare(&["--from", "saved"]);
    assert!(rest.starts_with("interpretation: no difference up to the end"), "{rest}");
    let count = |text: &str| {
        let count = text.split(": ").last().and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let left = count(&whole) - count(&rest);
    assert!((500_000..600_000).contains(&left), "{whole}{rest}");
}

#[test]
fn a_comparison_of_nothing_is_refused() {
    let folder = folder_with("damaged", "no saved machine");
    refuses(&folder, &["compare", "interpretation", "bochs", "--workload", "fib"], &["\"bochs\""]);
    let both = ["compare", "interpretation", "interpretation"];
    refuses(&folder, &[&both[..], &["--workload", "nix"]].concat(), &["\"nix\""]);
    refuses(&folder, &[&both[..], &["--from", "damaged"]].concat(), &["damaged"]);
    let save = ["--workload", "fib", "--save-at", "soon"];
    refuses(&folder, &[&both[..], &save].concat(), &["NUMBER=FILE"]);
}
