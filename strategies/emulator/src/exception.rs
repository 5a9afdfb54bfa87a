//! Exceptions as values: what an instruction raises instead of completing.

use std::num::NonZeroU64;

/// What an instruction raised: a fault with its vector and error code, or the internal request to
/// execute the instruction again by itself. Eight bytes, so that `Result<(), Exception>` is returned
/// in a register.
///
/// An instruction that raises one has changed no guest state, accessed bits aside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception(NonZeroU64);

const PRESENT: u64 = 1 << 63;
const HAS_CODE: u64 = 1 << 8;
const RESTART: u64 = 1 << 9;
const SOFTWARE: u64 = 1 << 10;
const EXTERNAL: u64 = 1 << 11;
const TRAP: u64 = 1 << 12;
const NEW_TASK: u64 = 1 << 13;

impl Exception {
    /// Divide error, #DE.
    pub(crate) const DIVIDE: Exception = Exception::new(0);
    /// Debug, #DB.
    pub(crate) const DEBUG: Exception = Exception::new(1);
    /// Bound range exceeded, #BR.
    pub(crate) const BOUND: Exception = Exception::new(5);
    /// Invalid opcode, #UD.
    pub(crate) const UNDEFINED: Exception = Exception::new(6);
    /// Device not available, #NM.
    pub(crate) const DEVICE_NOT_AVAILABLE: Exception = Exception::new(7);
    /// x87 floating-point error, #MF.
    pub(crate) const FLOATING_POINT: Exception = Exception::new(16);
    /// Alignment check, #AC.
    pub(crate) const ALIGNMENT: Exception = Exception::with_code(17, 0);
    /// SIMD floating-point exception, #XM.
    pub(crate) const SIMD: Exception = Exception::new(19);
    /// The double fault.
    pub(crate) const DOUBLE_FAULT: Exception = Exception::with_code(8, 0);
    /// General protection with error code 0.
    pub(crate) const PROTECTION: Exception = Exception::with_code(13, 0);
    /// No exception of the guest's: the instruction would write the block that it is part of, or may
    /// be a debugger's, and is to be executed again by itself.
    pub(crate) const RESTART: Exception = Exception(NonZeroU64::new(PRESENT | RESTART).unwrap());

    /// A fault without an error code.
    #[must_use]
    pub(crate) const fn new(vector: u8) -> Exception {
        Exception(NonZeroU64::new(PRESENT | vector as u64).unwrap())
    }

    /// A fault with an error code.
    #[must_use]
    pub(crate) const fn with_code(vector: u8, code: u16) -> Exception {
        let bits = PRESENT | HAS_CODE | vector as u64 | (code as u64) << 16;
        Exception(NonZeroU64::new(bits).unwrap())
    }

    /// Invalid TSS, #TS.
    #[must_use]
    pub(crate) const fn invalid_tss(code: u16) -> Exception {
        Exception::with_code(10, code)
    }

    /// Segment not present, #NP.
    #[must_use]
    pub(crate) const fn not_present(code: u16) -> Exception {
        Exception::with_code(11, code)
    }

    /// Stack fault, #SS.
    #[must_use]
    pub(crate) const fn stack(code: u16) -> Exception {
        Exception::with_code(12, code)
    }

    /// General protection, #GP.
    #[must_use]
    pub(crate) const fn protection(code: u16) -> Exception {
        Exception::with_code(13, code)
    }

    /// Page fault, #PF. CR2 is to be set by who raises it.
    #[must_use]
    pub(crate) const fn page_fault(code: u16) -> Exception {
        Exception::with_code(14, code)
    }

    /// A software interrupt (INT n, INT3, INTO): gate privilege is checked, and EIP is already that
    /// of the next instruction.
    #[must_use]
    pub(crate) const fn software_interrupt(vector: u8) -> Exception {
        Exception(NonZeroU64::new(PRESENT | SOFTWARE | TRAP | vector as u64).unwrap())
    }

    /// An external interrupt.
    #[must_use]
    pub(crate) const fn external(vector: u8) -> Exception {
        Exception(NonZeroU64::new(PRESENT | EXTERNAL | TRAP | vector as u64).unwrap())
    }

    /// The same exception as a trap: EIP is that of the next instruction.
    #[must_use]
    pub(crate) const fn as_trap(self) -> Exception {
        Exception(NonZeroU64::new(self.0.get() | TRAP).unwrap())
    }

    /// The same exception with the EXT bit set in an error code that has one: it was raised while
    /// another event, not a software interrupt, was delivered (Intel SDM volume 3, 6.13).
    #[must_use]
    pub(crate) const fn caused_externally(self) -> Exception {
        if matches!(self.vector(), 10..=13) && self.error_code().is_some() {
            Exception(NonZeroU64::new(self.0.get() | 1 << 16).unwrap())
        } else {
            self
        }
    }

    /// The same exception, raised after a task switch was committed: EIP is already the new task's.
    #[must_use]
    pub(crate) const fn in_new_task(self) -> Exception {
        Exception(NonZeroU64::new(self.0.get() | NEW_TASK).unwrap())
    }

    /// Whether it was raised after a task switch was committed.
    #[must_use]
    pub(crate) const fn is_in_new_task(self) -> bool {
        self.0.get() & NEW_TASK != 0
    }

    /// The vector.
    #[must_use]
    pub(crate) const fn vector(self) -> u8 {
        (self.0.get() & 0xff) as u8
    }

    /// The error code, if the vector has one.
    #[must_use]
    pub(crate) const fn error_code(self) -> Option<u16> {
        if self.0.get() & HAS_CODE == 0 {
            None
        } else {
            Some(((self.0.get() >> 16) & 0xffff) as u16)
        }
    }

    /// Whether this is [`Exception::RESTART`].
    #[must_use]
    pub(crate) const fn is_restart(self) -> bool {
        self.0.get() & RESTART != 0
    }

    /// Whether a software interrupt raised it.
    #[must_use]
    pub(crate) const fn is_software(self) -> bool {
        self.0.get() & SOFTWARE != 0
    }

    /// Whether it came from outside.
    #[must_use]
    pub(crate) const fn is_external(self) -> bool {
        self.0.get() & EXTERNAL != 0
    }

    /// Whether EIP is already that of the next instruction.
    #[must_use]
    pub(crate) const fn is_trap(self) -> bool {
        self.0.get() & TRAP != 0
    }

    /// Whether this is a page fault.
    #[must_use]
    pub(crate) const fn is_page_fault(self) -> bool {
        self.vector() == 14 && self.error_code().is_some()
    }

    /// Contributory exceptions and page faults: what makes a second fault a double fault
    /// (Intel SDM volume 3, 6.15, table 6-5).
    #[must_use]
    pub(crate) const fn is_contributory(self) -> bool {
        !self.is_software() && !self.is_external() && matches!(self.vector(), 0 | 10 | 11 | 12 | 13)
    }
}

impl std::fmt::Debug for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_restart() {
            return f.write_str("restart");
        }
        write!(f, "vector {}", self.vector())?;
        self.error_code().map_or(Ok(()), |code| write!(f, " ({code:#x})"))
    }
}
