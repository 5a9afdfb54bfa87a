//! What a signal from guest code means.

use host::compatibility::NativeExit;

/// Why the guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// A page of the window is not there, or not with these rights.
    Page {
        /// The linear address.
        address: u32,
        /// Whether it was to be written.
        write: bool,
    },
    /// The instruction at `cpu.eip` less this many bytes is to be executed by the emulator: it
    /// trapped, and whatever it is to do or to raise, the emulator knows.
    Instruction {
        /// Bytes that EIP is past the instruction's beginning.
        back: u32,
    },
    /// The timer: the host wants to look at the machine.
    Timer,
    /// A single step, or INT1.
    Debug,
}

const DEBUG: u8 = 1;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const PAGE_FAULT: u8 = 14;
/// Bits of a page fault's error code: a write; the others do not matter here.
const WRITE: u32 = 1 << 1;

impl Exit {
    pub(crate) fn of(exit: &NativeExit) -> Exit {
        match (exit.signal, exit.trap) {
            (libc_signal::ALRM, _) => Exit::Timer,
            // A system call by INT 0x80, caught by syscall user dispatch behind the instruction.
            (libc_signal::SYS, _) => Exit::Instruction { back: 2 },
            (_, PAGE_FAULT) => {
                Exit::Page { address: exit.address, write: exit.error_code & WRITE != 0 }
            }
            // INT3 and INTO trap behind the instruction, which has one byte.
            (_, BREAKPOINT | OVERFLOW) => Exit::Instruction { back: 1 },
            (_, DEBUG) => Exit::Debug,
            _ => Exit::Instruction { back: 0 },
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
        NativeExit { signal, trap, error_code, address: 0x1234, eip: 0x5678 }
    }

    #[test]
    fn page_faults_tell_reads_from_writes() {
        let read = Exit::of(&native(11, 14, 4));
        assert_eq!(read, Exit::Page { address: 0x1234, write: false });
        let write = Exit::of(&native(11, 14, 6));
        assert_eq!(write, Exit::Page { address: 0x1234, write: true });
    }

    #[test]
    fn traps_behind_the_instruction_go_back() {
        assert_eq!(Exit::of(&native(5, 3, 0)), Exit::Instruction { back: 1 });
        assert_eq!(Exit::of(&native(31, 0, 0)), Exit::Instruction { back: 2 });
        assert_eq!(Exit::of(&native(11, 13, 0)), Exit::Instruction { back: 0 });
    }
}
