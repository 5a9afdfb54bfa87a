//! What the guests attempt, and what stops each.

use crate::guest::{
    self, Argument, Asm, Leaked, SCRATCH, call, enter_monitor, give_up, load, text,
};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use ringside::records::Outcome;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where system calls are made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Calls {
    /// From below 4 GiB, in the real worker.
    FromItsOwnMemory,
    /// By the monitor's own code, with leaked addresses.
    ByTheMonitor,
}

/// What stops an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Syscall user dispatch: the call comes from below 4 GiB.
    Dispatch,
    /// The filter.
    Seccomp,
    /// The filter, or the CPU itself where it has no such instruction.
    SeccompOrCpu,
    /// A resource limit, after which the guest gives up.
    Limit,
    /// The watchdog's signal finds 64-bit code where guests are.
    Watchdog,
    /// The parent's deadline.
    Deadline,
    /// The process is destroyed, and that is all.
    Ruin,
    /// The monitor's end, by its own code, without a report.
    Silence,
    /// The parent does not believe the report.
    Disbelief,
    /// The parent sees another result than it expects.
    Comparison,
}

impl By {
    pub(crate) fn words(self) -> &'static str {
        match self {
            By::Dispatch => "syscall user dispatch",
            By::Seccomp => "seccomp",
            By::SeccompOrCpu => "seccomp or the CPU",
            By::Limit => "resource limits",
            By::Watchdog => "the watchdog",
            By::Deadline => "the parent's deadline",
            By::Ruin => "a process of its own",
            By::Silence => "the parent: no report",
            By::Disbelief => "the parent: impossible report",
            By::Comparison => "the parent: wrong result",
        }
    }

    /// What the parent reports then, and words of the reason.
    pub(crate) fn expected(self) -> (Outcome, &'static [&'static str]) {
        const ESCAPED: &str = "left 32-bit mode and was found in 64-bit code at 0x0010";
        const ENTERED: &str = "native guest code last entered at EIP 0x0010";
        match self {
            By::Dispatch => (Outcome::Crashed, &[ESCAPED, "forbidden system call (signal 31)"]),
            By::Seccomp => (Outcome::Crashed, &[ENTERED, "forbidden system call (signal 31)"]),
            By::SeccompOrCpu => (Outcome::Crashed, &[]),
            By::Limit => (Outcome::Crashed, &[ESCAPED, "illegal instruction"]),
            By::Watchdog => (Outcome::Crashed, &[ESCAPED, "signal 14"]),
            By::Deadline => (Outcome::Timeout, &[]),
            By::Ruin => (Outcome::Crashed, &["the monitor died", ENTERED]),
            By::Silence | By::Disbelief => (Outcome::Crashed, &["its report is unreadable"]),
            By::Comparison => (Outcome::Wrong, &["checksum"]),
        }
    }
}

/// How the guest's code is written.
#[derive(Clone, Copy)]
enum Code {
    /// 64-bit code.
    Long(fn(&mut Asm)),
    /// Code of 32 bits, which stays that.
    Compatibility(&'static [u8]),
}

/// One attempt.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) calls: Calls,
    pub(crate) by: By,
    code: Code,
    /// What it writes to its streams.
    writes: &'static [u8],
}

/// The texts of each image.
const RESULTS: u32 = 0;
const MADE: u32 = 1;
const WRITES: u32 = 2;

impl Attempt {
    /// The image, for these files.
    pub(crate) fn image(&self, results: &Path, made: &Path) -> Vec<u8> {
        let texts = [results.as_os_str().as_bytes(), made.as_os_str().as_bytes(), self.writes];
        match self.code {
            Code::Long(write) => guest::image(write, &texts),
            Code::Compatibility(code) => guest::image_of_32_bits(code),
        }
    }

    const fn own(name: &'static str, by: By, write: fn(&mut Asm)) -> Attempt {
        let calls = Calls::FromItsOwnMemory;
        Attempt { name, calls, by, code: Code::Long(write), writes: b"" }
    }

    const fn monitor(name: &'static str, by: By, write: fn(&mut Asm)) -> Attempt {
        Attempt { calls: Calls::ByTheMonitor, ..Attempt::own(name, by, write) }
    }

    const fn report(name: &'static str, by: By, writes: &'static [u8]) -> Attempt {
        Attempt { writes, ..Attempt::monitor(name, by, write_and_exit) }
    }
}

