//! Far transfers within a privilege level: JMP, CALL, RET and IRET to the code segment that is
//! current.
//!
//! Kernels return from interrupts so all the time. CS is loaded, but with what it holds: its selector
//! is the current one, and the descriptor in the guest's table still says what CS's hidden part says.
//! Then all that is left is a near transfer. Anything else is the emulator's. The user's window does
//! not show descriptor tables, so his far transfers all are.

use super::{Next, PlaceKind, Translator};
use crate::context::{at, cpu};
use crate::emit::{Address, Alu, R8, R9, R10, R14, RAX, condition, context};
use iced_x86::{Code, Instruction};

impl Translator<'_> {
    /// Translates a far transfer; nothing if it is none, or is the emulator's.
    pub(super) fn far(&mut self, i: &Instruction) -> Option<Next> {
        if self.request.mode.is_user() || self.is_soft(i) {
            return None;
        }
        match i.code() {
            Code::Jmp_ptr1632 => self.far_jump(i),
            Code::Call_ptr1632 => return self.far_call(i),
            Code::Retfd | Code::Retfd_imm16 => self.far_ret(i),
            Code::Iretd => self.iret(i),
            _ => return None,
        }
        Some(Next::End)
    }

    fn far_jump(&mut self, i: &Instruction) {
        let target = i.far_branch32();
        if target <= i.ip32() {
            // Before anything is looked at: the jump is executed again.
            self.poll(i.ip32());
            self.place(i.ip32(), PlaceKind::Instruction);
        }
        self.e.constant(R8, u32::from(i.far_branch_selector()));
        self.borrow_flags(i);
        self.check_code_segment(i);
        self.e.take_flags_back();
        self.jump_to(target);
    }

    fn far_call(&mut self, i: &Instruction) -> Option<Next> {
        let (selector, target) = (i.far_branch_selector(), i.far_branch32());
        if target <= i.ip32() {
            self.poll(i.ip32());
            self.place(i.ip32(), PlaceKind::Instruction);
        }
        self.e.constant(R8, u32::from(selector));
        self.borrow_flags(i);
        self.check_code_segment(i);
        self.give_up_across_pages(i, Address::new(R14, -8), 8);
        // The current selector is this one.
        self.e.guest_store_constant(Address::new(R14, -4), u32::from(selector), 4);
        self.e.guest_store_constant(Address::new(R14, -8), i.next_ip32(), 4);
        self.e.take_flags_back();
        self.e.lea(R14, Address::new(R14, -8));
        self.call_to(target, i.next_ip32());
        Some(Next::Continue)
    }

    fn far_ret(&mut self, i: &Instruction) {
        let dropped = if i.op_count() == 0 { 0 } else { i32::from(i.immediate16()) };
        self.e.guest_load(R9, Address::new(R14, 0), 4);
        self.e.guest_load(R8, Address::new(R14, 4), 4);
        self.e.copy16(R8, R8);
        self.borrow_flags(i);
        self.check_code_segment(i);
        self.e.take_flags_back();
        self.e.copy(R8, R9);
        self.e.lea(R14, Address::new(R14, 8 + dropped));
        self.e.raw(&[0xc3]);
    }

    fn iret(&mut self, i: &Instruction) {
        self.e.guest_load(R9, Address::new(R14, 0), 4);
        self.e.guest_load(R8, Address::new(R14, 4), 4);
        self.e.guest_load(R10, Address::new(R14, 8), 4);
        self.e.copy16(R8, R8);
        self.borrow_flags(i);
        self.check_returned_flags(i);
        self.check_code_segment(i);
        self.take_system_flags();
        self.e.flags_from(R10);
        self.e.copy(R8, R9);
        self.e.lea(R14, Address::new(R14, 12));
        self.lookup();
    }

    /// Gives up unless the selector in R8 is CS's and its descriptor is what CS was loaded from.
    fn check_code_segment(&mut self, i: &Instruction) {
        self.e.alu_memory(Alu::Cmp, R8, context(at::CODE_SELECTOR));
        self.give_up_if(i, condition::NOT_ZERO);
        self.load_descriptor(i);
        self.e.compare64(R8, context(at::CODE_DESCRIPTOR));
        self.give_up_if(i, condition::NOT_ZERO);
    }

    /// Loads the descriptor in the GDT of the selector in R8, with the flags borrowed and EAX free;
    /// gives up if it lies beyond the limit.
    pub(super) fn load_descriptor(&mut self, i: &Instruction) {
        self.e.alu_constant(Alu::Or, R8, 7);
        let limit = self.cpu(RAX, cpu::GDTR + cpu::LIMIT);
        self.e.compare16(R8, limit);
        self.give_up_if(i, condition::ABOVE);
        self.e.alu_memory(Alu::Add, R8, Address::new(RAX, cpu::GDTR + cpu::BASE));
        self.e.guest_load64(R8, Address::new(R8, -7));
    }
}
