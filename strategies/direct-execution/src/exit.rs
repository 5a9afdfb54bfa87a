//! What a signal from guest code means.

use host::compatibility::NativeExit;
use host::int1;

/// Why the guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// A page of the window is not there, or not with these rights.
    Page {
        /// The linear address.
        address: u32,
        /// Whether it was to be written.
        write: bool,
        /// Whether an instruction was to be fetched from it.
        fetch: bool,
    },
    /// A stub has come to what the monitor has to do.
    Crossing(u32),
    /// The instruction at EIP faulted. Whatever it is to do or to raise, the emulator knows.
    Fault,
    /// The instruction before EIP trapped.
    Trap(Trap),
    /// The single step that was asked for.
    Step,
    /// A single step that the guest wants.
    GuestStep,
    /// The timer: the host wants to look at the machine.
    Timer,
}

/// Instructions that trap, so that the host reports the address behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trap {
    /// INT1. Some hosts report its own address.
    Debug,
    /// INT3, or INT with 3.
    Breakpoint,
    /// INTO, or INT with 4.
    Overflow,
    /// INT 0x80, caught by syscall user dispatch, or another way into the host's kernel.
    SystemCall,
}

const DEBUG: u8 = 1;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const PAGE_FAULT: u8 = 14;
/// Bits of a page fault's error code: a write, a fetch; the others do not matter here.
const WRITE: u32 = 1 << 1;
const FETCH: u32 = 1 << 4;

impl Exit {
    /// The meaning of `exit`, where a single step was asked for or not.
    pub(crate) fn of(exit: &NativeExit, stepping: bool) -> Exit {
        if let Some(number) = exit.crossing {
            return Exit::Crossing(number);
        }
        match (exit.signal, exit.trap) {
            (libc_signal::ALRM, _) => Exit::Timer,
            (libc_signal::SYS, _) => Exit::Trap(Trap::SystemCall),
            (_, PAGE_FAULT) => Exit::Page {
                address: exit.address,
                write: exit.error_code & WRITE != 0,
                fetch: exit.error_code & FETCH != 0,
            },
            (_, BREAKPOINT) => Exit::Trap(Trap::Breakpoint),
            (_, OVERFLOW) => Exit::Trap(Trap::Overflow),
            (_, DEBUG) if !exit.single_step => Exit::Trap(Trap::Debug),
            (_, DEBUG) if stepping => Exit::Step,
            (_, DEBUG) => Exit::GuestStep,
            _ => Exit::Fault,
        }
    }
}

impl Trap {
    /// The length of the instruction that trapped, prefixes aside, from the two bytes before EIP;
    /// nothing if no such instruction ends there.
    pub(crate) fn length(self, before: [Option<u8>; 2]) -> Option<u32> {
        let (short, vector) = match self {
            Trap::Debug => (Some(int1::INT1), 1),
            Trap::Breakpoint => (Some(0xcc), 3),
            Trap::Overflow => (Some(0xce), 4),
            Trap::SystemCall => (None, 0x80),
        };
        match before {
            [Some(0xcd), Some(last)] if last == vector => Some(2),
            [_, Some(last)] if short == Some(last) => Some(1),
            _ => None,
        }
    }
}

/// Signal numbers of x86-64 Linux (signal(7)).
mod libc_signal {
    pub(super) const ALRM: i32 = 14;
    pub(super) const SYS: i32 = 31;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(signal: i32, trap: u8, error_code: u32) -> NativeExit {
        NativeExit {
            signal,
            trap,
            error_code,
            address: 0x1234,
            single_step: false,
            eip: 0x5678,
            crossing: None,
        }
    }

    #[test]
    fn page_faults_tell_reads_from_writes() {
        let read = Exit::of(&native(11, 14, 4), false);
        assert_eq!(read, Exit::Page { address: 0x1234, write: false, fetch: false });
        let write = Exit::of(&native(11, 14, 6), false);
        assert_eq!(write, Exit::Page { address: 0x1234, write: true, fetch: false });
        let fetch = Exit::of(&native(11, 14, 0x14), false);
        assert_eq!(fetch, Exit::Page { address: 0x1234, write: false, fetch: true });
    }

    #[test]
    fn steps_of_ours_are_told_from_the_guests() {
        let step = NativeExit { single_step: true, ..native(5, 1, 0) };
        assert_eq!(Exit::of(&step, true), Exit::Step);
        assert_eq!(Exit::of(&step, false), Exit::GuestStep);
        assert_eq!(Exit::of(&native(5, 1, 0), true), Exit::Trap(Trap::Debug));
        assert_eq!(Exit::of(&native(11, 13, 0), false), Exit::Fault);
    }

    #[test]
    fn traps_go_back_by_the_instructions_length() {
        let before = |a, b| [Some(a), Some(b)];
        assert_eq!(Trap::Debug.length(before(0x90, 0xf1)), Some(1));
        assert_eq!(Trap::Breakpoint.length(before(0x90, 0xcc)), Some(1));
        assert_eq!(Trap::Breakpoint.length(before(0xcd, 3)), Some(2));
        assert_eq!(Trap::Breakpoint.length([None, Some(0xcc)]), Some(1));
        assert_eq!(Trap::Overflow.length(before(0xcd, 4)), Some(2));
        assert_eq!(Trap::Overflow.length(before(0x66, 0xce)), Some(1));
        assert_eq!(Trap::SystemCall.length(before(0xcd, 0x80)), Some(2));
        assert_eq!(Trap::SystemCall.length(before(0x0f, 0x05)), None);
    }
}