/// A control: makes a file, which must not be there afterwards.
pub(crate) fn make_a_file() -> Attempt {
    Attempt::monitor("make a file", By::Seccomp, |asm| {
        let flags = libc::O_CREAT | libc::O_WRONLY;
        attempt(asm, libc::SYS_open, &[text(MADE), flags.into(), 0o600.into()]);
    })
}

/// All of them.
pub(crate) fn all() -> Vec<Attempt> {
    let mut all = vec![make_a_file()];
    all.extend(FROM_ITS_OWN_MEMORY);
    all.extend(SYSTEM_CALLS);
    all.extend(AROUND_THE_WALLS);
    all.extend(RESOURCES);
    all.extend(RUIN);
    all.extend(REPORTS);
    all
}

/// A system call by the monitor's code; the guest ends if it is let through.
fn attempt(asm: &mut Asm, number: libc::c_long, arguments: &[Argument]) {
    enter_monitor(asm);
    call(asm, number, arguments);
    give_up(asm);
}

/// What needs no leak.
const FROM_ITS_OWN_MEMORY: [Attempt; 6] = [
    Attempt::own("SYSCALL below 4 GiB", By::Dispatch, |asm| {
        dynasm!(asm ; .arch x64 ; mov eax, libc::SYS_fork as i32 ; syscall ; ud2);
    }),
    Attempt::own("INT 0x80 in 64-bit code", By::Dispatch, |asm| {
        dynasm!(asm ; .arch x64 ; mov eax, 2 ; int BYTE -128i8 ; ud2);
    }),
    Attempt::own("the vsyscall page", By::Seccomp, |asm| {
        let page = 0xffff_ffff_ff60_0400u64 as i64;
        dynasm!(asm ; .arch x64 ; xor edi, edi ; mov rax, QWORD page ; call rax ; ud2);
    }),
    Attempt::own("spin in 64-bit code", By::Watchdog, |asm| {
        dynasm!(asm ; .arch x64 ; again: ; jmp <again);
    }),
    Attempt {
        // syscall; hlt
        code: Code::Compatibility(&[0x0f, 0x05, 0xf4]),
        ..Attempt::own("SYSCALL in 32-bit code", By::SeccompOrCpu, give_up)
    },
    Attempt {
        // sysenter; hlt
        code: Code::Compatibility(&[0x0f, 0x34, 0xf4]),
        ..Attempt::own("SYSENTER in 32-bit code", By::SeccompOrCpu, give_up)
    },
];

/// Calls that the filter knows nothing of.
const SYSTEM_CALLS: [Attempt; 14] = [
    Attempt::monitor("truncate the earlier results", By::Seccomp, |asm| {
        let flags = libc::O_WRONLY | libc::O_TRUNC;
        attempt(asm, libc::SYS_open, &[text(RESULTS), flags.into()]);
    }),
    Attempt::monitor("delete the earlier results", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_unlink, &[text(RESULTS)]);
    }),
    Attempt::monitor("openat", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_openat, &[libc::AT_FDCWD.into(), text(RESULTS), 0.into()]);
    }),
    Attempt::monitor("socket", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_socket, &[libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0.into()]);
    }),
    Attempt::monitor("execve", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_execve, &[text(RESULTS), 0.into(), 0.into()]);
    }),
    Attempt::monitor("fork", By::Seccomp, |asm| attempt(asm, libc::SYS_fork, &[])),
    Attempt::monitor("clone", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_clone, &[libc::SIGCHLD.into(), 0.into()]);
    }),
    Attempt::monitor("ptrace of the parent", By::Seccomp, |asm| {
        let attach = (libc::PTRACE_ATTACH as i32).into();
        attempt(asm, libc::SYS_ptrace, &[attach, Argument::Leaked(Leaked::Parent)]);
    }),
    Attempt::monitor("kill of the parent", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_kill, &[Argument::Leaked(Leaked::Parent), libc::SIGKILL.into()]);
    }),
    Attempt::monitor("tgkill of the parent", By::Seccomp, |asm| {
        let parent = Argument::Leaked(Leaked::Parent);
        attempt(asm, libc::SYS_tgkill, &[parent, parent, libc::SIGKILL.into()]);
    }),
    Attempt::monitor("write to the parent's memory", By::Seccomp, |asm| {
        let parent = Argument::Leaked(Leaked::Parent);
        attempt(asm, libc::SYS_process_vm_writev, &[parent, text(WRITES), 1.into()]);
    }),
    Attempt::monitor("type into the terminal", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_ioctl, &[0.into(), (libc::TIOCSTI as i32).into(), text(WRITES)]);
    }),
    Attempt::monitor("memory without a bound (memfd_create)", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_memfd_create, &[text(WRITES), 0.into()]);
    }),
    Attempt::monitor("getpid by its number for x32", By::Seccomp, |asm| {
        attempt(asm, 0x4000_0000 | libc::SYS_getpid, &[]);
    }),
];

