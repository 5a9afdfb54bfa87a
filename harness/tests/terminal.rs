//! `ringside run` on a terminal: raw while the guest runs, and restored however the run ends.

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A pseudo-terminal: the end that a person would have, and the end that a program has.
struct Terminal {
    person: File,
    program: OwnedFd,
}

impl Terminal {
    fn new() -> Terminal {
        let (mut person, mut program) = (-1, -1);
        // SAFETY: the two descriptors are live for writing; the other arguments may be null.
        let result = unsafe {
            libc::openpty(
                &raw mut person,
                &raw mut program,
                std::ptr::null_mut(),
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        assert_eq!(result, 0);
        // SAFETY: openpty has just opened both, and nobody else has them.
        unsafe {
            Terminal { person: File::from_raw_fd(person), program: OwnedFd::from_raw_fd(program) }
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Boots an endless loop on this terminal and waits until the guest has it.
    fn boot(&self, folder: &std::path::Path) -> Child {
        std::fs::write(folder.join("loop.bin"), [0xeb, 0xfe]).unwrap();
        let end = || Stdio::from(self.program.as_fd().try_clone_to_owned().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.args(["run", "--kernel", "loop.bin", "--kind", "flat32", "--timeout", "60s"]);
        let child =
            command.current_dir(folder).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        wait_until("the terminal became raw", || self.is_raw());
        child
    }

    /// Everything that is shown until `word` appears.
    fn read_until(&mut self, word: &str) -> String {
        let mut shown = String::new();
        let mut part = [0; 256];
        while !shown.contains(word) {
            let length = self.person.read(&mut part).unwrap();
            shown += &String::from_utf8_lossy(&part[..length]);
        }
        shown
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero();
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[test]
fn the_leaving_keys_leave() {
    for keys in [&b"\x1d"[..], b"\x01x"] {
        let folder = tempfile::tempdir().unwrap();
        let mut terminal = Terminal::new();
        let mut child = terminal.boot(folder.path());
        terminal.read_until("Ctrl-]");
        terminal.person.write_all(keys).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!terminal.is_raw());
    }
}

#[test]
fn a_signal_ends_the_run_and_restores_the_terminal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let folder = tempfile::tempdir().unwrap();
        let terminal = Terminal::new();
        let mut child = terminal.boot(folder.path());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        assert!(!terminal.is_raw(), "{signal:?}");
    }
}

#[test]
fn a_monitor_that_dies_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new();
    let mut child = terminal.boot(folder.path());
    let workers = children_of(Pid::from_child(&child));
    let [worker] = workers[..] else { panic!("workers: {workers:?}") };
    // The first may meet the runtime's own handler, which only steps aside.
    while child.try_wait().unwrap().is_none() {
        let _ = kill_process(worker, Signal::SEGV);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(8));
    assert!(!terminal.is_raw());
    let shown = terminal.read_until("signal 11");
    assert!(shown.contains("the monitor died: segmentation fault"), "{shown}");
}

#[test]
fn no_guest_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::new();
    let mut child = terminal.boot(folder.path());
    let workers = children_of(Pid::from_child(&child));
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = |pid: &Pid| rustix::process::test_kill_process(*pid).is_err();
    wait_until("the guest ended", || workers.iter().all(gone));
}
