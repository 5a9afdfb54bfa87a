//! Pushes and pops: guest ESP is R14, and 64-bit mode's own would use RSP and eight bytes.
//!
//! Memory is touched before a register changes, so that a fault leaves the instruction undone.

use super::Translator;
use super::operand::memory_operand;
use crate::context::cpu;
use crate::emit::{Address, R8, R9, R12, R14, RCX, Reg, guest};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

const EBP: Reg = Reg(5);

impl Translator<'_> {
    /// Translates what uses the stack; false if it does not, or is the emulator's.
    pub(super) fn stack(&mut self, i: &Instruction) -> bool {
        match i.mnemonic() {
            Mnemonic::Push => self.push(i),
            Mnemonic::Pop => self.pop(i),
            Mnemonic::Pusha | Mnemonic::Pushad => self.push_all(i),
            Mnemonic::Popa | Mnemonic::Popad => self.pop_all(i),
            Mnemonic::Leave if i.code() == Code::Leaved => self.leave(i),
            _ => false,
        }
    }

    fn push(&mut self, i: &Instruction) -> bool {
        let size = i.stack_pointer_increment().unsigned_abs();
        match i.op0_kind() {
            OpKind::Register if i.op0_register().is_gpr() => {
                let register = self.register(i.op0_register());
                self.push_register(i, register, size);
            }
            OpKind::Register if i.op0_register().is_segment_register() && !self.is_soft(i) => {
                let selector = cpu::selector(i.op0_register().number());
                let from = self.cpu(R8, selector);
                self.e.load16(R8, from);
                let slot = Address::new(R14, -(size as i32));
                if size == 4 && emulator::pushes_selectors_by_half() {
                    self.store_half(slot);
                } else {
                    self.e.guest_store(slot, R8, size);
                }
                self.e.lea(R14, slot);
            }
            OpKind::Memory if size == 4 && !self.is_soft(i) && self.load_operand(i) => {
                self.push_register(i, R8, size);
            }
            OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate16
            | OpKind::Immediate32 => self.push_constant(i, i.immediate(0) as u32, size),
            _ => return false,
        }
        true
    }

    /// Stores R8's low half in the low half of a slot. A load of the whole slot would have to wait until
    /// that has left the store buffer (Intel Optimization Reference Manual, 3.6.4): so what is in the
    /// other half is stored again with it, in slots that cannot lie across two pages.
    fn store_half(&mut self, slot: Address) {
        self.e.guest_store(slot, R8, 2);
        self.e.copy64(R12, RCX);
        self.e.constant(R9, 30);
        self.e.shift_left_keeping_flags(RCX, R14, R9);
        let mut misaligned = 0;
        self.e.unless_zero(|e| misaligned = e.short(&[0xeb]));
        self.e.guest_load(R9, Address::new(slot.base, slot.displacement + 2), 2);
        self.e.rotate(R9, R9, 16);
        self.e.lea(R8, Address::indexed(R8, R9, 1, 0));
        self.e.guest_store(slot, R8, 4);
        self.e.land_short(misaligned);
    }

    fn push_register(&mut self, i: &Instruction, from: Reg, size: u32) {
        let slot = Address::new(R14, -(size as i32));
        match self.stack_access(i, -(size as i32), size, true) {
            Some(soft) if size == 2 => self.e.store16(soft, from),
            Some(soft) => self.e.store(soft, from),
            None => self.e.guest_store(slot, from, size),
        }
        self.e.lea(R14, slot);
        self.come_back(i);
    }

    fn push_constant(&mut self, i: &Instruction, value: u32, size: u32) {
        let slot = Address::new(R14, -(size as i32));
        match self.stack_access(i, -(size as i32), size, true) {
            Some(soft) => {
                self.e.constant(crate::emit::R10, value);
                match size {
                    2 => self.e.store16(soft, crate::emit::R10),
                    _ => self.e.store(soft, crate::emit::R10),
                }
            }
            None => self.e.guest_store_constant(slot, value, size),
        }
        self.e.lea(R14, slot);
        self.come_back(i);
    }

    fn pop(&mut self, i: &Instruction) -> bool {
        let after = Address::new(R14, 4);
        if i.op0_kind() == OpKind::Register && i.op0_register().is_gpr32() {
            let register = self.register(i.op0_register());
            match self.stack_access(i, 0, 4, false) {
                Some(soft) => self.e.load(register, soft),
                None => self.e.guest_load(register, Address::new(R14, 0), 4),
            }
            if register != R14 {
                self.e.lea(R14, after);
            }
            self.come_back(i);
            return true;
        }
        if memory_operand(i).is_none()
            || i.stack_pointer_increment() != 4
            || self.is_soft(i)
            || !self.can_reach(i)
            || i.memory_base() == Register::ESP
        {
            return false;
        }
        self.linear_address(i, R8);
        self.e.guest_load(R9, Address::new(R14, 0), 4);
        self.e.guest_store(Address::new(R8, 0), R9, 4);
        self.e.lea(R14, after);
        true
    }

    fn push_all(&mut self, i: &Instruction) -> bool {
        if i.code() != Code::Pushad || self.is_soft(i) {
            return false;
        }
        // Within one page: if the first doubleword can be written, all of them can.
        self.borrow_flags(i);
        self.give_up_across_pages(i, Address::new(R14, -32), 32);
        self.e.take_flags_back();
        for number in (0..8).rev() {
            let slot = Address::new(R14, -4 * (i32::from(number) + 1));
            self.e.guest_store(slot, guest(number), 4);
        }
        self.e.lea(R14, Address::new(R14, -32));
        self.come_back(i);
        true
    }

    fn pop_all(&mut self, i: &Instruction) -> bool {
        if i.code() != Code::Popad || self.is_soft(i) {
            return false;
        }
        // Both ends before any register changes: what lies between is on their pages.
        self.e.guest_load(R8, Address::new(R14, 0), 4);
        self.e.guest_load(R9, Address::new(R14, 28), 4);
        for (slot, number) in [7, 6, 5, 4, 3, 2, 1, 0].into_iter().enumerate() {
            if number != 4 {
                self.e.guest_load(guest(number), Address::new(R14, 4 * slot as i32), 4);
            }
        }
        self.e.lea(R14, Address::new(R14, 32));
        true
    }

    fn leave(&mut self, i: &Instruction) -> bool {
        if self.is_soft(i) {
            return false;
        }
        self.e.guest_load(R8, Address::new(EBP, 0), 4);
        self.e.lea(R14, Address::new(EBP, 4));
        self.e.copy(EBP, R8);
        true
    }
}
