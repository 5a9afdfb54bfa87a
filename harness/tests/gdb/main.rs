//! Guests under the real gdb, under every strategy that works here.

mod guest;
mod session;

use guest::{LOAD, Places, image};
use ringside::strategies;
use session::{Waiting, has_gdb, wait};
use std::io::{BufRead, BufReader};
use std::time::Duration;
use strategy::{StrategyId, Support};
use tempfile::TempDir;

fn usable() -> Vec<StrategyId> {
    let works = |id: &StrategyId| match strategies::support(*id) {
        Support::Missing(why) => {
            eprintln!("{id} does not work here and is left out: {why}");
            false
        }
        Support::Full | Support::Qualified(_) => true,
    };
    StrategyId::ALL.into_iter().filter(|&id| strategies::is_built(id)).filter(works).collect()
}

/// The guest of this test in a folder, waiting under a strategy.
fn start(strategy: StrategyId) -> (TempDir, Waiting, Places) {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, places) = image();
    std::fs::write(folder.path().join("guest"), bytes).unwrap();
    let options =
        ["--kernel", "guest", "--kind", "flat32", "--strategy", strategy.name(), "--memory", "16M"];
    let waiting = Waiting::start(folder.path(), &options);
    (folder, waiting, places)
}

fn commands<const COUNT: usize>(commands: [&str; COUNT]) -> Vec<String> {
    commands.map(str::to_owned).to_vec()
}

