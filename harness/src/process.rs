//! Child processes that cannot outlive us, cannot hang us and cannot flood us: each guest runs in
//! one, so that whatever it does to its monitor costs one sample.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Output kept of each stream; the rest is read and dropped.
const KEPT: usize = 1 << 20;

/// How often a wait looks whether it shall end.
const GLANCE: Duration = Duration::from_millis(50);

/// A flag that makes waits end: Ctrl-C, for one.
#[derive(Clone, Default, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Raises the flag, for good.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By itself, or by a signal that was not ours.
    Itself(ExitStatus),
    /// It was killed at its deadline.
    TimedOut,
    /// It was killed because the [`Stop`] was raised.
    Stopped,
    /// It was killed because it wrote what `fatal` was looking for.
    Fatal,
}

/// What a child left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to its standard output, each byte with the time when it was read.
    pub output: Vec<(u8, Instant)>,
    /// What it wrote to its standard error.
    pub errors: String,
    /// When it was started.
    pub begin: Instant,
    /// How long it took, from before its start.
    pub took: Duration,
}

/// What ends a child before its time.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// How long it may run.
    pub timeout: Duration,
    /// The flag that ends it.
    pub stop: &'a Stop,
    /// Words on its standard error after which it only hangs.
    pub fatal: Option<&'static str>,
}

/// Runs `command` to its end, with nothing on its standard input.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, watch: &Watch) -> std::io::Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    bind_to_us(command);
    let begin = Instant::now();
    let mut child = command.spawn()?;
    let (ended, end) = channel();
    let fatal = Stop::default();
    let output = child.stdout.take().map(|pipe| {
        std::thread::spawn(move || {
            let output = read_with_times(pipe);
            // The receiver may be gone: then nobody waits any more.
            let _ = ended.send(());
            output
        })
    });
    let errors = child.stderr.take().map(|pipe| {
        let (word, found) = (watch.fatal, fatal.clone());
        std::thread::spawn(move || read_text(pipe, word, &found))
    });
    let ending = wait(&mut child, &end, watch, &fatal)?;
    let took = begin.elapsed();
    Ok(Finished { ending, output: joined(output), errors: joined(errors), begin, took })
}

/// Makes the child die with us, and keeps the terminal's Ctrl-C from it: we decide when it ends. It
/// has its three standard streams and no other descriptor, whatever we were started with.
pub fn bind_to_us(command: &mut Command) {
    command.process_group(0);
    let bind = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        close_at_exec()
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes
    // two system calls and allocates nothing.
    unsafe { command.pre_exec(bind) };
}

/// Marks all descriptors but the standard streams to be closed when a program is executed.
fn close_at_exec() -> std::io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only marks; nothing is closed in this program.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
    let error = std::io::Error::last_os_error();
    match (marked, error.raw_os_error()) {
        // Linux before 5.11, on which no strategy runs guest code natively.
        (-1, Some(libc::ENOSYS | libc::EINVAL)) | (0, _) => Ok(()),
        _ => Err(error),
    }
}

fn wait(
    child: &mut Child,
    end: &Receiver<()>,
    watch: &Watch,
    fatal: &Stop,
) -> std::io::Result<Ending> {
    let deadline = Instant::now() + watch.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Its output ends when the child does, unless it closed that before.
        let ended = match end.recv_timeout(left.min(GLANCE)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        };
        if let Some(status) = child.try_wait()? {
            return Ok(Ending::Itself(status));
        }
        let ending = if fatal.is_raised() {
            Ending::Fatal
        } else if watch.stop.is_raised() {
            Ending::Stopped
        } else if left.is_zero() {
            Ending::TimedOut
        } else {
            if ended {
                std::thread::sleep(Duration::from_micros(200));
            }
            continue;
        };
        child.kill()?;
        child.wait()?;
        return Ok(ending);
    }
}

fn read_with_times(mut pipe: impl Read) -> Vec<(u8, Instant)> {
    let mut output = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut part) {
        let at = Instant::now();
        let room = KEPT.saturating_sub(output.len());
        output.extend(part[..length.min(room)].iter().map(|&byte| (byte, at)));
    }
    output
}

