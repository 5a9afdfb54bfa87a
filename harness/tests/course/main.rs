//! `ringside run` and what it does besides running: machines that are saved and resumed, logs that are
//! recorded and replayed, strategies that change in mid-run. From outside, under every strategy that
//! works here.
//!
//! Guests are workloads: whatever happened on the way, they end with their checksum.

mod guest;

use guest::{Guest, ended_well, run, state, text, usable};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use strategy::StrategyId;

/// A time in which a guest has begun and not ended.
const SOON: &str = "150ms";

#[test]
fn a_machine_is_saved_under_every_strategy_and_resumed_under_every_other() {
    let all = usable();
    for (index, &saver) in all.iter().enumerate() {
        let guest = Guest::new("idle", 1_000, saver);
        let save_at = format!("{SOON}=saved");
        let output = guest.run(&["--save-at", &save_at, "--timeout", SOON]);
        assert_eq!(output.status.code(), Some(124), "{saver}: {}", text(&output.stderr));
        assert_eq!(guest.others(), ["saved"], "{saver}");
        let resumer = all[(index + 1) % all.len()].name();
        let options = ["--resume", "saved", "--debug-console", "--strategy", resumer];
        let again = run(guest.folder(), &options);
        ended_well(&again, &guest, &format!("{saver}, then {resumer}"));
    }
}

#[test]
fn a_guest_that_is_saved_goes_on() {
    for strategy in usable() {
        let guest = Guest::new("idle", 600, strategy);
        let output = guest.run(&["--save-at", "200ms=b", "--save-at", "100ms=a"]);
        ended_well(&output, &guest, strategy.name());
        assert_eq!(guest.others(), ["a", "b"], "{strategy}");
        let resumed = ["--resume", "a", "--debug-console", "--strategy", strategy.name()];
        ended_well(&run(guest.folder(), &resumed), &guest, strategy.name());
    }
}

#[test]
fn a_machine_that_was_to_be_saved_later_leaves_no_file() {
    let guest = Guest::new("in", 10, StrategyId::Interpretation);
    let output = guest.run(&["--save-at", "10min=late"]);
    ended_well(&output, &guest, "interpretation");
    assert!(text(&output.stderr).contains("ended before it was saved to late"));
    assert_eq!(guest.others(), [""; 0]);
}

#[test]
fn a_saved_machine_with_a_disk_wants_that_disk() {
    let guest = Guest::new("disk", 4_000, StrategyId::Interpretation);
    let save_at = format!("{SOON}=saved");
    let output = guest.run(&["--save-at", &save_at, "--timeout", SOON]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    let resume = ["--resume", "saved", "--debug-console"];
    ended_well(&run(guest.folder(), &resume), &guest, "interpretation");

    let disk = guest.folder().join("guest.disk");
    let mut contents = std::fs::read(&disk).unwrap();
    std::fs::rename(&disk, guest.folder().join("elsewhere")).unwrap();
    refused(&guest, &resume, &["guest.disk"]);
    let elsewhere = [&resume[..], &["--disk", "elsewhere", "--disk-read-only"]].concat();
    ended_well(&run(guest.folder(), &elsewhere), &guest, "interpretation");
    contents[1000] ^= 1;
    std::fs::write(&disk, contents).unwrap();
    refused(&guest, &resume, &["the disk is not the machine's"]);
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let guest = Guest::new("fib", 2_000, StrategyId::Interpretation);
    let output = guest.run(&["--save-at", "50ms=saved", "--timeout", "50ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    let saved = std::fs::read(guest.folder().join("saved")).unwrap();
    let with = |name: &str, bytes: &[u8]| std::fs::write(guest.folder().join(name), bytes).unwrap();
    let mut flipped = saved.clone();
    flipped[saved.len() / 2] ^= 0x10;
    with("flipped", &flipped);
    with("short", &saved[..saved.len() - 7]);
    with("foreign", b"#!/bin/sh\necho no machine at all\n");
    // The version, and the checksum over it and the eight bytes before.
    let mut newer = saved;
    newer[8] = 99;
    let checksum = crc32(&newer[..12]);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    with("newer", &newer);
    for (name, words) in [
        ("flipped", "is damaged"),
        ("short", "truncated"),
        ("foreign", "no saved machine"),
        ("newer", "a saved machine of version 99"),
        ("absent", "cannot be read"),
    ] {
        refused(&guest, &["--resume", name], &[name, words]);
    }
    refused(&guest, &["--resume", "flipped", "--memory", "64M"], &["--memory"]);
}

/// CRC-32 as Ethernet has it, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ 0xedb8_8320 & (crc & 1).wrapping_neg())
    })
}

#[test]
fn a_recording_under_every_strategy_is_replayed_to_the_same_state() {
    for strategy in usable() {
        for (name, iterations) in
            [("timer", 60), ("disk", 8), ("console", 2_000), ("syscall", 20_000)]
        {
            let guest = Guest::new(name, iterations, strategy);
            let what = format!("{name} under {strategy}");
            let recorded = guest.run(&["--record", "log"]);
            ended_well(&recorded, &guest, &what);
            let replayed = guest.run_plain(&["--replay", "log"]);
            assert_eq!(replayed.status.code(), Some(1), "{what}: {}", text(&replayed.stderr));
            assert_eq!(state(&replayed), state(&recorded), "{what}");
        }
    }
}