/// Calls that are allowed, used to get at those that are not.
const AROUND_THE_WALLS: [Attempt; 5] = [
    Attempt::monitor("syscall user dispatch switched off", By::Seccomp, |asm| {
        enter_monitor(asm);
        call(asm, libc::SYS_prctl, &[59.into(), 0.into(), 0.into(), 0.into(), 0.into()]);
        dynasm!(asm ; .arch x64 ; mov eax, libc::SYS_fork as i32 ; syscall ; ud2);
    }),
    Attempt::monitor("INT 0x80 above 4 GiB", By::Seccomp, |asm| {
        enter_monitor(asm);
        let (rights, flags) = (
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let nothing = Argument::from(-1);
        call(asm, libc::SYS_mmap, &[0.into(), 4096.into(), rights.into(), flags.into(), nothing]);
        // int 0x80; ud2
        dynasm!(asm ; .arch x64 ; mov DWORD [rax], 0x0b0f_80cd ; mov rcx, rax ; mov eax, 2 ; call rcx);
    }),
    Attempt::monitor("a handler for SIGSYS", By::Seccomp, |asm| {
        enter_monitor(asm);
        // A handler of zero, SIG_DFL, becomes SIG_IGN: the first word of zeroed memory is set.
        dynasm!(asm ; .arch x64 ; mov ecx, SCRATCH as i32 ; mov QWORD [rcx], 1);
        let action = Argument::Value(SCRATCH.into());
        call(asm, libc::SYS_rt_sigaction, &[libc::SIGSYS.into(), action, 0.into(), 8.into()]);
        call(asm, libc::SYS_fork, &[]);
        give_up(asm);
    }),
    Attempt::monitor("another LDT function", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_modify_ldt, &[0.into(), Argument::Value(SCRATCH.into()), 16.into()]);
    }),
    Attempt::monitor("rights back by prctl", By::Seccomp, |asm| {
        attempt(asm, libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 1.into()]);
    }),
];

/// What would take from everybody.
const RESOURCES: [Attempt; 4] = [
    Attempt::monitor("exhaust memory", By::Limit, |asm| {
        exhaust(asm, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, 64);
    }),
    Attempt::monitor("exhaust shared memory", By::Seccomp, |asm| {
        exhaust(asm, libc::MAP_SHARED | libc::MAP_ANONYMOUS, 64);
    }),
    Attempt::monitor("spin with all signals blocked", By::Deadline, |asm| {
        enter_monitor(asm);
        dynasm!(asm ; .arch x64 ; mov ecx, SCRATCH as i32 ; mov QWORD [rcx], -1);
        let (set, how) = (Argument::Value(SCRATCH.into()), libc::SIG_BLOCK.into());
        call(asm, libc::SYS_rt_sigprocmask, &[how, set, 0.into(), 8.into()]);
        dynasm!(asm ; .arch x64 ; again: ; jmp <again);
    }),
    Attempt {
        writes: &[b'x'; 1024],
        ..Attempt::monitor("flood the result pipe", By::Deadline, |asm| {
            enter_monitor(asm);
            // Else the watchdog's signal finds it between two calls.
            dynasm!(asm ; .arch x64 ; mov ecx, SCRATCH as i32 ; mov QWORD [rcx], -1);
            let (set, how) = (Argument::Value(SCRATCH.into()), libc::SIG_BLOCK.into());
            call(asm, libc::SYS_rt_sigprocmask, &[how, set, 0.into(), 8.into()]);
            dynasm!(asm ; .arch x64 ; again:);
            call(asm, libc::SYS_write, &[1.into(), text(WRITES), 1024.into()]);
            dynasm!(asm ; .arch x64 ; jmp <again);
        })
    },
];

/// Maps 32 MiB again and again. Gives up when the host does; after `most` times makes a forbidden
/// call, by which the test sees that nothing stopped it.
fn exhaust(asm: &mut Asm, flags: i32, most: i32) {
    enter_monitor(asm);
    dynasm!(asm ; .arch x64 ; xor ebx, ebx ; again:);
    let (length, rights) = (Argument::Value(32 << 20), libc::PROT_READ | libc::PROT_WRITE);
    call(asm, libc::SYS_mmap, &[0.into(), length, rights.into(), flags.into(), Argument::from(-1)]);
    dynasm!(asm ; .arch x64 ; test rax, rax ; js >refused ; inc ebx ; cmp ebx, most ; jb <again);
    call(asm, libc::SYS_fork, &[]);
    dynasm!(asm ; .arch x64 ; refused:);
    give_up(asm);
}

