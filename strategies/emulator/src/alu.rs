//! Arithmetic on the host's own ALU.
//!
//! Each function runs one instruction on the host and returns its result with the arithmetic flags
//! as LAHF and SETO AL leave them in AX, which is how [`machine::cpu::Flags`] keeps them. So results
//! and flags are the CPU's by construction, undefined flags included, and nothing is computed twice.
//!
//! Instructions that write all flags are run as they are. The others get the guest's flags first:
//! `add al, 0x7f` turns the OF bit in AL into the host's OF, SAHF loads the rest.

use std::arch::asm;

/// An operand of 8, 16 or 32 bits, with the host's instructions on it. `flags` are as
/// [`machine::cpu::Flags::host`] gives them; results come with the flags after.
pub(crate) trait Word: Copy + Eq + Default + 'static {
    /// Bytes.
    const SIZE: u32;
    /// Bits.
    const BITS: u32 = Self::SIZE * 8;
    /// The lowest bits of `value`.
    fn truncate(value: u32) -> Self;
    /// Zero-extended.
    fn zero_extend(self) -> u32;
    /// Sign-extended.
    fn sign_extend(self) -> u32;
    /// Reads general register `number` as instructions encode it (4 to 7 are AH to BH for bytes).
    fn register(registers: &[u32; 8], number: u8) -> Self;
    /// Writes general register `number`; its other bits stay.
    fn set_register(registers: &mut [u32; 8], number: u8, value: Self);
    fn add(self, other: Self) -> (Self, u16);
    fn sub(self, other: Self) -> (Self, u16);
    fn and(self, other: Self) -> (Self, u16);
    fn or(self, other: Self) -> (Self, u16);
    fn xor(self, other: Self) -> (Self, u16);
    fn adc(self, other: Self, flags: u16) -> (Self, u16);
    fn sbb(self, other: Self, flags: u16) -> (Self, u16);
    fn inc(self, flags: u16) -> (Self, u16);
    fn dec(self, flags: u16) -> (Self, u16);
    fn shl(self, count: u8, flags: u16) -> (Self, u16);
    fn shr(self, count: u8, flags: u16) -> (Self, u16);
    fn sar(self, count: u8, flags: u16) -> (Self, u16);
    fn rol(self, count: u8, flags: u16) -> (Self, u16);
    fn ror(self, count: u8, flags: u16) -> (Self, u16);
    fn rcl(self, count: u8, flags: u16) -> (Self, u16);
    fn rcr(self, count: u8, flags: u16) -> (Self, u16);
    /// MUL: low half, high half, flags.
    fn mul(self, other: Self, flags: u16) -> (Self, Self, u16);
    /// IMUL with one operand: low half, high half, flags.
    fn imul(self, other: Self, flags: u16) -> (Self, Self, u16);
    /// DIV of `high:low`: quotient, remainder, flags; `None` for #DE.
    fn div(low: Self, high: Self, divisor: Self, flags: u16) -> Option<(Self, Self, u16)>;
    /// IDIV of `high:low`: quotient, remainder, flags; `None` for #DE.
    fn idiv(low: Self, high: Self, divisor: Self, flags: u16) -> Option<(Self, Self, u16)>;
}

/// What exists for 16 and 32 bits only.
pub(crate) trait WideWord: Word {
    fn imul_truncating(self, other: Self, flags: u16) -> (Self, u16);
    fn shld(self, filler: Self, count: u8, flags: u16) -> (Self, u16);
    fn shrd(self, filler: Self, count: u8, flags: u16) -> (Self, u16);
    /// BSF of `source`; `self` is the destination, which a zero source leaves alone.
    fn bsf(self, source: Self, flags: u16) -> (Self, u16);
    /// BSR of `source`, likewise.
    fn bsr(self, source: Self, flags: u16) -> (Self, u16);
    fn bt(self, bit: Self, flags: u16) -> (Self, u16);
    fn bts(self, bit: Self, flags: u16) -> (Self, u16);
    fn btr(self, bit: Self, flags: u16) -> (Self, u16);
    fn btc(self, bit: Self, flags: u16) -> (Self, u16);
}

/// Instructions that write all six flags.
macro_rules! sets_all_flags {
    ($class:ident, $size:literal, $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self) -> (Self, u16) {
            let mut result = self;
            let flags: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!(concat!(stringify!($name), " {a", $size, "}, {b", $size, "}"),
                    "lahf", "seto al",
                    a = inout($class) result, b = in($class) other, out("ax") flags,
                    options(pure, nomem, nostack));
            }
            (result, flags)
        }
    )*};
}

