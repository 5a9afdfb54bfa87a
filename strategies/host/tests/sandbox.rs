//! The sandbox from inside: what it forbids ends the process, what a monitor needs still works.
//!
//! No test confines its own process. Each runs this program again, as the one test `inside` with the
//! name of an attempt in its environment.

use host::compatibility::{CompatibilityMode, NativeState};
use host::low_memory::LowMemory;
use host::sandbox::{Policy, Sandbox};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::ptr;

/// Names the attempt in the child's environment.
const ATTEMPT: &str = "RINGSIDE_SANDBOX_ATTEMPT";

/// What a guest that runs natively needs, with small bounds.
const NATIVE: Policy = Policy {
    private_memory: 64 << 20,
    address_space: 16 << 30,
    file_bytes: Some(4096),
    ..Policy::NATIVE
};

/// What an attempt came to, as the child's exit status.
const REACHED: u8 = 17;
const REFUSED: u8 = 18;

fn outcome(reached: bool) -> u8 {
    if reached { REACHED } else { REFUSED }
}

/// A system call that the filter must not let through.
fn call(number: libc::c_long, arguments: [usize; 4]) -> u8 {
    let [a, b, c, d] = arguments;
    // SAFETY: the pointers among the arguments are null, to live memory or to static strings; the
    // calls are made in a process of their own.
    outcome(unsafe { libc::syscall(number, a, b, c, d, 0, 0) } >= 0)
}

fn path() -> usize {
    c"/bin/true".as_ptr() as usize
}

fn parent() -> usize {
    std::os::unix::process::parent_id() as usize
}

/// A 32-bit system call, from where syscall user dispatch would not see it: it is off here.
fn int_80(number: u32) -> u8 {
    let result: u32;
    // SAFETY: getpid, by the 32-bit table, changes nothing but EAX; r8 to r11 may be lost.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") number => result, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _, options(nostack));
    }
    outcome(result as i32 > 0)
}

/// Calls the kernel's fixed page of old (`time`).
fn vsyscall() -> u8 {
    let result: u64;
    // SAFETY: `time` with a null pointer; the page keeps to the C calling convention.
    unsafe {
        std::arch::asm!("call {}", in(reg) 0xffff_ffff_ff60_0400u64, in("rdi") 0, out("rax") result,
            clobber_abi("C"));
    }
    outcome(result > 0)
}

/// A name, and what it stands for.
type Attempt = (&'static str, fn() -> u8);

/// What must end the process.
const FORBIDDEN: [Attempt; 21] = [
    ("open", || call(libc::SYS_open, [path(), 0, 0, 0])),
    ("openat", || call(libc::SYS_openat, [libc::AT_FDCWD as usize, path(), 0, 0])),
    ("socket", || call(libc::SYS_socket, [libc::AF_INET as usize, 1, 0, 0])),
    ("execve", || call(libc::SYS_execve, [path(), 0, 0, 0])),
    ("fork", || call(libc::SYS_fork, [0; 4])),
    ("clone", || call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0])),
    ("a thread", || outcome(std::thread::Builder::new().spawn(|| ()).is_ok())),
    ("ptrace", || call(libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0])),
    ("process_vm_readv", || call(libc::SYS_process_vm_readv, [parent(), 0, 0, 0])),
    ("kill of the parent", || call(libc::SYS_kill, [parent(), 0, 0, 0])),
    ("tgkill of the parent", || call(libc::SYS_tgkill, [parent(), parent(), 0, 0])),
    ("prctl", || call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1, 0, 0])),
    ("ioctl", || call(libc::SYS_ioctl, [0, libc::TIOCSTI as usize, path(), 0])),
    ("memfd_create", || call(libc::SYS_memfd_create, [path(), 0, 0, 0])),
    ("dup", || call(libc::SYS_dup, [0; 4])),
    ("io_uring_setup", || call(libc::SYS_io_uring_setup, [1, 0, 0, 0])),
    ("seccomp", || call(libc::SYS_seccomp, [1, 0, 0, 0])),
    ("fallocate that grows", || call(libc::SYS_fallocate, [1, 0, 0, 4096])),
    ("getpid of x32", || call(0x4000_0000 | libc::SYS_getpid, [0; 4])),
    ("getpid of 32 bits", || int_80(20)),
    ("the vsyscall page", vsyscall),
];

/// Anonymous memory of this kind until the host gives no more; the bytes.
fn exhaust(flags: libc::c_int, rights: libc::c_int) -> u64 {
    const STEP: usize = 1 << 20;
    let mut total = 0;
    // SAFETY: new mappings that replace nothing.
    while unsafe { libc::mmap(ptr::null_mut(), STEP, rights, flags, -1, 0) } != libc::MAP_FAILED {
        total += STEP as u64;
    }
    total
}

/// Whether native code runs, traps and is timed out.
fn native_code_runs() -> bool {
    let mut memory = LowMemory::new(0x10_0000, 0x1000).unwrap();
    Sandbox::enter(&NATIVE).unwrap();
    memory.write(0, &[0xb8, 42, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xfe]); // mov eax,42; int 0x80; jmp $
    let mut mode = CompatibilityMode::new().unwrap();
    let mut state = NativeState { eip: 0x10_0000, ..NativeState::default() };
    let limit = std::time::Duration::from_millis(20);
    // SAFETY: the code is the three instructions above, in memory of its own.
    let call = unsafe { mode.run_for(&mut state, limit) }.unwrap();
    // SAFETY: as above.
    let timer = unsafe { mode.run_for(&mut state, limit) }.unwrap();
    (call.signal, state.registers[0], timer.signal) == (libc::SIGSYS, 42, libc::SIGALRM)
}

