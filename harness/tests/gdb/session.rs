//! `ringside run --gdb` with the real gdb at the other end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a guest or gdb may take over anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether gdb is there; says so if not.
pub(crate) fn has_gdb() -> bool {
    let found = Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("gdb is not installed: nothing is debugged");
    }
    found
}

/// A guest that waits for gdb.
pub(crate) struct Waiting {
    child: Child,
    errors: BufReader<ChildStderr>,
    port: u16,
}

impl Waiting {
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Waiting {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.arg("run").args(options).args(["--gdb", "0"]).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let port = line.trim_end().strip_suffix(']').and_then(|line| line.rsplit_once(':'));
        let port = port.and_then(|(_, port)| port.parse().ok());
        Waiting { child, errors, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) }
    }

    /// gdb, connected, with these commands to follow.
    pub(crate) fn gdb(&self, commands: &[String]) -> Command {
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch"]).stdin(Stdio::null());
        let target = format!("target remote 127.0.0.1:{}", self.port);
        for first in ["set pagination off", "set confirm off", "set architecture i386", &target] {
            command.args(["-ex", first]);
        }
        for each in commands {
            command.args(["-ex", each]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What gdb says to these commands.
    pub(crate) fn say(&self, commands: &[String]) -> String {
        let output = self.gdb(commands).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    /// How the guest ended, and what was said about it.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child);
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

/// Waits for a program, not for ever.
#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
