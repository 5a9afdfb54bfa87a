//! LAR, LSL, VERR and VERW of segments in the GDT that the kernel may reach: the descriptor is read
//! through the window. What they refuse, and what they say of gates, LDTs and task states, is the
//! emulator's.

use super::Translator;
use crate::context::{at, cpu};
use crate::emit::{Alu, R8, R9, R10, R11, RAX, condition, context};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// ZF as LAHF has it.
const ZERO: u32 = 0x4000;
/// Rights as they are in the descriptor's upper half.
const NOT_SYSTEM: u32 = 1 << 12;
const CODE: u32 = 1 << 11;
/// Of code: it may be read; of data: it may be written.
const ALLOWED: u32 = 1 << 9;
/// What LAR shows (as `emulator` has it).
const SHOWN: u32 = 0x00ff_ff00;

impl Translator<'_> {
    /// Translates what looks at a descriptor; false if it is the emulator's.
    pub(super) fn inspect(&mut self, i: &Instruction) -> bool {
        let shows = matches!(i.mnemonic(), Mnemonic::Lar | Mnemonic::Lsl);
        let source = u32::from(shows);
        let is_register = |number| i.op_kind(number) == OpKind::Register;
        if self.request.mode.is_user() || !is_register(0) || !is_register(source) {
            return false;
        }
        let selector = self.register(i.op_register(source));
        self.e.copy16(R9, selector);
        self.e.copy(R8, R9);
        self.borrow_flags(i);
        self.find_reachable(i);
        match i.mnemonic() {
            Mnemonic::Lar => self.rights(),
            Mnemonic::Lsl => self.limit(),
            Mnemonic::Verr => self.check_readable(i),
            _ => self.check_writable(i),
        }
        self.e.alu_constant(Alu::Or, R11, ZERO);
        self.e.take_flags_back();
        if shows {
            let to = self.register(i.op0_register());
            if i.op0_register().is_gpr32() {
                self.e.copy(to, R10);
            } else {
                self.e.copy_low16(to, R10);
            }
        }
        self.come_back(i);
        true
    }

    /// Finds the descriptor of the selector in R8 and R9: its upper half goes to R10, all of it is
    /// in R8. Gives up unless it is code or data that CPL 0 may reach by this selector.
    fn find_reachable(&mut self, i: &Instruction) {
        // The null selector's descriptor is never looked at, and the LDT is the emulator's.
        self.e.test(R8, 4);
        self.give_up_if(i, condition::NOT_ZERO);
        self.e.test(R8, 0xfffc);
        self.give_up_if(i, condition::ZERO);
        self.load_descriptor(i);
        self.e.rotate64(R10, R8, 32);
        self.e.copy(R10, R10);
        self.e.test(R10, NOT_SYSTEM);
        self.give_up_if(i, condition::ZERO);
        // DPL against RPL, both in their lowest two bits.
        self.e.rotate(RAX, R10, 13);
        self.e.alu_constant(Alu::And, RAX, 3);
        self.e.alu_constant(Alu::And, R9, 3);
        self.e.alu(Alu::Cmp, RAX, R9);
        self.give_up_if(i, condition::BELOW);
    }

    fn rights(&mut self) {
        self.e.alu_constant(Alu::And, R10, SHOWN);
    }

    fn limit(&mut self) {
        self.e.copy16(R8, R8);
        self.e.copy(R9, R10);
        self.e.alu_constant(Alu::And, R10, 0x000f_0000);
        self.e.alu(Alu::Or, R10, R8);
        self.e.test(R9, 1 << 23); // G
        let bytes = self.e.short(&[0x74]); // jz
        self.e.shift_left(R10, 12);
        self.e.alu_constant(Alu::Or, R10, 0xfff);
        self.e.land_short(bytes);
    }

    fn check_readable(&mut self, i: &Instruction) {
        self.e.test(R10, CODE);
        let data = self.e.short(&[0x74]); // jz
        self.e.test(R10, ALLOWED);
        self.give_up_if(i, condition::ZERO);
        self.e.land_short(data);
    }

    fn check_writable(&mut self, i: &Instruction) {
        self.e.alu_constant(Alu::And, R10, CODE | ALLOWED);
        self.e.alu_constant(Alu::Cmp, R10, ALLOWED);
        self.give_up_if(i, condition::NOT_ZERO);
    }

    /// MOV to CR2, which only page faults and reads look at.
    pub(super) fn write_fault_address(&mut self, i: &Instruction) {
        let from = self.register(i.op1_register());
        let to = self.cpu(R8, cpu::control(2));
        self.e.store(to, from);
    }

    /// MOV to CR4 where nothing changes that code of this mode depends on.
    pub(super) fn write_control_4(&mut self, i: &Instruction) {
        let from = self.register(i.op1_register());
        self.e.copy(R8, from);
        self.borrow_flags(i);
        let control = self.cpu(R9, cpu::control(4));
        self.e.copy(RAX, R8);
        self.e.alu_memory(Alu::Xor, RAX, control);
        self.e.alu_memory(Alu::And, RAX, context(at::CAREFUL_CONTROL_4));
        self.give_up_if(i, condition::NOT_ZERO);
        self.e.store(control, R8);
        self.e.take_flags_back();
        self.come_back(i);
    }
}
