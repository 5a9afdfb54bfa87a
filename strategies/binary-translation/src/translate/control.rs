//! Control flow: jumps are linked from unit to unit, calls and returns use the host's own, so that
//! its predictor knows them, and indirect targets are looked up without leaving the cache.
//!
//! A guest CALL pushes the guest's return address on the guest's stack and is a host CALL at the
//! same time. A guest RET pops the guest's address into R8 and is a host RET; where that arrives,
//! R8 is compared with what the call had pushed. Every loop passes a poll: backward jumps and
//! calls have one, and a lookup fails after a kick by itself.

use super::{Cold, Next, OPTIONS, PlaceKind, Request, Translator};
use crate::class::{self, Class};
use crate::emit::{Address, Alu, R8, R14, condition};
use iced_x86::{Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Instructions that are looked at to see whether a unit jumps to its own start.
const LOOK_AHEAD: usize = 24;

/// What the code from a unit's start on looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Shape {
    /// It jumps back to its start: that is then where it polls.
    pub(super) loops: bool,
    /// There are floating-point instructions before that.
    pub(super) floats: bool,
}

/// Looks ahead.
pub(super) fn shape(request: &Request<'_>) -> Shape {
    let mut decoder = Decoder::with_ip(32, request.code, u64::from(request.eip), OPTIONS);
    let mut shape = Shape::default();
    for _ in 0..LOOK_AHEAD {
        if !decoder.can_decode() {
            break;
        }
        let i = decoder.decode();
        shape.floats |= match class::of(&i) {
            Class::Fpu => request.mode.has_fpu(),
            Class::Sse => request.mode.has_sse(),
            _ => false,
        };
        match i.flow_control() {
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
            FlowControl::ConditionalBranch if i.near_branch32() == request.eip => {
                shape.loops = true;
                break;
            }
            FlowControl::ConditionalBranch => {}
            FlowControl::UnconditionalBranch => {
                shape.loops = i.near_branch32() == request.eip;
                break;
            }
            _ => break,
        }
    }
    shape
}

