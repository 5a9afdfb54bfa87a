//! Host instructions, as bytes. What comes of guest instructions that stay what they are is
//! iced-x86's to encode; these are the few that translation adds.
//!
//! None of them changes the flags unless its name says so: the host's flags are the guest's.

mod alu;

pub(crate) use alu::{Alu, condition};

/// A host register by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RBX: Reg = Reg(3);
pub(crate) const RSI: Reg = Reg(6);
pub(crate) const RDI: Reg = Reg(7);
/// Scratch, and the target of what is looked up.
pub(crate) const R8: Reg = Reg(8);
/// Scratch.
pub(crate) const R9: Reg = Reg(9);
/// Scratch.
pub(crate) const R10: Reg = Reg(10);
/// Scratch.
pub(crate) const R11: Reg = Reg(11);
/// Scratch: keeps RCX around JRCXZ.
pub(crate) const R12: Reg = Reg(12);
/// The context.
pub(crate) const R13: Reg = Reg(13);
/// The guest's ESP.
pub(crate) const R14: Reg = Reg(14);
/// The window's base.
pub(crate) const R15: Reg = Reg(15);

/// The host register that holds a guest register.
pub(crate) fn guest(number: u8) -> Reg {
    if number == 4 { R14 } else { Reg(number) }
}

/// An address: base, index times scale, displacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: Reg,
    pub(crate) index: Option<(Reg, u8)>,
    pub(crate) displacement: i32,
}

impl Address {
    pub(crate) fn new(base: Reg, displacement: i32) -> Address {
        Address { base, index: None, displacement }
    }

    pub(crate) fn indexed(base: Reg, index: Reg, scale: u8, displacement: i32) -> Address {
        Address { base, index: Some((index, scale)), displacement }
    }
}

/// A field of the context.
pub(crate) fn context(offset: i32) -> Address {
    Address::new(R13, offset)
}

/// Bytes of host code and where they will lie.
#[derive(Debug)]
pub(crate) struct Emitter {
    pub(crate) bytes: Vec<u8>,
    /// The host address of the first byte.
    pub(crate) base: u64,
}

impl Emitter {
    pub(crate) fn new(base: u64) -> Emitter {
        Emitter { bytes: Vec::with_capacity(2048), base }
    }