fn read_text(mut pipe: impl Read, fatal: Option<&str>, found: &Stop) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut part) {
        let room = KEPT.saturating_sub(text.len());
        text.extend_from_slice(&part[..length.min(room)]);
        if fatal.is_some_and(|word| String::from_utf8_lossy(&text).contains(word)) {
            found.raise();
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn joined<T: Default>(thread: Option<JoinHandle<T>>) -> T {
    thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

/// Says loudly that guests are not confined.
pub fn warn_of_no_sandbox() {
    eprintln!(
        "ringside: WARNING: --no-sandbox: the processes of guests keep all of your rights. Under \
         strategies that run guest code natively, a hostile guest can read, change and delete \
         whatever you can. For debugging, with guests that you trust."
    );
}

/// How a process ended, in words.
#[must_use]
pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("{name} (signal {signal})"),
            None => format!("signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trap",
        libc::SIGABRT => "abort",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "arithmetic exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGSYS => "forbidden system call",
        libc::SIGTERM => "terminated",
        _ => return None,
    })
}

/// The last lines of an error output that say anything, in one line of bounded length.
#[must_use]
pub fn last_words(errors: &str) -> String {
    let lines = telling_lines(errors);
    joined_lines(&lines[lines.len().saturating_sub(3)..])
}

/// The first lines of an error output that say anything, for programs that then dump registers.
#[must_use]
pub fn first_words(errors: &str) -> String {
    let lines = telling_lines(errors);
    joined_lines(&lines[..lines.len().min(2)])
}

fn telling_lines(errors: &str) -> Vec<&str> {
    let lines = errors.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("note:")).collect()
}

fn joined_lines(lines: &[&str]) -> String {
    printable(&lines.join("; "), 400)
}

/// Text from a process that a guest may have taken over: bounded, and nothing that a terminal obeys.
pub(crate) fn printable(text: &str, length: usize) -> String {
    text.chars().take(length).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_ms: u64, fatal: Option<&'static str>, stop: &Stop) -> Finished {
        let timeout = Duration::from_millis(timeout_ms);
        run(Command::new("sh").args(["-c", script]), &Watch { timeout, stop, fatal }).unwrap()
    }

    #[test]
    fn output_comes_with_times_in_order() {
        let finished = shell("printf a; sleep 0.05; printf b", 5_000, None, &Stop::default());
        let [(b'a', first), (b'b', second)] = finished.output[..] else { panic!("{finished:?}") };
        assert!(second - first >= Duration::from_millis(40));
    }

    #[test]
    fn a_child_that_hangs_is_killed_at_its_deadline() {
        let begin = Instant::now();
        let finished = shell("exec sleep 60", 100, None, &Stop::default());
        assert_eq!(finished.ending, Ending::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_child_that_closed_its_output_is_still_waited_for() {
        let finished = shell("exec >&-; sleep 0.1; exit 7", 5_000, None, &Stop::default());
        let Ending::Itself(status) = finished.ending else { panic!("{finished:?}") };
        assert_eq!(in_words(status), "exit status 7");
    }

    #[test]
    fn a_signal_is_named() {
        let finished = shell("kill -SEGV $$", 5_000, None, &Stop::default());
        let Ending::Itself(status) = finished.ending else { panic!("{finished:?}") };
        assert_eq!(in_words(status), "segmentation fault (signal 11)");
    }

    #[test]
    fn fatal_words_end_a_child() {
        let finished = shell(
            "echo internal error >&2; exec sleep 60",
            30_000,
            Some("error"),
            &Stop::default(),
        );
        assert_eq!(finished.ending, Ending::Fatal);
    }

    #[test]
    fn a_raised_stop_ends_a_child() {
        let stop = Stop::default();
        stop.raise();
        assert_eq!(shell("exec sleep 60", 30_000, None, &stop).ending, Ending::Stopped);
    }
}