impl Translator<'_> {
    /// Translates what changes EIP; nothing if the instruction does not, or is the emulator's.
    pub(super) fn control(&mut self, i: &Instruction) -> Option<Next> {
        let is_far_or_short = i.op_count() > 0
            && matches!(
                i.op_kind(0),
                OpKind::NearBranch16 | OpKind::FarBranch16 | OpKind::FarBranch32
            );
        if is_far_or_short || i.mnemonic() == Mnemonic::Iretd || i.mnemonic() == Mnemonic::Retf {
            return self.far(i);
        }
        match i.mnemonic() {
            Mnemonic::Jmp if i.op_kind(0) == OpKind::NearBranch32 => {
                self.direct_jump(i);
                Some(Next::End)
            }
            Mnemonic::Jmp => self.indirect(i, false),
            Mnemonic::Call if i.op_kind(0) == OpKind::NearBranch32 => {
                self.direct_call(i);
                Some(Next::Continue)
            }
            Mnemonic::Call => self.indirect(i, true),
            Mnemonic::Ret => self.ret(i),
            Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jecxz => {
                self.counted(i);
                Some(Next::Continue)
            }
            _ if i.is_jcc_short_or_near() => {
                self.conditional(i);
                Some(Next::Continue)
            }
            _ => None,
        }
    }

    /// Goes on at `eip`.
    pub(super) fn jump_to(&mut self, eip: u32) {
        if eip == self.request.eip && self.shape.loops {
            let hole = self.e.jump();
            self.aim_at_start(hole);
            return;
        }
        let site = self.e.jump();
        self.cold.push(Cold::Link { site, eip });
    }

    /// Lets a jump go to this unit's start.
    fn aim_at_start(&mut self, hole: usize) {
        // Behind what loads the floating-point state, where that is here already.
        let ready = self.fpu_ready || !self.shape.floats;
        let entry = if ready { self.entry } else { 0 };
        let target = self.e.base + entry as u64;
        self.e.aim(hole, target);
    }

    fn direct_jump(&mut self, i: &Instruction) {
        let target = i.near_branch32();
        if self.needs_poll(i) {
            self.poll(target);
        }
        self.jump_to(target);
    }

    /// Whether a jump or call goes backward, other than to a start that polls itself.
    fn needs_poll(&self, i: &Instruction) -> bool {
        let target = i.near_branch32();
        target <= i.ip32() && !(target == self.request.eip && self.shape.loops)
    }

    fn conditional(&mut self, i: &Instruction) {
        let target = i.near_branch32();
        // iced-x86 counts them as the opcode's low four bits do, from 1 on.
        let condition = i.condition_code() as u8 - 1;
        if self.needs_poll(i) {
            let over = self.e.jump_if(condition ^ 1);
            self.poll(target);
            self.jump_to(target);
            self.e.land(over);
            return;
        }
        let site = self.e.jump_if(condition);
        if target == self.request.eip && self.shape.loops {
            self.aim_at_start(site);
        } else {
            self.cold.push(Cold::Link { site, eip: target });
        }
    }

    /// LOOP and JECXZ: with 32-bit addresses they count in ECX here, too.
    fn counted(&mut self, i: &Instruction) {
        let opcode: &[u8] = match i.mnemonic() {
            Mnemonic::Loopne => &[0x67, 0xe0],
            Mnemonic::Loope => &[0x67, 0xe1],
            Mnemonic::Loop => &[0x67, 0xe2],
            _ => &[0x67, 0xe3],
        };
        if uses_cx(i) {
            self.step(i);
            // The emulator has moved EIP unless it fell through: that is found when it comes back.
            return;
        }
        let taken = self.e.short(opcode);
        let over = self.e.jump();
        self.e.land_short(taken);
        if self.needs_poll(i) {
            self.poll(i.near_branch32());
        }
        self.jump_to(i.near_branch32());
        self.e.land(over);
    }

    fn direct_call(&mut self, i: &Instruction) {
        let target = i.near_branch32();
        if self.needs_poll(i) {
            // Before anything is pushed: the call is executed again.
            self.poll(i.ip32());
        }
        self.place(i.ip32(), PlaceKind::Instruction);
        self.push_return_address(i);
        self.call_to(target, i.next_ip32());
    }

    /// Calls the unit at `target`; its return address is pushed already.
    pub(super) fn call_to(&mut self, target: u32, next: u32) {
        let site = self.e.call();
        self.cold.push(Cold::Link { site, eip: target });
        self.return_site(next);
    }

    fn push_return_address(&mut self, i: &Instruction) {
        let slot = Address::new(R14, -4);
        match self.stack_access(i, -4, 4, true) {
            Some(soft) => self.e.store_constant(soft, i.next_ip32()),
            None => self.e.guest_store_constant(slot, i.next_ip32(), 4),
        }
        self.e.lea(R14, slot);
    }

    /// Where a RET arrives: R8 is the EIP that the guest returns to.
    fn return_site(&mut self, eip: u32) {
        self.returns.push(self.e.offset() as u32);
        self.fpu_ready = false;
        // The flags are held even if they die here: R8 may be another place, where they do not. (JRCXZ
        // needs none, but is taken as a rule, and that costs more: see `stubs::lookup`.)
        self.e.hold_flags();
        self.e.alu_constant(Alu::Cmp, R8, eip);
        let hole = self.e.jump_if(condition::NOT_ZERO);
        self.e.aim(hole, self.stubs.return_strayed);
        self.e.release_flags();
    }

    fn ret(&mut self, i: &Instruction) -> Option<Next> {
        if i.stack_pointer_increment() < 4
            || i.code() == iced_x86::Code::Retnw_imm16
            || i.code() == iced_x86::Code::Retnw
        {
            return None;
        }
        match self.stack_access(i, 0, 4, false) {
            Some(soft) => self.e.load(R8, soft),
            None => self.e.guest_load(R8, Address::new(R14, 0), 4),
        }
        self.e.lea(R14, Address::new(R14, i.stack_pointer_increment()));
        self.e.raw(&[0xc3]);
        Some(Next::End)
    }

    /// JMP and CALL through a register or memory.
    fn indirect(&mut self, i: &Instruction, call: bool) -> Option<Next> {
        if call && self.is_soft(i) {
            // The push would need the scratch registers that hold the target.
            return None;
        }
        match i.op_kind(0) {
            OpKind::Register if i.op0_register().is_gpr32() => {
                let from = self.register(i.op0_register());
                self.e.copy(R8, from);
            }
            OpKind::Memory if i.memory_size() == iced_x86::MemorySize::DwordOffset => {
                if !self.load_operand(i) {
                    return None;
                }
            }
            _ => return None,
        }
        if !call {
            self.lookup();
            return Some(Next::End);
        }
        self.push_return_address(i);
        let hole = self.e.call();
        self.cold.push(Cold::Lookup { hole });
        self.return_site(i.next_ip32());
        Some(Next::Continue)
    }

    /// Goes to the EIP in R8.
    pub(super) fn lookup(&mut self) {
        crate::stubs::lookup(&mut self.e, self.stubs.lookup_missed);
    }
}

fn uses_cx(i: &Instruction) -> bool {
    use iced_x86::Code::*;
    matches!(i.code(), Loop_rel8_32_CX | Loope_rel8_32_CX | Loopne_rel8_32_CX | Jcxz_rel8_32)
        || i.op0_register() == Register::CX
}