#[test]
fn a_recording_that_was_ended_is_replayed_up_to_there() {
    for strategy in usable() {
        let guest = Guest::new("idle", 10_000, strategy);
        let recorded = guest.run(&["--record", "log", "--timeout", SOON]);
        assert_eq!(recorded.status.code(), Some(124), "{strategy}: {}", text(&recorded.stderr));
        let replayed = guest.run_plain(&["--replay", "log"]);
        assert_eq!(replayed.status.code(), Some(0), "{strategy}: {}", text(&replayed.stderr));
        assert_eq!(state(&replayed), state(&recorded), "{strategy}");
    }
}

#[test]
fn a_recording_that_the_user_leaves_is_whole() {
    for strategy in usable() {
        let guest = Guest::new("idle", 10_000, strategy);
        let child = guest.start(&["--record", "log"]);
        std::thread::sleep(Duration::from_secs(1));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let recorded = child.wait_with_output().unwrap();
        assert_eq!(recorded.status.code(), Some(130), "{strategy}: {}", text(&recorded.stderr));
        let replayed = guest.run_plain(&["--replay", "log"]);
        assert_eq!(replayed.status.code(), Some(0), "{strategy}: {}", text(&replayed.stderr));
        assert_eq!(state(&replayed), state(&recorded), "{strategy}");
    }
}

#[test]
fn a_log_that_is_not_this_guests_is_refused_or_left() {
    let guest = Guest::new("console", 500, StrategyId::Interpretation);
    ended_well(&guest.run(&["--record", "log"]), &guest, "interpretation");
    let other = Guest::new("console", 501, StrategyId::Interpretation);
    let log = guest.folder().join("log");
    std::fs::copy(&log, other.folder().join("log")).unwrap();
    refused_with_guest(&other, &["--replay", "log"], &["log", "began in another state"]);

    let mut cut = std::fs::read(&log).unwrap();
    cut.truncate(cut.len() - 100);
    std::fs::write(&log, cut).unwrap();
    let left = guest.run_plain(&["--replay", "log"]);
    assert_eq!(left.status.code(), Some(10), "{}", text(&left.stderr));
    assert!(text(&left.stderr).contains("truncated"), "{}", text(&left.stderr));
    let strategy = usable().into_iter().find(|&id| id != StrategyId::Interpretation);
    if let Some(strategy) = strategy {
        let under = ["--replay", "log", "--strategy", strategy.name()];
        refused_with_guest(&guest, &under, &["under interpretation"]);
    }
}

#[test]
fn a_guest_goes_through_all_strategies() {
    let all = usable();
    for first in 0..all.len() {
        let guest = Guest::new("context-switch", 30_000, all[first]);
        let following = (1..=2 * all.len()).map(|step| all[(first + step) % all.len()].name());
        let options: Vec<_> =
            following.flat_map(|name| ["--then", name, "--after", "20ms"]).collect();
        let output = guest.run(&options);
        ended_well(&output, &guest, &format!("{} first", all[first]));
    }
}

#[test]
fn a_change_of_strategy_comes_when_it_should() {
    // What the first strategy would have to do is far more than it can in this time.
    let all = usable();
    let begin = Instant::now();
    let guest = Guest::new("idle", 150, all[0]);
    let last = all[all.len() - 1].name();
    let output = guest.run(&["--then", last, "--after", "100ms"]);
    ended_well(&output, &guest, last);
    let log = text(&output.stderr);
    assert!(log.contains(&format!("{last} after 1")), "{log}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let guest = Guest::new("in", 10, StrategyId::Interpretation);
    refused_with_guest(&guest, &["--then", "bochs", "--after", "1s"], &["--then", "\"bochs\""]);
    let two = ["--then", "interpretation", "--then", "interpretation", "--after", "1s"];
    refused_with_guest(&guest, &two, &["each --then needs its --after"]);
    refused_with_guest(&guest, &["--save-at", "5s"], &["TIME=FILE"]);
    refused_with_guest(&guest, &["--save-at", "5s=no/folder"], &["no/folder"]);
    refused_with_guest(&guest, &["--record", "no/folder"], &["no/folder"]);
    refused_with_guest(&guest, &["--replay", "nothing"], &["nothing"]);
}

fn refused_with_guest(guest: &Guest, options: &[&str], words: &[&str]) {
    check_refusal(guest.folder(), &guest.run_plain(options), words);
}

fn refused(guest: &Guest, options: &[&str], words: &[&str]) {
    check_refusal(guest.folder(), &run(guest.folder(), options), words);
}

#[track_caller]
fn check_refusal(folder: &Path, output: &Output, words: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
    let left = std::fs::read_dir(folder).unwrap();
    let hidden = left.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".ringside")
    });
    assert_eq!(hidden.count(), 0, "something was left behind");
}
