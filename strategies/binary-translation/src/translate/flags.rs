//! EFLAGS as a whole: PUSHF and POPF, and how a sequence that needs flags of its own borrows the
//! guest's.
//!
//! The guest's arithmetic flags are the host's. A sequence that has to compare something sets them
//! aside, and EAX, through which LAHF and SAHF go ([`Translator::borrow_flags`]). A fault in such a
//! sequence puts both back ([`PlaceKind::Borrowed`]) and begins with the whole instruction again.

use super::{Cold, PlaceKind, Translator};
use crate::context::{Exit, at};
use crate::emit::{Address, Alu, R8, R9, R10, R14, RAX, Reg, condition, context};
use iced_x86::Instruction;
use machine::cpu::Eflags;

/// Flags that the translator keeps as the guest set them, and that change nothing for its code.
const KEPT: u32 = Eflags::NT.union(Eflags::ID).bits();
/// Flags whose change is the emulator's business in the kernel …
const CAREFUL: u32 = Eflags::TF.union(Eflags::AC).union(Eflags::DF).bits();
/// … and for IRET …
const CAREFUL_IRET: u32 = CAREFUL | Eflags::VM.union(Eflags::VIF).union(Eflags::VIP).bits();
/// … and for the user, whose right to change IF depends on IOPL.
const CAREFUL_USER: u32 = CAREFUL | Eflags::IOPL.union(Eflags::IF).bits();

impl Translator<'_> {
    /// Sets the guest's flags aside, and EAX.
    pub(super) fn borrow_flags(&mut self, i: &Instruction) {
        self.e.set_flags_aside();
        self.place(i.ip32(), PlaceKind::Borrowed);
    }

    /// Leaves the instruction to the emulator if the condition holds, while the flags are borrowed.
    pub(super) fn give_up_if(&mut self, i: &Instruction, condition: u8) {
        let hole = self.e.jump_if(condition);
        self.cold.push(Cold::Step {
            hole,
            eip: i.ip32(),
            next: i.next_ip32(),
            back: None,
            exit: Exit::Step,
            borrowed: true,
        });
    }

    /// Leaves the instruction to the emulator if `size` bytes at `address` are in two pages, while the
    /// flags are borrowed: what is written in parts would be written in part where the second page
    /// refuses. R8 is free.
    pub(super) fn give_up_across_pages(&mut self, i: &Instruction, address: Address, size: u32) {
        self.e.lea(R8, address);
        self.e.alu_constant(Alu::And, R8, 0xfff);
        self.e.alu_constant(Alu::Cmp, R8, 0x1000 - size);
        self.give_up_if(i, condition::ABOVE);
    }

    pub(super) fn pushf(&mut self) {
        self.e.set_flags_aside();
        self.e.copy8(R8, RAX);
        self.e.rotate(R8, R8, 32 - 11);
        self.e.raw(&[0x0f, 0xb6, 0xc4]); // movzx eax, ah
        self.e.copy(R9, RAX);
        self.e.copy64(RAX, crate::emit::R12);
        self.e.load(R10, context(at::INTERRUPT_FLAG));
        self.e.lea(R8, Address::indexed(R8, R9, 1, 0));
        self.e.load(R9, context(at::SYSTEM_FLAGS));
        self.e.lea(R8, Address::indexed(R8, R10, 1, 0));
        self.e.load(R10, context(at::DIRECTION));
        // Bit 1 is in what LAHF gives.
        self.e.lea(R9, Address::indexed(R9, R10, 1, -(Eflags::FIXED.bits() as i32)));
        self.e.lea(R8, Address::indexed(R8, R9, 1, 0));
        self.e.guest_store(Address::new(R14, -4), R8, 4);
        self.e.lea(R14, Address::new(R14, -4));
    }

    pub(super) fn popf(&mut self, i: &Instruction) {
        self.e.guest_load(R10, Address::new(R14, 0), 4);
        self.e.set_flags_aside();
        let user = self.request.mode.is_user();
        self.check_flags(i, if user { CAREFUL_USER } else { CAREFUL });
        self.take_system_flags();
        self.e.lea(R14, Address::new(R14, 4));
        self.e.flags_from(R10);
        self.come_back(i);
    }

    /// For IRET: gives up unless the image in R10 has flags that can be taken here.
    pub(super) fn check_returned_flags(&mut self, i: &Instruction) {
        self.e.test_memory(context(at::SYSTEM_FLAGS), Eflags::NT.bits());
        self.give_up_if(i, condition::NOT_ZERO);
        self.check_flags(i, CAREFUL_IRET);
    }

    /// Gives up where the image in R10 changes `careful` flags, or lets a waiting interrupt in.
    fn check_flags(&mut self, i: &Instruction, careful: u32) {
        self.e.load(RAX, context(at::SYSTEM_FLAGS));
        self.e.alu_memory(Alu::Or, RAX, context(at::DIRECTION));
        self.e.alu_memory(Alu::Or, RAX, context(at::INTERRUPT_FLAG));
        self.e.alu(Alu::Xor, RAX, R10);
        self.e.test(RAX, careful);
        self.give_up_if(i, condition::NOT_ZERO);
        if self.request.mode.is_user() {
            return;
        }
        self.e.test(R10, Eflags::IF.bits());
        let masked = self.e.short(&[0x74]); // jz
        self.e.alu_memory_constant(Alu::Cmp, context(at::PENDING), 0);
        self.give_up_if(i, condition::NOT_ZERO);
        self.e.land_short(masked);
    }

    /// Takes the flags that are not the host's from the image in R10. EAX, R8 and the flags are free.
    pub(super) fn take_system_flags(&mut self) {
        let kernel = !self.request.mode.is_user();
        let kept = if kernel { KEPT | Eflags::IOPL.bits() } else { KEPT };
        if kernel {
            self.masked(RAX, R10, Eflags::IF.bits());
            self.e.store(context(at::INTERRUPT_FLAG), RAX);
        }
        self.masked(RAX, R10, kept);
        self.e.load(R8, context(at::SYSTEM_FLAGS));
        self.e.alu_constant(Alu::And, R8, !kept);
        self.e.alu(Alu::Or, R8, RAX);
        self.e.store(context(at::SYSTEM_FLAGS), R8);
    }

    fn masked(&mut self, to: Reg, from: Reg, mask: u32) {
        self.e.copy(to, from);
        self.e.alu_constant(Alu::And, to, mask);
    }
}