/// Whether a thread from between the two steps works behind them, and is bound by the filter.
fn a_thread_from_before_works() -> bool {
    let prepared = Sandbox::prepare(&NATIVE).unwrap();
    let (start, started) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        start.send(()).unwrap();
        wait.recv().unwrap();
        6 * 7
    });
    started.recv().unwrap();
    prepared.seal().unwrap();
    go.send(()).unwrap();
    thread.join().unwrap() == 42
}

/// What Landlock alone refuses, before the filter is there: a file, a port, a signal.
fn landlock_refuses() -> bool {
    let _prepared = Sandbox::prepare(&NATIVE).unwrap();
    let file = File::open("/etc/passwd").is_err();
    let port = std::net::TcpListener::bind("127.0.0.1:0").is_err();
    // SAFETY: signal 0 only asks.
    let signal = unsafe { libc::kill(parent() as libc::pid_t, 0) } != 0;
    file && port && signal
}

/// The lines of this thread's status that tell of rights.
fn status() -> String {
    let mut file = File::open("/proc/thread-self/status").unwrap();
    let applied = Sandbox::enter(&Policy::SOFTWARE).unwrap();
    // Not `read_to_string`, which asks for the file's size first.
    let mut bytes = [0; 4096];
    let length = file.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]);
    let telling = ["NoNewPrivs", "Seccomp:", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let lines = text.lines().filter(|line| telling.iter().any(|name| line.starts_with(name)));
    let lines: Vec<&str> = lines.collect();
    format!("{}\n{applied}\n", lines.join("\n"))
}

fn attempt(name: &str) -> u8 {
    if let Some((_, forbidden)) = FORBIDDEN.iter().find(|(known, _)| *known == name) {
        Sandbox::enter(&NATIVE).unwrap();
        return forbidden();
    }
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let limit = NATIVE.private_memory + (1 << 20);
    match name {
        "native code" => outcome(native_code_runs()),
        "a thread from before" => outcome(a_thread_from_before_works()),
        "what Landlock refuses" => outcome(landlock_refuses()),
        "private memory" => {
            Sandbox::enter(&NATIVE).unwrap();
            outcome(exhaust(anonymous, libc::PROT_READ | libc::PROT_WRITE) > limit)
        }
        "address space" => {
            Sandbox::enter(&NATIVE).unwrap();
            outcome(exhaust(anonymous | libc::MAP_NORESERVE, libc::PROT_READ) > 17 << 30)
        }
        "shared memory" => {
            Sandbox::enter(&NATIVE).unwrap();
            outcome(exhaust(libc::MAP_SHARED | libc::MAP_ANONYMOUS, libc::PROT_WRITE) > 0)
        }
        "a large file" => {
            let mut file = tempfile::tempfile().unwrap();
            Sandbox::enter(&NATIVE).unwrap();
            outcome(file.write_all(&[0; 1 << 16]).is_ok())
        }
        "status" => {
            eprint!("{}", status());
            REACHED
        }
        other => panic!("no attempt {other:?}"),
    }
}

/// Not a test of its own: what the others start.
#[test]
fn inside() {
    let Ok(name) = std::env::var(ATTEMPT) else { return };
    let status = attempt(&name);
    // SAFETY: ends the process without the test program's own ending, which has no place here.
    unsafe { libc::_exit(status.into()) }
}

/// Runs an attempt in a child.
fn run(name: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["inside", "--exact", "--nocapture"])
        .env(ATTEMPT, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// How an attempt ended, in words that a table can show.
fn ending(name: &str) -> String {
    let output = run(name);
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) if code == i32::from(REACHED) => "reached".to_owned(),
        (Some(code), _) if code == i32::from(REFUSED) => "refused".to_owned(),
        (_, Some(libc::SIGSYS)) => "killed: forbidden system call".to_owned(),
        (_, Some(libc::SIGXFSZ)) => "killed: file too large".to_owned(),
        (code, signal) => {
            format!("{code:?} {signal:?} {}", String::from_utf8_lossy(&output.stderr))
        }
    }
}

#[test]
fn what_no_monitor_does_ends_the_process() {
    for (name, _) in FORBIDDEN {
        let ending = ending(name);
        println!("{name:<24} {ending}");
        assert_eq!(ending, "killed: forbidden system call", "{name}");
    }
}

#[test]
fn memory_is_bounded() {
    assert_eq!(ending("private memory"), "refused");
    assert_eq!(ending("address space"), "refused");
    assert_eq!(ending("shared memory"), "killed: forbidden system call");
}

#[test]
fn files_do_not_grow_past_their_bound() {
    assert_eq!(ending("a large file"), "killed: file too large");
}

#[test]
fn native_code_runs_inside() {
    assert_eq!(ending("native code"), "reached");
}

#[test]
fn a_thread_started_between_the_steps_goes_on() {
    assert_eq!(ending("a thread from before"), "reached");
}

#[test]
fn landlock_refuses_what_the_filter_would_kill_for() {
    match host::sandbox::Facilities::find().landlock {
        // Signals are the sixth version's.
        Some(6..) => assert_eq!(ending("what Landlock refuses"), "reached"),
        other => println!("Landlock {other:?}: not looked at"),
    }
}

#[test]
fn the_kernel_says_that_nothing_is_left() {
    let output = run("status");
    let text = String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapPrm:\t0000000000000000", "no capabilities"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn descriptors_are_listed_with_what_they_lead_to() {
    let file = File::open("/dev/null").unwrap();
    // Inherited on purpose: it is the parent's to close what it does not mean to pass.
    // SAFETY: changes a flag of a descriptor that is this test's own.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    let output = run("status");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!(" {}=/dev/null", file.as_raw_fd())), "{text}");
}
