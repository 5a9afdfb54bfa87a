//! Down to ring 3 by IRET and back by INT.

use super::descriptors::Gate;
use super::guest::Guest;
use super::layout;
use crate::x86;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi};

impl Guest {
    /// Runs in ring 3 what `body` emits, with interrupts off and [`layout::USER_STACK`], then goes on
    /// in ring 0 on the stack it left. General registers pass through both ways. Not to be nested.
    pub fn ring3(&mut self, body: impl FnOnce(&mut Guest)) {
        self.ring3_with(layout::EFLAGS_NONE, layout::USER_STACK, body);
    }

    /// As [`ring3`](Self::ring3), with the stack and EFLAGS chosen: [`layout::EFLAGS_IF`] lets
    /// interrupts in. Back in ring 0 interrupts are off.
    pub fn ring3_with(&mut self, eflags: u32, stack: u32, body: impl FnOnce(&mut Guest)) {
        let (user, kernel, handler) = (self.label(), self.label(), self.label());
        self.gate(layout::LEAVE_RING3, Gate::UserInterrupt, handler);
        x86!(self
            ; mov [layout::SAVED_ESP as i32], esp
            ; push eax
            ; lea eax, [=>kernel]
            ; mov [layout::SAVED_EIP as i32], eax
            ; pop eax
        );
        self.enter_user(eflags, stack, user);
        x86!(self
            ; =>handler
            ; mov esp, [layout::SAVED_ESP as i32]
            ; jmp DWORD [layout::SAVED_EIP as i32]
            ; =>user
        );
        body(self);
        x86!(self ; int layout::LEAVE_RING3 as i8 ; =>kernel);
    }

    /// Goes to `target` in ring 3 by IRET. Changes no general register but ESP.
    pub fn enter_user(&mut self, eflags: u32, stack: u32, target: DynamicLabel) {
        x86!(self
            ; push DWORD i32::from(layout::USER_DATA)
            ; push DWORD stack as i32
            ; push DWORD eflags as i32
            ; push DWORD i32::from(layout::USER_CODE)
            ; push eax
            ; lea eax, [=>target]
            ; xchg eax, [esp]
            ; iretd
        );
    }
}