/// Instructions with one operand that keep or read some flag.
macro_rules! unary_with_flags {
    ($class:ident, $size:literal, $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self, flags: u16) -> (Self, u16) {
            let mut result = self;
            let after: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!("add al, 0x7f", "sahf", concat!(stringify!($name), " {a", $size, "}"),
                    "lahf", "seto al",
                    a = inout($class) result, inout("ax") flags => after,
                    options(pure, nomem, nostack));
            }
            (result, after)
        }
    )*};
}

/// Instructions with two operands that keep or read some flag.
macro_rules! binary_with_flags {
    ($class:ident, $size:literal, $($name:ident = $instruction:literal)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self, flags: u16) -> (Self, u16) {
            let mut result = self;
            let after: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!("add al, 0x7f", "sahf",
                    concat!($instruction, " {a", $size, "}, {b", $size, "}"), "lahf", "seto al",
                    a = inout($class) result, b = in($class) other, inout("ax") flags => after,
                    options(pure, nomem, nostack));
            }
            (result, after)
        }
    )*};
}

/// Shifts and rotates by CL. A count of zero keeps all flags, as on the guest.
macro_rules! shifts {
    ($class:ident, $size:literal, $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self, count: u8, flags: u16) -> (Self, u16) {
            let mut result = self;
            let after: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!("add al, 0x7f", "sahf", concat!(stringify!($name), " {a", $size, "}, cl"),
                    "lahf", "seto al",
                    a = inout($class) result, in("cl") count, inout("ax") flags => after,
                    options(pure, nomem, nostack));
            }
            (result, after)
        }
    )*};
}

/// SHLD and SHRD.
macro_rules! double_shifts {
    ($size:literal, $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self, filler: Self, count: u8, flags: u16) -> (Self, u16) {
            let mut result = self;
            let after: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!("add al, 0x7f", "sahf",
                    concat!(stringify!($name), " {a", $size, "}, {b", $size, "}, cl"),
                    "lahf", "seto al",
                    a = inout(reg) result, b = in(reg) filler, in("cl") count,
                    inout("ax") flags => after, options(pure, nomem, nostack));
            }
            (result, after)
        }
    )*};
}

/// MUL and IMUL with one operand of 16 or 32 bits: the product leaves EAX before LAHF needs it.
macro_rules! wide_products {
    ($size:literal, $accumulator:literal, $high:tt, $($name:ident)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self, flags: u16) -> (Self, Self, u16) {
            let mut low = self;
            let high: Self;
            let after: u16;
            // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
            unsafe {
                asm!("add al, 0x7f", "sahf", concat!("mov ", $accumulator, ", {a", $size, "}"),
                    concat!(stringify!($name), " {b", $size, "}"),
                    concat!("mov {a", $size, "}, ", $accumulator), "lahf", "seto al",
                    a = inout(reg) low, b = in(reg) other, out($high) high,
                    inout("ax") flags => after, options(pure, nomem, nostack));
            }
            (low, high, after)
        }
    )*};
}

/// Whether a quotient exists and fits in `bits` bits as a signed number; IDIV raises #DE otherwise.
fn quotient_fits(dividend: i64, divisor: i64, bits: u32) -> bool {
    let unused = 64 - bits;
    dividend.checked_div(divisor).is_some_and(|quotient| quotient << unused >> unused == quotient)
}

/// DIV and IDIV of 16 or 32 bits, once they are known not to raise #DE.
macro_rules! wide_divisions {
    ($size:literal, $accumulator:literal, $high:tt, $wide:ty, $signed:ty, $signed_wide:ty) => {
        #[inline]
        fn div(low: Self, high: Self, divisor: Self, flags: u16) -> Option<(Self, Self, u16)> {
            // A quotient that fits, and a divisor other than 0.
            (high < divisor)
                .then(|| wide_divisions!(@run "div", $size, $accumulator, $high, low, high, divisor, flags))
        }

        #[inline]
        fn idiv(low: Self, high: Self, divisor: Self, flags: u16) -> Option<(Self, Self, u16)> {
            let dividend = <$wide>::from(high) << <Self as Word>::BITS | <$wide>::from(low);
            let (wide, by) = (i64::from(dividend as $signed_wide), i64::from(divisor as $signed));
            quotient_fits(wide, by, <Self as Word>::BITS)
                .then(|| wide_divisions!(@run "idiv", $size, $accumulator, $high, low, high, divisor, flags))
        }
    };
    (@run $name:literal, $size:literal, $accumulator:literal, $high:tt,
        $low:ident, $upper:ident, $divisor:ident, $flags:ident) => {{
        let (quotient, remainder, after);
        // SAFETY: only registers and RFLAGS, which asm blocks may change, are used, and the
        // caller has made sure that the division does not fault.
        unsafe {
            asm!("add al, 0x7f", "sahf", concat!("mov ", $accumulator, ", {a", $size, "}"),
                concat!($name, " {b", $size, "}"),
                concat!("mov {a", $size, "}, ", $accumulator), "lahf", "seto al",
                a = inout(reg) $low => quotient, b = in(reg) $divisor,
                inout($high) $upper => remainder, inout("ax") $flags => after,
                options(pure, nomem, nostack));
        }
        (quotient, remainder, after)
    }};
}

