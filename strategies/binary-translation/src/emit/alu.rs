//! Host instructions that change the flags: for sequences that have set the guest's flags aside.

use super::{Address, Emitter, Reg};

/// An operation of two operands, by the number that opcodes 0x81 and 0x00 to 0x3F have for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alu {
    Add = 0,
    Or = 1,
    And = 4,
    Xor = 6,
    Cmp = 7,
}

/// Conditions of jumps, as the opcode's low four bits have them.
pub(crate) mod condition {
    pub(crate) const BELOW: u8 = 2;
    pub(crate) const ZERO: u8 = 4;
    pub(crate) const NOT_ZERO: u8 = 5;
    pub(crate) const ABOVE: u8 = 7;
}

impl Emitter {
    /// `left` op= `right`, 32 bits.
    pub(crate) fn alu(&mut self, operation: Alu, left: Reg, right: Reg) {
        let rex = 0x40 | (right.0 >> 3) << 2 | left.0 >> 3;
        if rex != 0x40 {
            self.raw(&[rex]);
        }
        self.raw(&[(operation as u8) << 3 | 1, 0xc0 | (right.0 & 7) << 3 | left.0 & 7]);
    }

    /// The same with an operand in memory on the right.
    pub(crate) fn alu_memory(&mut self, operation: Alu, left: Reg, right: Address) {
        self.memory(&[], false, &[(operation as u8) << 3 | 3], left.0, right);
    }

    /// Compares 16 bits with memory.
    pub(crate) fn compare16(&mut self, left: Reg, right: Address) {
        self.memory(&[0x66], false, &[0x3b], left.0, right);
    }

    /// Compares 64 bits with memory.
    pub(crate) fn compare64(&mut self, left: Reg, right: Address) {
        self.memory(&[], true, &[0x3b], left.0, right);
    }

    /// The same with a constant.
    pub(crate) fn alu_constant(&mut self, operation: Alu, left: Reg, right: u32) {
        if left.0 >= 8 {
            self.raw(&[0x41]);
        }
        self.raw(&[0x81, 0xc0 | (operation as u8) << 3 | left.0 & 7]);
        self.dword(right);
    }

    /// Compares memory with a constant, or changes it: 32 bits.
    pub(crate) fn alu_memory_constant(&mut self, operation: Alu, left: Address, right: u32) {
        self.memory(&[], false, &[0x81], operation as u8, left);
        self.dword(right);
    }

    /// Sets ZF by whether any of these bits is set.
    pub(crate) fn test(&mut self, register: Reg, bits: u32) {
        if register.0 >= 8 {
            self.raw(&[0x41]);
        }
        self.raw(&[0xf7, 0xc0 | register.0 & 7]);
        self.dword(bits);
    }

    /// The same for memory.
    pub(crate) fn test_memory(&mut self, address: Address, bits: u32) {
        self.memory(&[], false, &[0xf7], 0, address);
        self.dword(bits);
    }

    /// Shifts 32 bits left.
    pub(crate) fn shift_left(&mut self, register: Reg, count: u8) {
        if register.0 >= 8 {
            self.raw(&[0x41]);
        }
        self.raw(&[0xc1, 0xe0 | register.0 & 7, count]);
    }

    /// Shifts 32 bits right, filling with zeros.
    pub(crate) fn shift_right_by(&mut self, register: Reg, count: u8) {
        if register.0 >= 8 {
            self.raw(&[0x41]);
        }
        self.raw(&[0xc1, 0xe8 | register.0 & 7, count]);
    }

    /// RORX: 64 bits rotated right into another register, without a flag (BMI2).
    pub(crate) fn rotate64(&mut self, to: Reg, from: Reg, count: u8) {
        self.rotate_right(to, from, count, true);
    }

    /// The same for 32 bits.
    pub(crate) fn rotate(&mut self, to: Reg, from: Reg, count: u8) {
        self.rotate_right(to, from, count, false);
    }

    fn rotate_right(&mut self, to: Reg, from: Reg, count: u8, wide: bool) {
        // VEX.LZ.F2.0F3A.W F0 /r ib
        let second = (!(to.0 >> 3) & 1) << 7 | 1 << 6 | (!(from.0 >> 3) & 1) << 5 | 3;
        let third = u8::from(wide) << 7 | 0x7b;
        self.raw(&[0xc4, second, third, 0xf0, 0xc0 | (to.0 & 7) << 3 | from.0 & 7, count]);
    }

    /// Loads 64 bits from guest memory.
    pub(crate) fn guest_load64(&mut self, to: Reg, from: Address) {
        self.memory(&[0x65, 0x67], true, &[0x8b], to.0, from);
    }

    /// Sets EAX aside in R12 and the arithmetic flags in EAX, which has to stay as it is.
    pub(crate) fn hold_flags(&mut self) {
        self.copy64(super::R12, super::RAX);
        self.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
    }

    /// Takes both back.
    pub(crate) fn release_flags(&mut self) {
        self.raw(&[0x04, 0x7f, 0x9e]); // add al, 127; sahf
        self.copy64(super::RAX, super::R12);
    }

    /// Sets EAX and the arithmetic flags aside in R12 and R11.
    pub(crate) fn set_flags_aside(&mut self) {
        self.hold_flags();
        self.copy(super::R11, super::RAX);
    }

    /// Takes both back.
    pub(crate) fn take_flags_back(&mut self) {
        self.copy(super::RAX, super::R11);
        self.release_flags();
    }

    /// Lets the flags be those of an EFLAGS image, which is used up; with EAX in R12.
    pub(crate) fn flags_from(&mut self, image: Reg) {
        let rax = super::RAX;
        self.copy(rax, image);
        self.shift_right_by(rax, 11);
        self.alu_constant(Alu::And, rax, 1);
        self.copy8(image, image);
        self.shift_left(image, 8);
        self.alu(Alu::Or, rax, image);
        self.release_flags();
    }
}
