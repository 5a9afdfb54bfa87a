//! IN, OUT and LLDT: functions that are called without an exit (see `calls`).

use super::{Cold, Translator};
use crate::calls::{self, Call};
use crate::context::{Exit, at};
use crate::emit::{Address, R8, R9, R10, RDX, context};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

impl Translator<'_> {
    /// Translates the kernel's instruction to a call; false if it is none of these.
    pub(super) fn called(&mut self, i: &Instruction) -> bool {
        match i.mnemonic() {
            Mnemonic::In => self.port(i, 0, 1, false),
            Mnemonic::Out => self.port(i, 1, 0, true),
            Mnemonic::Lldt if i.op0_kind() == OpKind::Register => {
                let from = self.register(i.op0_register());
                self.e.copy16(R8, from);
                self.call(i, Call::LocalTable);
            }
            _ => return false,
        }
        true
    }

    /// IN or OUT: operand `data` is AL, AX or EAX, and `port` an immediate byte or DX.
    fn port(&mut self, i: &Instruction, data: u32, port: u32, write: bool) {
        let size = match i.op_register(data) {
            Register::AL => 1,
            Register::AX => 2,
            _ => 4,
        };
        let how = calls::port(size, write);
        if i.op_kind(port) == OpKind::Immediate8 {
            self.e.constant(R8, how | u32::from(i.immediate8()));
        } else {
            self.e.copy16(R8, RDX);
            self.e.lea(R8, Address::new(R8, how as i32));
        }
        self.call(i, Call::Port);
    }

    fn call(&mut self, i: &Instruction, call: Call) {
        self.e.constant(R9, i.next_ip32());
        let hole = self.e.lea_here(R10);
        self.e.call_through(context(at::CALLS + 8 * call as i32));
        let (eip, next) = (i.ip32(), i.next_ip32());
        let exit = Exit::LightStep;
        self.cold.push(Cold::Step { hole, eip, next, back: None, exit, borrowed: false });
        self.come_back(i);
    }
}
