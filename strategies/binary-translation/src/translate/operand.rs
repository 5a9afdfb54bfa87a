//! Instructions that come out as themselves, and how they reach guest memory.
//!
//! A memory operand becomes the same operand relative to GS, whose base is the window's, with
//! 32-bit address size: exactly IA-32's flat addressing. ESP becomes R14D. Behind FS and GS the
//! linear address is computed first. A *soft* site, whose accesses faulted too often, looks its page
//! up in the software TLB inline and uses the host address found there.

use super::{Cold, Translator};
use crate::class::long_mode_code;
use crate::context::{Exit, SOFT_ENTRIES, at};
use crate::emit::{Address, R8, R9, R10, R11, R12, R13, R14, RCX, Reg, context, guest};
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

impl Translator<'_> {
    /// Emits an instruction as itself; false if it cannot be, and then nothing was emitted.
    pub(super) fn operands(&mut self, i: &Instruction) -> bool {
        if matches!(i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && self.is_soft(i) {
            return self.divide(i);
        }
        self.operands_plainly(i)
    }

    /// The same without a look at divisors.
    pub(super) fn operands_plainly(&mut self, i: &Instruction) -> bool {
        let Some(mut host) = in_long_mode(i) else { return false };
        let Some(number) = memory_operand(i) else {
            let done = self.encode(&host);
            if matches!(i.code(), Code::Adc_rm32_r32 | Code::Adc_r32_rm32)
                && self.sites.has_planted_error()
            {
                self.e.raw(&[0xf5]); // cmc
            }
            return done;
        };
        if i.mnemonic() == Mnemonic::Lea {
            return !has_short_address(i) && {
                rename_address(&mut host);
                self.encode(&host)
            };
        }
        if !self.can_reach(i) || reaches_beyond(i) {
            return false;
        }
        if self.is_soft(i) {
            return self.soft_operand(i, &mut host, number);
        }
        if has_own_base(i) {
            if uses_high_byte(i) {
                return false;
            }
            self.linear_address(i, R8);
            point(&mut host, Register::R8D, Register::None);
        } else {
            rename_address(&mut host);
        }
        host.set_segment_prefix(Register::GS);
        self.encode(&host)
    }

    /// Emits what iced-x86 makes of an instruction; false if 64-bit mode has no such thing.
    fn encode(&mut self, host: &Instruction) -> bool {
        let encoded = self.encoder.encode(host, self.e.here());
        let mut buffer = self.encoder.take_buffer();
        if encoded.is_ok() {
            self.e.raw(&buffer);
        }
        buffer.clear();
        self.encoder.set_buffer(buffer);
        encoded.is_ok()
    }

    /// Whether an explicit memory operand can be reached by translated code.
    pub(super) fn can_reach(&self, i: &Instruction) -> bool {
        if has_short_address(i) {
            return false;
        }
        match i.memory_segment() {
            Register::CS => false,
            Register::FS => self.request.mode.has_plain_segment(4),
            Register::GS => self.request.mode.has_plain_segment(5),
            _ => true,
        }
    }

    /// Whether this instruction's accesses go through the software TLB.
    pub(super) fn is_soft(&self, i: &Instruction) -> bool {
        let offset = i.ip32().wrapping_sub(self.request.eip);
        self.sites.is_soft(self.request.physical + u64::from(offset))
    }

    /// Whether it goes on faulting whatever was tried: it is the emulator's.
    pub(super) fn is_hopeless(&self, i: &Instruction) -> bool {
        let offset = i.ip32().wrapping_sub(self.request.eip);
        self.sites.is_hopeless(self.request.physical + u64::from(offset))
    }

    /// Computes the linear address of the memory operand.
    pub(super) fn linear_address(&mut self, i: &Instruction, to: Reg) {
        self.effective_address(i, to, 0);
        if has_own_base(i) {
            let segment = if i.memory_segment() == Register::FS { 4 } else { 5 };
            self.e.load(R9, context(at::base(segment)));
            self.e.lea(to, Address::indexed(to, R9, 1, 0));
        }
    }

    /// Computes base plus index plus displacement plus `extra`.
    fn effective_address(&mut self, i: &Instruction, to: Reg, extra: i32) {
        if i.memory_base() != Register::None {
            self.e.lea(to, addressed(i, i.memory_base(), extra));
            return;
        }
        self.e.constant(to, (i.memory_displacement32() as i32).wrapping_add(extra) as u32);
        if let Some((index, scale)) = index(i) {
            self.e.lea(to, Address::indexed(to, index, scale, 0));
        }
    }

    /// The guest address of the memory operand, for the emitter's guest accesses: in R8 or as it
    /// is. With `extra` added.
    pub(super) fn guest_address(&mut self, i: &Instruction, extra: i32) -> Address {
        self.linear_address(i, R8);
        Address::new(R8, extra)
    }

    /// The same as it is, where it has a base and its segment has none.
    fn operand_address(&mut self, i: &Instruction) -> Address {
        match i.memory_base() {
            Register::None => self.guest_address(i, 0),
            _ if has_own_base(i) => self.guest_address(i, 0),
            base => addressed(i, base, 0),
        }
    }

    /// Loads the 32-bit memory operand into R8; false if it cannot be reached.
    pub(super) fn load_operand(&mut self, i: &Instruction) -> bool {
        if !self.can_reach(i) {
            return false;
        }
        if self.is_soft(i) {
            self.linear_address(i, R8);
            let found = self.soft_address(i, 4, false);
            self.e.load(R8, found);
        } else {
            let from = self.operand_address(i);
            self.e.guest_load(R8, from, 4);
        }
        true
    }

    fn soft_operand(&mut self, i: &Instruction, host: &mut Instruction, number: u32) -> bool {
        if uses_high_byte(i) {
            return false;
        }
        let mut factory = InstructionInfoFactory::new();
        let access = factory.info(i).op_access(number);
        let write = !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::None);
        let size = i.memory_size().size() as u32;
        if size == 0 {
            return false;
        }
        self.linear_address(i, R8);
        self.soft_address(i, size, write);
        point(host, Register::R9, Register::R8);
        host.set_segment_prefix(Register::None);
        let done = self.encode(host);
        self.come_back(i);
        done
    }

    /// With the linear address in R8: looks the page up, and leaves the address to use. What is not
    /// there goes to the emulator.
    pub(super) fn soft_address(&mut self, i: &Instruction, size: u32, write: bool) -> Address {
        const { assert!(SOFT_ENTRIES == 256) };
        let user = self.request.mode.is_user();
        self.e.constant(R11, 12);
        self.e.shift_right(R9, R8, R11);
        self.e.copy8(R9, R9);
        self.e.load(R10, Address::indexed(R13, R9, 4, at::soft_tags(user, write)));
        // The offset in the page; more than that if the page is another or the operand leaves it.
        self.e.lea(R10, Address::indexed(R10, R8, 1, size as i32 - 1));
        self.e.copy64(R12, RCX);
        self.e.shift_right(RCX, R10, R11);
        let mut hole = 0;
        self.e.unless_zero(|e| hole = e.jump());
        self.e.load64(R9, Address::indexed(R13, R9, 8, at::soft_addends(user)));
        self.cold.push(Cold::Step {
            hole,
            eip: i.ip32(),
            next: i.next_ip32(),
            back: None,
            exit: Exit::Miss,
            borrowed: false,
        });
        Address::indexed(R9, R8, 1, 0)
    }

    /// For a soft site, the address of the stack slot `offset` bytes from ESP.
    pub(super) fn stack_access(
        &mut self,
        i: &Instruction,
        offset: i32,
        size: u32,
        write: bool,
    ) -> Option<Address> {
        if !self.is_soft(i) {
            return None;
        }
        self.e.lea(R8, Address::new(R14, offset));
        Some(self.soft_address(i, size, write))
    }

    /// Lets the exits of a soft access at `i` come back to here, behind it.
    pub(super) fn come_back(&mut self, i: &Instruction) {
        let here = self.e.offset();
        for cold in self.cold.iter_mut().rev() {
            match cold {
                Cold::Step { eip, back, .. } if *eip == i.ip32() => *back = Some(here),
                _ => break,
            }
        }
    }
}

