//! The host's system calls out of the guest's reach: syscall user dispatch turns them into SIGSYS.
//!
//! The kernel decides by address. The monitor's code, the C library's included, lies between 4 GiB
//! and the vDSO and is exempt. Below is the guest, with INT 0x80. At the vDSO is where the kernel
//! thinks that a 32-bit SYSCALL or SYSENTER comes from, which therefore must not be exempt; the few
//! calls that the monitor itself makes from there (clocks that the vDSO cannot read, the dynamic
//! linker behind it) are made again by [`is_made_again`].

use crate::Error;

const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
const DISPATCH_OFF: libc::c_ulong = 0;
const DISPATCH_ON: libc::c_ulong = 1;
/// `si_code` of these signals.
const SYS_USER_DISPATCH: libc::c_int = 2;
const MONITOR_START: u64 = 1 << 32;
const MONITOR_END: u64 = 1 << 47;

/// The selector byte of syscall user dispatch: 1 is SYSCALL_DISPATCH_FILTER_BLOCK. It never
/// changes: which side a system call is from, its address tells.
static BLOCK: u8 = 1;

/// While it lives, the guest's system calls on this thread raise SIGSYS.
pub(crate) struct DispatchGuard;

impl DispatchGuard {
    /// Sets up the calling thread.
    ///
    /// # Errors
    /// When the host's kernel is too old.
    pub(crate) fn new() -> Result<DispatchGuard, Error> {
        // SAFETY: the monitor's own code, the C library's included, lies in the exempt range, and
        // what does not is made again; the selector byte lives for ever.
        let result = unsafe {
            libc::prctl(
                PR_SET_SYSCALL_USER_DISPATCH,
                DISPATCH_ON,
                MONITOR_START,
                vdso_start() - MONITOR_START,
                &raw const BLOCK,
            )
        };
        if result == 0 {
            Ok(DispatchGuard)
        } else {
            Err(Error::Missing("no syscall user dispatch (Linux 5.11 has it)"))
        }
    }
}

impl Drop for DispatchGuard {
    fn drop(&mut self) {
        // SAFETY: system calls work everywhere again.
        unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_OFF, 0, 0, 0) };
    }
}

/// Where the vDSO begins. A monitor that lies above it, or a kernel without one, has everything
/// exempt.
fn vdso_start() -> u64 {
    // SAFETY: only asks for a number.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let highest = (made_again as *const ()).addr().max((libc::syscall as *const ()).addr()) as u64;
    if vdso > highest { vdso } else { MONITOR_END }
}

/// Makes a system call that the monitor has made from an address that is not exempt. False if the
/// signal is about something else.
///
/// # Safety
/// Within the handler of SIGSYS, with the kernel's arguments.
pub(crate) unsafe fn is_made_again(
    info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
) -> bool {
    // SAFETY: the kernel's frame, which is the handler's own.
    let (code, saved) = unsafe { ((*info).si_code, &mut (*context).uc_mcontext.gregs) };
    if code != SYS_USER_DISPATCH || (saved[libc::REG_RIP as usize] as u64) < vdso_start() {
        return false;
    }
    use libc::{REG_R8, REG_R9, REG_R10, REG_RAX, REG_RDI, REG_RDX, REG_RSI};
    let arguments =
        [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(|index| saved[index as usize]);
    // SAFETY: what the monitor wanted to call.
    saved[REG_RAX as usize] = unsafe { made_again(saved[REG_RAX as usize], arguments) };
    true
}

/// # Safety
/// As the system call has it.
unsafe fn made_again(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the kernel changes RAX, RCX, R11 and what the caller answers for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_made_again_with_its_arguments() {
        // SAFETY: only asks for numbers; the second is refused.
        unsafe {
            assert_eq!(made_again(libc::SYS_getpid, [0; 6]), std::process::id().into());
            let refused = made_again(libc::SYS_mmap, [1, 2, 3, 4, 5, 6]);
            assert_eq!(refused, -i64::from(libc::EINVAL));
        }
    }

    #[test]
    fn the_monitor_lies_below_the_end_of_what_is_exempt() {
        assert!(vdso_start() > MONITOR_START);
        assert!(((vdso_start as *const ()).addr() as u64) < vdso_start());
    }
}
