//! The system calls that a monitor makes after its guest has begun, and the filter that allows
//! those and no others.
//!
//! Found by tracing each strategy over all workloads, and kept to the arguments that were seen where
//! other arguments could do harm. Whatever is not here kills the process: no call that is missing is
//! one that the monitor could go on without. The filter looks at the architecture first: a 32-bit
//! call (INT 0x80, SYSENTER, SYSCALL in compatibility mode) is never allowed, and x32's numbers are
//! in no list.

use super::{Error, Policy};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// A program for the kernel's filter machine.
pub(super) type Filter = BpfProgram;

/// What every monitor does: its descriptors, its memory, its signals, waiting, ending.
const ALWAYS: [c_long; 30] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_poll,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Timers that end a stay in the guest.
const TIMERS: [c_long; 3] =
    [libc::SYS_timer_create, libc::SYS_timer_settime, libc::SYS_timer_delete];

/// The byte of a request that tells whose it is, and KVM's (ioctl(2), linux/kvm.h).
const REQUEST_TYPE: u64 = 0xff00;
const KVM_REQUESTS: u64 = 0xae00;

/// prctl(2): system calls from below 4 GiB raise SIGSYS.
const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;
/// modify_ldt(2): write an entry.
const LDT_WRITE: u64 = 0x11;

/// The filter for `policy`. Names this process: to be made in the one that it is for.
pub(super) fn filter(policy: &Policy) -> Result<Filter, Error> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ALWAYS.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_mmap, mappings()?);
    rules.insert(libc::SYS_fallocate, vec![forget_guest_pages()?]);
    rules.insert(libc::SYS_tgkill, vec![signal_to_self()?]);
    rules.insert(libc::SYS_fcntl, vec![question_about_a_descriptor()?]);
    if policy.native_code || policy.kvm {
        rules.extend(TIMERS.map(|call| (call, Vec::new())));
    }
    if policy.native_code {
        let write_entry = rule(&[equal(0, LDT_WRITE)?])?;
        rules.insert(libc::SYS_modify_ldt, vec![write_entry]);
        rules.insert(libc::SYS_prctl, native_code_options()?);
    }
    if policy.kvm {
        let kvm = rule(&[masked(1, REQUEST_TYPE, KVM_REQUESTS)?])?;
        rules.insert(libc::SYS_ioctl, vec![kvm]);
    }
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    Ok(SeccompFilter::new(rules, kill, allow, TargetArch::x86_64)?.try_into()?)
}

/// Puts a filter over all threads of the process.
pub(super) fn apply(filter: &Filter) -> Result<(), Error> {
    Ok(seccompiler::apply_filter_all_threads(filter)?)
}

/// Private memory, which RLIMIT_DATA bounds, and files that are open. Not anonymous shared memory,
/// which nothing would bound, and nothing locked, huge or growing.
fn mappings() -> Result<Vec<SeccompRule>, Error> {
    const MAP_TYPE: libc::c_int = 0xf;
    let looked_at =
        MAP_TYPE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN | libc::MAP_LOCKED | libc::MAP_HUGETLB;
    [libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_SHARED]
        .into_iter()
        .map(|flags| rule(&[masked(3, looked_at as u64, flags as u64)?]))
        .collect()
}

/// Guest memory that becomes zero again. Other modes would make files larger.
fn forget_guest_pages() -> Result<SeccompRule, Error> {
    rule(&[equal(1, (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64)?])
}

/// An abort.
fn signal_to_self() -> Result<SeccompRule, Error> {
    rule(&[equal(0, std::process::id().into())?])
}

/// Rust's library asks whether a descriptor exists before it closes it, in builds with assertions.
fn question_about_a_descriptor() -> Result<SeccompRule, Error> {
    rule(&[equal(1, libc::F_GETFD as u64)?])
}

/// What guest code of its own makes of system calls, and of RDTSC.
fn native_code_options() -> Result<Vec<SeccompRule>, Error> {
    [PR_SET_SYSCALL_USER_DISPATCH, libc::PR_SET_TSC as u64]
        .into_iter()
        .map(|option| rule(&[equal(0, option)?]))
        .collect()
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.to_vec())?)
}

/// An argument of 32 bits that has this value.
fn equal(argument: u8, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?)
}

/// An argument of 32 bits that has these bits under a mask.
fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, Error> {
    let operation = SeccompCmpOp::MaskedEq(mask);
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?)
}