    /// The host address of what comes next.
    pub(crate) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// The offset of what comes next.
    pub(crate) fn offset(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn dword(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Prefixes, opcode and operands of an instruction with a register and a memory operand.
    fn memory(&mut self, legacy: &[u8], wide: bool, opcode: &[u8], reg: u8, address: Address) {
        self.raw(legacy);
        let index = address.index.map_or(0, |(index, _)| index.0);
        let rex = 0x40
            | u8::from(wide) << 3
            | (reg >> 3) << 2
            | (index >> 3) << 1
            | (address.base.0 >> 3);
        if rex != 0x40 {
            self.raw(&[rex]);
        }
        self.raw(opcode);
        let short = i8::try_from(address.displacement);
        // Base 5 (RBP, R13) without displacement means something else.
        let mode = match short {
            Ok(0) if address.base.0 & 7 != 5 => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        let low = address.base.0 & 7;
        match address.index {
            Some((index, scale)) => {
                let sib = (scale.trailing_zeros() as u8) << 6 | (index.0 & 7) << 3 | low;
                self.raw(&[mode << 6 | (reg & 7) << 3 | 4, sib]);
            }
            None if low == 4 => self.raw(&[mode << 6 | (reg & 7) << 3 | 4, 0x24]),
            None => self.raw(&[mode << 6 | (reg & 7) << 3 | low]),
        }
        match mode {
            0 => {}
            1 => self.raw(&[address.displacement as u8]),
            _ => self.dword(address.displacement as u32),
        }
    }

    /// Loads 32 bits.
    pub(crate) fn load(&mut self, to: Reg, from: Address) {
        self.memory(&[], false, &[0x8b], to.0, from);
    }

    /// Loads 16 bits, clearing the rest.
    pub(crate) fn load16(&mut self, to: Reg, from: Address) {
        self.memory(&[], false, &[0x0f, 0xb7], to.0, from);
    }

    /// Loads 64 bits.
    pub(crate) fn load64(&mut self, to: Reg, from: Address) {
        self.memory(&[], true, &[0x8b], to.0, from);
    }

    /// Stores 32 bits.
    pub(crate) fn store(&mut self, to: Address, from: Reg) {
        self.memory(&[], false, &[0x89], from.0, to);
    }

    /// Stores 16 bits.
    pub(crate) fn store16(&mut self, to: Address, from: Reg) {
        self.memory(&[0x66], false, &[0x89], from.0, to);
    }

    /// Stores 64 bits.
    pub(crate) fn store64(&mut self, to: Address, from: Reg) {
        self.memory(&[], true, &[0x89], from.0, to);
    }

    /// Stores a constant.
    pub(crate) fn store_constant(&mut self, to: Address, value: u32) {
        self.memory(&[], false, &[0xc7], 0, to);
        self.dword(value);
    }

    /// Loads 32 or 16 bits, the latter zero-extended, from guest memory.
    pub(crate) fn guest_load(&mut self, to: Reg, from: Address, size: u32) {
        let opcode: &[u8] = if size == 2 { &[0x0f, 0xb7] } else { &[0x8b] };
        self.memory(&[0x65, 0x67], false, opcode, to.0, from);
    }

    /// Stores 32 or 16 bits to guest memory.
    pub(crate) fn guest_store(&mut self, to: Address, from: Reg, size: u32) {
        let legacy: &[u8] = if size == 2 { &[0x65, 0x67, 0x66] } else { &[0x65, 0x67] };
        self.memory(legacy, false, &[0x89], from.0, to);
    }

    /// Stores a constant of 32 or 16 bits to guest memory.
    pub(crate) fn guest_store_constant(&mut self, to: Address, value: u32, size: u32) {
        if size == 2 {
            self.memory(&[0x65, 0x67, 0x66], false, &[0xc7], 0, to);
            self.raw(&(value as u16).to_le_bytes());
        } else {
            self.memory(&[0x65, 0x67], false, &[0xc7], 0, to);
            self.dword(value);
        }
    }

    /// The low 32 bits of an address.
    pub(crate) fn lea(&mut self, to: Reg, address: Address) {
        self.memory(&[], false, &[0x8d], to.0, address);
    }

    /// All 64 bits of an address.
    pub(crate) fn lea64(&mut self, to: Reg, address: Address) {
        self.memory(&[], true, &[0x8d], to.0, address);
    }

    /// Copies 32 bits, clearing the rest.
    pub(crate) fn copy(&mut self, to: Reg, from: Reg) {
        let rex = 0x40 | (from.0 >> 3) << 2 | to.0 >> 3;
        if rex != 0x40 {
            self.raw(&[rex]);
        }
        self.raw(&[0x89, 0xc0 | (from.0 & 7) << 3 | to.0 & 7]);
    }

    /// Copies 64 bits.
    pub(crate) fn copy64(&mut self, to: Reg, from: Reg) {
        let rex = 0x48 | (from.0 >> 3) << 2 | to.0 >> 3;
        self.raw(&[rex, 0x89, 0xc0 | (from.0 & 7) << 3 | to.0 & 7]);
    }

    /// Copies 16 bits, clearing the rest.
    pub(crate) fn copy16(&mut self, to: Reg, from: Reg) {
        let rex = 0x40 | (to.0 >> 3) << 2 | from.0 >> 3;
        self.raw(&[rex, 0x0f, 0xb7, 0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }

    /// Copies 16 bits and keeps the rest.
    pub(crate) fn copy_low16(&mut self, to: Reg, from: Reg) {
        let rex = 0x40 | (from.0 >> 3) << 2 | to.0 >> 3;
        self.raw(&[0x66, rex, 0x89, 0xc0 | (from.0 & 7) << 3 | to.0 & 7]);
    }

    /// Copies 8 bits, clearing the rest.
    pub(crate) fn copy8(&mut self, to: Reg, from: Reg) {
        let rex = 0x40 | (to.0 >> 3) << 2 | from.0 >> 3;
        self.raw(&[rex, 0x0f, 0xb6, 0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }

    /// Loads a constant.
    pub(crate) fn constant(&mut self, to: Reg, value: u32) {
        if to.0 >= 8 {
            self.raw(&[0x41]);
        }
        self.raw(&[0xb8 | to.0 & 7]);
        self.dword(value);
    }

    /// SHRX: logical shift right of 32 bits by a register (BMI2).
    pub(crate) fn shift_right(&mut self, to: Reg, from: Reg, count: Reg) {
        // VEX.LZ.F2.0F38.W0 F7 /r
        self.vex_f7(3, to, from, count);
    }

    /// SHLX: shift left of 32 bits by a register (BMI2).
    pub(crate) fn shift_left_keeping_flags(&mut self, to: Reg, from: Reg, count: Reg) {
        // VEX.LZ.66.0F38.W0 F7 /r
        self.vex_f7(1, to, from, count);
    }

    fn vex_f7(&mut self, prefix: u8, to: Reg, from: Reg, count: Reg) {
        let second = (!(to.0 >> 3) & 1) << 7 | 1 << 6 | (!(from.0 >> 3) & 1) << 5 | 2;
        let third = (!count.0 & 0xf) << 3 | prefix;
        self.raw(&[0xc4, second, third, 0xf7, 0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }

    /// Jumps to the address in memory.
    pub(crate) fn jump_through(&mut self, address: Address) {
        self.memory(&[], false, &[0xff], 4, address);
    }

    /// Calls the address in memory.
    pub(crate) fn call_through(&mut self, address: Address) {
        self.memory(&[], false, &[0xff], 2, address);
    }

    /// A jump whose target is put in later; returns where its 32 bits are.
    pub(crate) fn jump(&mut self) -> usize {
        self.raw(&[0xe9]);
        self.hole()
    }

    /// A call whose target is put in later.
    pub(crate) fn call(&mut self) -> usize {
        self.raw(&[0xe8]);
        self.hole()
    }

    /// A conditional jump whose target is put in later.
    pub(crate) fn jump_if(&mut self, condition: u8) -> usize {
        self.raw(&[0x0f, 0x80 | condition]);
        self.hole()
    }

    fn hole(&mut self) -> usize {
        self.dword(0);
        self.offset() - 4
    }

    /// JRCXZ (or LOOP and its kin) over a short distance; returns where its byte is.
    pub(crate) fn short(&mut self, opcode: &[u8]) -> usize {
        self.raw(opcode);
        self.raw(&[0]);
        self.offset() - 1
    }

    /// Lets a short jump go here.
    pub(crate) fn land_short(&mut self, hole: usize) {
        let distance = self.offset() - hole - 1;
        debug_assert!(distance < 0x80);
        self.bytes[hole] = distance as u8;
    }

    /// Lets a jump go here.
    pub(crate) fn land(&mut self, hole: usize) {
        let here = self.here();
        self.aim(hole, here);
    }

    /// Lets a jump go to a host address.
    pub(crate) fn aim(&mut self, hole: usize, target: u64) {
        let next = self.base + hole as u64 + 4;
        let distance = target.wrapping_sub(next) as u32;
        self.bytes[hole..hole + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// LEA of a place in this code, whose distance is put in later.
    pub(crate) fn lea_here(&mut self, to: Reg) -> usize {
        self.raw(&[0x48 | (to.0 >> 3) << 2, 0x8d, (to.0 & 7) << 3 | 5]);
        self.hole()
    }

    /// Jumps when RCX is zero, with RCX put back from R12 on both ways; the code in between runs
    /// when it is not.
    pub(crate) fn unless_zero(&mut self, otherwise: impl FnOnce(&mut Emitter)) {
        let hit = self.short(&[0xe3]);
        self.copy64(RCX, R12);
        otherwise(self);
        self.land_short(hit);
        self.copy64(RCX, R12);
    }
}
