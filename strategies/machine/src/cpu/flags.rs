//! EFLAGS, held in two parts: the arithmetic flags as the host's LAHF and SETO give them, and the rest.
//!
//! The emulator runs an arithmetic instruction on the host's own ALU and keeps what LAHF and SETO
//! left in AX: no flag is computed in software, and flags that the manual calls undefined are what
//! the CPU makes of them.

use bitflags::bitflags;

bitflags! {
    /// The bits of EFLAGS (Intel SDM volume 1, 3.4.3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Eflags: u32 {
        /// Carry.
        const CF = 1 << 0;
        /// Bit 1 is always set.
        const FIXED = 1 << 1;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap.
        const TF = 1 << 8;
        /// Interrupt enable.
        const IF = 1 << 9;
        /// Direction.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// I/O privilege level, two bits.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check.
        const AC = 1 << 18;
        /// Virtual interrupt flag.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID can be used.
        const ID = 1 << 21;
    }
}

impl Eflags {
    /// CF, PF, AF, ZF, SF and OF.
    pub const ARITHMETIC: Eflags = Eflags::CF
        .union(Eflags::PF)
        .union(Eflags::AF)
        .union(Eflags::ZF)
        .union(Eflags::SF)
        .union(Eflags::OF);
    /// All bits that a POPFD or IRETD at CPL 0 may change, RF, VM, VIF and VIP aside.
    pub const WRITABLE: Eflags = Eflags::ARITHMETIC
        .union(Eflags::TF)
        .union(Eflags::IF)
        .union(Eflags::DF)
        .union(Eflags::IOPL)
        .union(Eflags::NT)
        .union(Eflags::AC)
        .union(Eflags::ID);
}

/// A condition code of Jcc, SETcc, CMOVcc: the low four bits of the opcode.
pub type Condition = u8;

/// EFLAGS.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Flags {
    /// AX after LAHF and SETO AL: SF, ZF, AF, PF, CF in bits 15, 14, 12, 10, 8; OF in bit 0.
    arithmetic: u16,
    /// All bits but the arithmetic ones and the fixed one.
    system: u32,
}

const HIGH: u16 = 0xd500;

impl Flags {
    /// The bits as the architecture lays them out, bit 1 set.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        let low = u32::from((self.arithmetic & HIGH) >> 8);
        let overflow = u32::from(self.arithmetic & 1) << 11;
        self.system | low | overflow | Eflags::FIXED.bits()
    }

    /// Sets all bits; the reserved ones are dropped.
    #[inline]
    pub fn set_bits(&mut self, bits: u32) {
        self.arithmetic = ((bits as u16) << 8) & HIGH | ((bits >> 11) & 1) as u16;
        self.system = bits & Eflags::all().difference(Eflags::ARITHMETIC | Eflags::FIXED).bits();
    }

    /// Replaces the bits in `mask` by those of `bits`.
    #[inline]
    pub fn merge(&mut self, bits: u32, mask: Eflags) {
        self.set_bits(self.bits() & !mask.bits() | bits & mask.bits());
    }

    /// Whether any of `flags` is set.
    #[inline]
    #[must_use]
    pub fn contains(self, flags: Eflags) -> bool {
        self.bits() & flags.bits() != 0
    }

    /// Sets or clears all of `flags`.
    #[inline]
    pub fn set(&mut self, flags: Eflags, value: bool) {
        if flags.intersects(Eflags::ARITHMETIC) {
            self.merge(if value { u32::MAX } else { 0 }, flags);
        } else if value {
            self.system |= flags.bits();
        } else {
            self.system &= !flags.bits();
        }
    }

    /// The arithmetic flags as LAHF and SETO AL would leave them in AX.
    #[inline]
    #[must_use]
    pub fn host(self) -> u16 {
        self.arithmetic
    }

    /// All bits but the arithmetic ones and the fixed one.
    #[inline]
    #[must_use]
    pub fn system(self) -> u32 {
        self.system
    }

    /// Sets all bits but the arithmetic ones; those among `bits` and the reserved ones are dropped.
    #[inline]
    pub fn set_system(&mut self, bits: u32) {
        self.system = bits & Eflags::all().difference(Eflags::ARITHMETIC | Eflags::FIXED).bits();
    }

    /// Sets the arithmetic flags from what LAHF and SETO AL left in AX.
    #[inline]
    pub fn set_host(&mut self, ax: u16) {
        self.arithmetic = ax;
    }

    /// Sets all arithmetic flags but CF (INC and DEC).
    #[inline]
    pub fn set_host_keeping_carry(&mut self, ax: u16) {
        self.arithmetic = ax & !0x100 | self.arithmetic & 0x100;
    }

    /// Whether TF or RF is set: instructions are executed one by one.
    #[inline]
    #[must_use]
    pub fn single_steps(self) -> bool {
        self.system & (Eflags::TF.bits() | Eflags::RF.bits()) != 0
    }

    /// The I/O privilege level.
    #[inline]
    #[must_use]
    pub fn iopl(self) -> u8 {
        ((self.system >> 12) & 3) as u8
    }

    /// Carry.
    #[inline]
    #[must_use]
    pub fn carry(self) -> bool {
        self.arithmetic & 0x100 != 0
    }

    /// Zero.
    #[inline]
    #[must_use]
    pub fn zero(self) -> bool {
        self.arithmetic & 0x4000 != 0
    }

    /// Sign.
    #[inline]
    #[must_use]
    pub fn sign(self) -> bool {
        self.arithmetic & 0x8000 != 0
    }

    /// Overflow.
    #[inline]
    #[must_use]
    pub fn overflow(self) -> bool {
        self.arithmetic & 1 != 0
    }

    /// Parity.
    #[inline]
    #[must_use]
    pub fn parity(self) -> bool {
        self.arithmetic & 0x400 != 0
    }

    /// Direction.
    #[inline]
    #[must_use]
    pub fn direction(self) -> bool {
        self.system & Eflags::DF.bits() != 0
    }

    /// Whether a condition holds (Intel SDM volume 2, appendix B, table B-10).
    #[inline]
    #[must_use]
    pub fn condition(self, condition: Condition) -> bool {
        let holds = match (condition >> 1) & 7 {
            0 => self.overflow(),
            1 => self.carry(),
            2 => self.zero(),
            3 => self.carry() || self.zero(),
            4 => self.sign(),
            5 => self.parity(),
            6 => self.sign() != self.overflow(),
            _ => self.zero() || self.sign() != self.overflow(),
        };
        holds != (condition & 1 != 0)
    }
}

impl PartialEq for Flags {
    /// What LAHF leaves between the flags does not count.
    fn eq(&self, other: &Flags) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Flags {}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x} {:?}", self.bits(), Eflags::from_bits_retain(self.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_the_split() {
        for bits in [0u32, 0x8d5, 0x0024_7fd7, 0x0003_0246, u32::MAX] {
            let mut flags = Flags::default();
            flags.set_bits(bits);
            assert_eq!(flags.bits(), bits & Eflags::all().bits() | 2);
        }
    }

    #[test]
    fn conditions_come_in_pairs() {
        for bits in 0..0x1000u32 {
            let mut flags = Flags::default();
            flags.set_bits(bits);
            for condition in (0..16).step_by(2) {
                assert_ne!(flags.condition(condition), flags.condition(condition + 1));
            }
            assert_eq!(flags.condition(4), bits & 0x40 != 0);
            assert_eq!(flags.condition(12), (bits & 0x80 != 0) != (bits & 0x800 != 0));
        }
    }
}