/// Asserts that what gdb said has these in this order.
#[track_caller]
fn in_order(said: &str, words: &[&str], what: &str) {
    let mut rest = said;
    for word in words {
        let at = rest.find(word);
        let at = at.unwrap_or_else(|| panic!("{what}: {word:?} is not next in\n{said}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn a_breakpoint_is_met_at_an_address_that_was_not_there_when_it_was_set() {
    if !has_gdb() {
        return;
    }
    for strategy in usable() {
        let (_folder, waiting, places) = start(strategy);
        let Places { turn, counted, .. } = places;
        let mut all = vec![format!("break *{turn:#x}"), format!("break *{counted:#x}")];
        // Three turns, then the end of the count.
        for _ in 0..4 {
            all.extend(commands(["continue", "printf \"at %x: %d, %d\\n\", $pc, $ebx, $edi"]));
        }
        all.push(format!("printf \"byte %x\\n\", *(unsigned char*){turn:#x}"));
        all.extend(commands(["delete", "set $ecx = 0x1234", "continue"]));
        let said = waiting.say(&all);
        let turns =
            (0..3).map(|turn_number| format!("at {turn:x}: {turn_number}, {}", turn_number + 1));
        let expected: Vec<_> = turns
            .chain([format!("at {counted:x}: 3, 3"), "byte 43".to_owned(), "exited".to_owned()])
            .collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        in_order(&said, &expected, strategy.name());
        let (status, words) = waiting.end();
        assert_eq!(status.code(), Some(11), "{strategy}: {words}");
    }
}

#[test]
fn single_steps_go_through_every_instruction_and_an_int3_into_its_handler() {
    if !has_gdb() {
        return;
    }
    for strategy in usable() {
        let (_folder, waiting, places) = start(strategy);
        let print = "printf \"at %x\\n\", $pc";
        let mut all = commands(["stepi", print, "stepi", print]);
        all.push(format!("break *{:#x}", places.turn));
        all.extend(commands(["continue", "stepi", print, "stepi", "stepi", print, "stepi", print]));
        all.extend(commands(["kill"]));
        let said = waiting.say(&all);
        let at = |address: u32| format!("at {address:x}\n");
        let turn = places.turn;
        let handler = LOAD + 0x10;
        // INC, CMP, JNE: then the INT3 before it, and its handler.
        let expected = [at(LOAD + 0x12), at(LOAD + 0x17), at(turn + 1), at(turn - 1), at(handler)];
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        in_order(&said, &expected, strategy.name());
        let (status, words) = waiting.end();
        assert_eq!(status.code(), Some(0), "{strategy}: {words}");
    }
}

#[test]
fn registers_and_memory_are_read_and_written() {
    if !has_gdb() {
        return;
    }
    let (_folder, waiting, places) = start(StrategyId::Interpretation);
    let mut all = vec![format!("break *{:#x}", places.waiting), "continue".to_owned()];
    all.extend(commands([
        "set $eax = 0x12345678",
        "set $eflags = $eflags | 1",
        "set $xmm3.v4_int32[1] = 77",
        "printf \"eax %x, carry %d, xmm %d\\n\", $eax, $eflags & 1, $xmm3.v4_int32[1]",
        "set $cs = 16",
        "set var *(int*)0xc0300ffe = 0x55667788",
        "printf \"low %x\\n\", *(int*)0x300ffe",
        "printf \"nowhere %x\\n\", *(int*)0x80000000",
        "printf \"video %x\\n\", *(int*)0xb8000",
        "kill",
    ]));
    let said = waiting.say(&all);
    in_order(&said, &["eax 12345678, carry 1, xmm 77", "low 55667788"], "registers");
    for word in ["Could not write register", "Cannot access memory at address 0x80000000"] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    waiting.end();
}

#[test]
fn a_running_guest_is_interrupted() {
    if !has_gdb() {
        return;
    }
    for strategy in usable() {
        let (_folder, waiting, places) = start(strategy);
        let all = commands([
            "printf \"going\\n\"",
            "continue",
            "printf \"at %x\\n\", $pc",
            "set $ecx = 0x1234",
            "detach",
        ]);
        let mut gdb = waiting.gdb(&all).spawn().unwrap();
        let output = BufReader::new(gdb.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "going"));
        std::thread::sleep(Duration::from_millis(500));
        let pid = rustix::process::Pid::from_child(&gdb);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let rest: Vec<_> = lines.collect();
        wait(&mut gdb);
        let place = rest.iter().find_map(|line| line.strip_prefix("at "));
        let place = place.and_then(|place| u32::from_str_radix(place, 16).ok());
        let waits = places.waiting..places.waiting + 9;
        assert!(place.is_some_and(|place| waits.contains(&place)), "{strategy}: {rest:?}");
        let (status, words) = waiting.end();
        assert_eq!(status.code(), Some(11), "{strategy}: {words}");
    }
}

#[test]
fn a_workload_that_stops_often_comes_to_its_checksum() {
    if !has_gdb() {
        return;
    }
    let all = workloads::all();
    let workload = all.iter().find(|workload| workload.name == "context-switch").unwrap();
    let image = workload.assemble(3_000).unwrap();
    for strategy in usable() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("guest"), &image.bytes).unwrap();
        let memory = workload.memory_bytes.to_string();
        let options = ["--kernel", "guest", "--memory", &memory, "--debug-console"];
        let options = [&options[..], &["--strategy", strategy.name()]].concat();
        let waiting = Waiting::start(folder.path(), &options);
        // Where it is after a while, it comes by again.
        let mut all = commands(["stepi 3000", "tbreak *$pc", "continue", "break *$pc"]);
        all.extend(commands(["ignore 2 50", "continue", "info breakpoints", "delete", "continue"]));
        let said = waiting.say(&all);
        let (status, words) = waiting.end();
        let expected = format!("result {:08x}", image.checksum);
        assert!(words.to_lowercase().contains(&expected), "{strategy}: {words}\n{said}");
        assert_eq!(status.code(), Some(1), "{strategy}: {words}");
        in_order(&said, &["breakpoint already hit 51 times"], strategy.name());
    }
}

#[test]
fn when_gdb_is_gone_without_a_word_the_guest_goes_on() {
    if !has_gdb() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let all = workloads::all();
    let workload = all.iter().find(|workload| workload.name == "in").unwrap();
    std::fs::write(folder.path().join("guest"), workload.assemble(10).unwrap().bytes).unwrap();
    let waiting = Waiting::start(folder.path(), &["--kernel", "guest", "--memory", "64M"]);
    let words = commands(["stepi", "printf \"stepped\\n\"", "shell sleep 3"]);
    let mut gdb = waiting.gdb(&words).spawn().unwrap();
    let output = BufReader::new(gdb.stdout.take().unwrap());
    assert!(output.lines().map(Result::unwrap).any(|line| line == "stepped"));
    gdb.kill().unwrap();
    gdb.wait().unwrap();
    let (status, words) = waiting.end();
    assert_eq!(status.code(), Some(1), "{words}");
}