/// The memory operand's base, index and displacement, with `extra` added.
fn addressed(i: &Instruction, base: Register, extra: i32) -> Address {
    let displacement = (i.memory_displacement32() as i32).wrapping_add(extra);
    Address { base: guest(base.number() as u8), index: index(i), displacement }
}

fn index(i: &Instruction) -> Option<(Reg, u8)> {
    let register = i.memory_index();
    let host = || (guest(register.number() as u8), i.memory_index_scale() as u8);
    (register != Register::None).then(host)
}

/// The same instruction with host registers, as 64-bit mode encodes it.
fn in_long_mode(i: &Instruction) -> Option<Instruction> {
    let mut host = *i;
    host.set_code(long_mode_code(i.code()));
    // Ignored by the guest's CPU, but to the host's F3 BSF is TZCNT.
    host.set_has_rep_prefix(false);
    host.set_has_repne_prefix(false);
    // The guest has one CPU, and nobody else writes to its memory while that runs.
    host.set_has_lock_prefix(false);
    if !host.code().op_code().mode64() {
        return None;
    }
    for number in 0..i.op_count() {
        match i.op_kind(number) {
            OpKind::Register => {
                let register = i.op_register(number);
                let known =
                    register.is_gpr() || register.is_st() || register.is_mm() || register.is_xmm();
                if !known {
                    return None;
                }
                host.set_op_register(number, rename(register));
            }
            OpKind::Memory
            | OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32 => {}
            _ => return None,
        }
    }
    Some(host)
}

fn rename(register: Register) -> Register {
    match register {
        Register::ESP => Register::R14D,
        Register::SP => Register::R14W,
        other => other,
    }
}

/// The number of the explicit memory operand.
pub(super) fn memory_operand(i: &Instruction) -> Option<u32> {
    (0..i.op_count()).find(|&number| i.op_kind(number) == OpKind::Memory)
}

fn has_short_address(i: &Instruction) -> bool {
    let (base, index) = (i.memory_base(), i.memory_index());
    base.is_gpr16()
        || index.is_gpr16()
        || base == Register::None && index == Register::None && i.memory_displ_size() == 2
}

/// Whether the segment is FS or GS, with a base.
pub(super) fn has_own_base(i: &Instruction) -> bool {
    matches!(i.memory_segment(), Register::FS | Register::GS)
}

/// Whether the address depends on a bit offset beside the operand.
fn reaches_beyond(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && i.op1_kind() == OpKind::Register
}

/// AH, CH, DH and BH cannot be named beside R8 to R15.
fn uses_high_byte(i: &Instruction) -> bool {
    (0..i.op_count()).any(|number| {
        i.op_kind(number) == OpKind::Register
            && matches!(
                i.op_register(number),
                Register::AH | Register::CH | Register::DH | Register::BH
            )
    })
}

fn rename_address(host: &mut Instruction) {
    host.set_memory_base(rename(host.memory_base()));
}

/// Makes the memory operand base plus index and nothing else.
fn point(host: &mut Instruction, base: Register, index: Register) {
    host.set_memory_base(base);
    host.set_memory_index(index);
    host.set_memory_index_scale(1);
    host.set_memory_displacement64(0);
    host.set_memory_displ_size(0);
}