/// DIV and IDIV of AX, once they are known not to raise #DE.
macro_rules! byte_division {
    ($name:literal, $low:ident, $high:ident, $divisor:ident, $flags:ident) => {{
        let mut pair = u16::from($high) << 8 | u16::from($low);
        let after: u16;
        // SAFETY: as in `wide_divisions`.
        unsafe {
            asm!("add al, 0x7f", "sahf", "mov ax, {p:x}", concat!($name, " {b}"),
                "mov {p:x}, ax", "lahf", "seto al",
                p = inout(reg) pair, b = in(reg_byte) $divisor, inout("ax") $flags => after,
                options(pure, nomem, nostack));
        }
        (pair as u8, (pair >> 8) as u8, after)
    }};
}

macro_rules! every_size {
    ($class:ident, $size:literal, $signed:ty) => {
        const SIZE: u32 = size_of::<Self>() as u32;
        sets_all_flags!($class, $size, add sub and or xor);
        binary_with_flags!($class, $size, adc = "adc" sbb = "sbb");
        unary_with_flags!($class, $size, inc dec);
        shifts!($class, $size, shl shr sar rol ror rcl rcr);

        #[inline(always)]
        fn truncate(value: u32) -> Self {
            value as Self
        }

        #[inline(always)]
        fn zero_extend(self) -> u32 {
            u32::from(self)
        }

        #[inline(always)]
        fn sign_extend(self) -> u32 {
            i32::from(self as $signed) as u32
        }
    };
}

macro_rules! wide_word {
    ($word:ty, $size:literal) => {
        impl WideWord for $word {
            binary_with_flags!(reg, $size, imul_truncating = "imul" bsf = "bsf" bsr = "bsr"
                bt = "bt" bts = "bts" btr = "btr" btc = "btc");
            double_shifts!($size, shld shrd);
        }
    };
}

impl Word for u32 {
    every_size!(reg, ":e", i32);
    wide_products!(":e", "eax", "edx", mul imul);
    wide_divisions!(":e", "eax", "edx", u64, i32, i64);

    #[inline(always)]
    fn register(registers: &[u32; 8], number: u8) -> u32 {
        registers[usize::from(number & 7)]
    }

    #[inline(always)]
    fn set_register(registers: &mut [u32; 8], number: u8, value: u32) {
        registers[usize::from(number & 7)] = value;
    }
}

impl Word for u16 {
    every_size!(reg, ":x", i16);
    wide_products!(":x", "ax", "dx", mul imul);
    wide_divisions!(":x", "ax", "dx", u32, i16, i32);

    #[inline(always)]
    fn register(registers: &[u32; 8], number: u8) -> u16 {
        registers[usize::from(number & 7)] as u16
    }

    #[inline(always)]
    fn set_register(registers: &mut [u32; 8], number: u8, value: u16) {
        let register = &mut registers[usize::from(number & 7)];
        *register = *register & 0xffff_0000 | u32::from(value);
    }
}

impl Word for u8 {
    every_size!(reg_byte, "", i8);

    #[inline]
    fn div(low: u8, high: u8, divisor: u8, flags: u16) -> Option<(u8, u8, u16)> {
        (high < divisor).then(|| byte_division!("div", low, high, divisor, flags))
    }

    #[inline]
    fn idiv(low: u8, high: u8, divisor: u8, flags: u16) -> Option<(u8, u8, u16)> {
        let dividend = (u16::from(high) << 8 | u16::from(low)) as i16;
        quotient_fits(dividend.into(), (divisor as i8).into(), 8)
            .then(|| byte_division!("idiv", low, high, divisor, flags))
    }

    #[inline(always)]
    fn register(registers: &[u32; 8], number: u8) -> u8 {
        (registers[usize::from(number & 3)] >> ((number & 4) * 2)) as u8
    }