/// What destroys the monitor.
const RUIN: [Attempt; 5] = [
    Attempt::monitor("call the monitor's abort", By::Ruin, |asm| {
        enter_monitor(asm);
        load(asm, Leaked::Abort);
        dynasm!(asm ; .arch x64 ; call rax);
    }),
    Attempt::monitor("call the monitor's exit", By::Silence, |asm| {
        enter_monitor(asm);
        load(asm, Leaked::Exit);
        dynasm!(asm ; .arch x64 ; xor edi, edi ; call rax);
    }),
    Attempt::monitor("overwrite the monitor's stack", By::Ruin, |asm| {
        load(asm, Leaked::Stack);
        dynasm!(asm ; .arch x64 ; lea rdi, [rax - 0x1000] ; mov ecx, 0x1000 ; mov al, 0x41 ; rep stosb);
        back_to_32_bits(asm);
    }),
    Attempt::monitor("overwrite thread-local storage", By::Ruin, |asm| {
        load(asm, Leaked::ThreadStorage);
        dynasm!(asm ; .arch x64 ; lea rdi, [rax - 0x100] ; mov ecx, 0x400 ; mov al, 0x41 ; rep stosb);
        back_to_32_bits(asm);
    }),
    Attempt::monitor("unmap everything", By::Ruin, |asm| {
        enter_monitor(asm);
        let (start, length) = (Argument::Value(1 << 32), Argument::Value((1 << 47) - (2 << 32)));
        call(asm, libc::SYS_munmap, &[start, length]);
    }),
];

/// Goes back to where guests belong, and traps into what is left of the monitor.
fn back_to_32_bits(asm: &mut Asm) {
    dynasm!(asm
        ; .arch x64
        ; push 0x23
        ; lea rax, [>guest]
        ; push rax
        ; .bytes [0x48, 0xcb] // retfq
        ; guest:
        ; .bytes [0x0f, 0x20, 0xc0, 0xeb, 0xfb] // mov eax, cr0; jmp to it
    );
}

/// Writes a text to the result pipe and ends as a monitor does.
fn write_and_exit(asm: &mut Asm) {
    enter_monitor(asm);
    // Its length.
    let Argument::Value(address) = text(WRITES) else { unreachable!("texts have addresses") };
    dynasm!(asm
        ; .arch x64
        ; mov rbx, QWORD address
        ; again:
        ; cmp BYTE [rbx], 0
        ; je >end
        ; inc rbx
        ; jmp <again
        ; end:
        ; sub ebx, DWORD address as i32
    );
    for stream in [2, 1] {
        dynasm!(asm ; .arch x64 ; mov edi, libc::SYS_write as i32 ; mov esi, stream);
        dynasm!(asm ; .arch x64 ; mov rdx, QWORD address ; mov ecx, ebx);
        load(asm, Leaked::Syscall);
        dynasm!(asm ; .arch x64 ; call rax);
    }
    call(asm, libc::SYS_exit_group, &[0.into()]);
}

/// Lies.
const REPORTS: [Attempt; 6] = [
    Attempt::report("rubbish for a report", By::Disbelief, b"\xff\xfe\x1b[2J\x07\x80rubbish"),
    Attempt::report("half a report", By::Disbelief, b"probes = []\n[end]\nexit = "),
    Attempt::report(
        "a time longer than it took",
        By::Disbelief,
        b"seconds = 1e9\nchecksum = 42\nprobes = []\nexits = []\n[end]\nexit = 0\n",
    ),
    Attempt::report(
        "a time below zero",
        By::Disbelief,
        b"seconds = -1.0\nchecksum = 42\nprobes = []\nexits = []\n[end]\nexit = 0\n",
    ),
    Attempt::report(
        "exits of a kind that is a formula",
        By::Disbelief,
        b"seconds = 0.0\nchecksum = 42\nprobes = []\nexits = [[\"=cmd()\", 1]]\n[end]\nexit = 0\n",
    ),
    Attempt::report(
        "a wrong result",
        By::Comparison,
        b"seconds = 1e-6\nchecksum = 43\nprobes = []\nexits = []\n[end]\nexit = 0\n",
    ),
];
