//! `ringside translate` from outside: what it prints, and how it fails.

use std::process::{Command, Output};
use tempfile::TempDir;

/// mov eax, [ebx + 4]; push eax; sgdt [esp]; mov cr3, eax; jmp to the start
const CODE: [u8; 13] =
    [0x8b, 0x43, 0x04, 0x50, 0x0f, 0x01, 0x04, 0x24, 0x0f, 0x22, 0xd8, 0xeb, 0xf3];

fn run(arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("kernel"), CODE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.args(["translate", "kernel"]).args(arguments);
    command.current_dir(folder.path()).output().unwrap()
}

fn said(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn guest_code_stands_beside_host_code() {
    let text = said(&["--kind", "flat32", "--at", "0x100000"]);
    assert!(text.starts_with("5 instructions, 13 bytes of guest code, "), "{text}");
    let line = |what: &str| text.lines().find(|line| line.contains(what)).unwrap().to_owned();
    let load = line("00100000  mov eax,[ebx+4]");
    assert!(load.contains("| "), "{text}");
    assert!(text.contains("mov eax,[gs:ebx+4]"), "{text}");
    assert!(line("00100003  push eax").contains("the guest's ESP is R14"), "{text}");
    assert!(line("00100004  sgdt [esp]").contains("emulated in the cache"), "{text}");
    assert!(line("00100008  mov cr3,eax").contains("left to the emulator"), "{text}");
    assert!(line("0010000b  jmp short 00100000h").contains("linked"), "{text}");
}

#[test]
fn a_unit_may_begin_anywhere() {
    let text = said(&["--kind", "flat32", "--address", "0x8000", "--at", "0x8003"]);
    assert!(text.contains("00008003  push eax"), "{text}");
}

#[test]
fn nonsense_gets_one_error() {
    let cases: [(&[&str], &str); 4] = [
        (&["--kind", "flat32", "--at", "0x200000"], "kernel: --at 0x200000: no code is there"),
        (&["--kind", "flat16", "--at", "0x7c00"], "16-bit code is not translated"),
        (&["--at", "0x100000"], "kernel"),
        (&["--kind", "flat32", "--at", "here"], "expected a number below 2^32"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}