    #[inline(always)]
    fn set_register(registers: &mut [u32; 8], number: u8, value: u8) {
        let shift = (number & 4) * 2;
        let register = &mut registers[usize::from(number & 3)];
        *register = *register & !(0xff << shift) | u32::from(value) << shift;
    }

    fn mul(self, other: u8, flags: u16) -> (u8, u8, u16) {
        let product: u16;
        let after: u16;
        // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
        unsafe {
            asm!("add al, 0x7f", "sahf", "mov al, {a}", "mul {b}", "mov {p:x}, ax",
                "lahf", "seto al",
                a = in(reg_byte) self, b = in(reg_byte) other, p = out(reg) product,
                inout("ax") flags => after, options(pure, nomem, nostack));
        }
        (product as u8, (product >> 8) as u8, after)
    }

    fn imul(self, other: u8, flags: u16) -> (u8, u8, u16) {
        let product: u16;
        let after: u16;
        // SAFETY: only registers and RFLAGS, which asm blocks may change, are used.
        unsafe {
            asm!("add al, 0x7f", "sahf", "mov al, {a}", "imul {b}", "mov {p:x}, ax",
                "lahf", "seto al",
                a = in(reg_byte) self, b = in(reg_byte) other, p = out(reg) product,
                inout("ax") flags => after, options(pure, nomem, nostack));
        }
        (product as u8, (product >> 8) as u8, after)
    }
}

wide_word!(u16, ":x");
wide_word!(u32, ":e");

#[cfg(test)]
mod tests {
    use super::*;
    use machine::cpu::{Eflags, Flags};

    fn eflags(host: u16) -> Eflags {
        let mut flags = Flags::default();
        flags.set_host(host);
        Eflags::from_bits_retain(flags.bits()).difference(Eflags::FIXED)
    }

    #[test]
    fn addition_sets_carry_and_overflow() {
        let (sum, flags) = 0x7fu8.add(1);
        assert_eq!(sum, 0x80);
        assert_eq!(eflags(flags), Eflags::OF | Eflags::SF | Eflags::AF);
        let (sum, flags) = u32::MAX.add(1);
        assert_eq!(sum, 0);
        assert_eq!(eflags(flags), Eflags::CF | Eflags::ZF | Eflags::AF | Eflags::PF);
    }

    #[test]
    fn a_shift_by_zero_keeps_every_flag() {
        for bits in [0u32, 0x8d5, 0x801, 0x44] {
            let mut flags = Flags::default();
            flags.set_bits(bits);
            let (result, after) = 5u32.shl(32, flags.host());
            assert_eq!((result, eflags(after).bits()), (5, bits));
        }
    }

    #[test]
    fn increment_keeps_carry() {
        let mut flags = Flags::default();
        flags.set_bits(1);
        let (result, after) = 0xffffu16.inc(flags.host());
        assert_eq!(result, 0);
        assert_eq!(eflags(after), Eflags::CF | Eflags::ZF | Eflags::AF | Eflags::PF);
    }

    #[test]
    fn products_have_both_halves() {
        let (low, high, flags) = 0x8000_0000u32.mul(6, 0);
        assert_eq!((low, high), (0, 3));
        assert!(eflags(flags).contains(Eflags::CF | Eflags::OF));
        let (low, high, _) = 0xffu8.imul(2, 0);
        assert_eq!((low, high), (0xfe, 0xff));
    }

    #[test]
    fn divisions_that_do_not_fit_raise() {
        let results = |division: Option<(u32, u32, u16)>| division.map(|(q, r, _)| (q, r));
        assert_eq!(u8::div(0, 1, 1, 0), None);
        assert_eq!(u32::div(5, 0, 0, 0), None);
        assert_eq!(u16::idiv(0x8000, 0xffff, 0xffff, 0), None);
        assert_eq!(u32::idiv(0, 0x8000_0000, u32::MAX, 0), None);
        let quotient = results(u32::idiv(0xffff_fff9, u32::MAX, 2, 0));
        assert_eq!(quotient, Some((0xffff_fffd, u32::MAX)));
        assert_eq!(results(u32::div(7, 1, 2, 0)), Some((0x8000_0003, 1)));
    }

    #[test]
    fn high_byte_registers_are_numbered_from_four() {
        let mut registers = [0x1234_5678, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(u8::register(&registers, 4), 0x56);
        u8::set_register(&mut registers, 4, 0xab);
        assert_eq!(registers[0], 0x1234_ab78);
    }
}
