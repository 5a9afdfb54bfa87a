//! What a thread needs before it may enter compatibility mode: its alternate stack, the signal
//! mask, and the host's system calls out of the guest's reach. All of it is undone on drop.

use crate::dispatch::DispatchGuard;
use crate::world_switch::SwitchArea;
use crate::{Error, signals};
use std::ptr;

/// AT_HWCAP2: RDFSBASE and its kin may be used (Linux 5.9).
const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;

/// A thread that is set up. Dropping it undoes that, so it must not leave its thread.
pub(crate) struct ThreadSetup {
    _dispatch: DispatchGuard,
    _mask: signals::EarlierMask,
    _stack: StackGuard,
    _area: AreaGuard,
    _not_send: std::marker::PhantomData<*mut ()>,
}

impl ThreadSetup {
    /// Sets up the calling thread for `area`, which must outlive the result.
    ///
    /// # Errors
    /// When the thread is set up already, or the host lacks or refuses something.
    pub(crate) fn new(area: &mut SwitchArea) -> Result<ThreadSetup, Error> {
        // SAFETY: only asks for a number.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return Err(Error::Missing("no FSGSBASE (Linux 5.9 and a CPU of 2013 have it)"));
        }
        signals::install()?;
        let guard = AreaGuard::new(area)?;
        // SAFETY: FSGSBASE was found to be there; reading a base has no effect.
        unsafe {
            core::arch::asm!("rdfsbase {}", out(reg) area.host_fs_base, options(nomem, nostack));
            core::arch::asm!("rdgsbase {}", out(reg) area.host_gs_base, options(nomem, nostack));
        }
        let stack = StackGuard::new(area)?;
        let mask = signals::block_others()?;
        Ok(ThreadSetup {
            _dispatch: DispatchGuard::new()?,
            _mask: mask,
            _stack: stack,
            _area: guard,
            _not_send: std::marker::PhantomData,
        })
    }
}

/// Kicks on this thread go to an area.
struct AreaGuard;

impl AreaGuard {
    fn new(area: *mut SwitchArea) -> Result<AreaGuard, Error> {
        let earlier = signals::set_area(area);
        if earlier.is_null() {
            Ok(AreaGuard)
        } else {
            signals::set_area(earlier);
            Err(Error::Busy)
        }
    }
}

impl Drop for AreaGuard {
    fn drop(&mut self) {
        signals::set_area(ptr::null_mut());
    }
}

/// Signals are taken on an area's stack.
struct StackGuard {
    earlier: libc::stack_t,
}

impl StackGuard {
    fn new(area: &mut SwitchArea) -> Result<StackGuard, Error> {
        let stack = libc::stack_t {
            ss_sp: area.stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: area.stack.len(),
        };
        let mut earlier = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: the stack lives as long as the area, which outlives this guard.
        if unsafe { libc::sigaltstack(&stack, &mut earlier) } != 0 {
            return Err(Error::last("sigaltstack"));
        }
        Ok(StackGuard { earlier })
    }
}

impl Drop for StackGuard {
    fn drop(&mut self) {
        // SAFETY: restores what this thread had (Rust's own, for stack overflows).
        unsafe { libc::sigaltstack(&self.earlier, ptr::null_mut()) };
    }
}
