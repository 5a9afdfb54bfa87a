//! What of the sandbox this host has: for those who ask before they rely on it.

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facilities {
    /// seccomp filters that can kill a process (Linux 4.14).
    pub seccomp: bool,
    /// The version of Landlock's interface; none where the kernel has no Landlock, or it is
    /// switched off.
    pub landlock: Option<i32>,
    /// PR_SET_NO_NEW_PRIVS (Linux 3.5).
    pub no_new_privileges: bool,
    /// Syscall user dispatch (Linux 5.11).
    pub user_dispatch: bool,
    /// RDTSC can be made to trap (PR_SET_TSC).
    pub time_stamp_traps: bool,
}

impl Facilities {
    /// Asks the kernel. Changes nothing, but for syscall user dispatch, which is off afterwards.
    #[must_use]
    pub fn find() -> Facilities {
        Facilities {
            seccomp: can_kill(),
            landlock: landlock_version(),
            no_new_privileges: rustix::thread::no_new_privs().is_ok(),
            user_dispatch: has_user_dispatch(),
            time_stamp_traps: has_time_stamp_traps(),
        }
    }
}

fn can_kill() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: asks whether an action is known; reads four bytes of a live value.
    let known = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    known == 0
}

/// The version of Landlock's interface, as landlock_create_ruleset(2) tells it.
pub(super) fn landlock_version() -> Option<i32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call only returns a number and takes no pointer.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    i32::try_from(version).ok().filter(|&version| version > 0)
}

fn has_user_dispatch() -> bool {
    const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
    const OFF: libc::c_ulong = 0;
    // SAFETY: switches off what a thread outside `CompatibilityMode` does not have on.
    unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, OFF, 0, 0, 0) == 0 }
}

fn has_time_stamp_traps() -> bool {
    let mut state: libc::c_int = 0;
    // SAFETY: writes the present state to a live value.
    unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut state, 0, 0, 0) == 0 }
}
