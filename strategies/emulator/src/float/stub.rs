//! Making stubs: host code that executes one guest instruction.
//!
//! The instruction keeps its opcode, its x87, MMX and XMM registers and its immediate. Its memory
//! operand becomes `[rdi]` and its general register ECX. Around it the stub loads the XMM registers
//! that it names from the guest's FXSAVE area at RSI, and MXCSR where rounding or exceptions matter.
//!
//! ```text
//! guest   0f 58 04 8b            addps xmm0, [ebx+ecx*4]
//! stub    0f 10 86 a0 00 00 00   movups xmm0, [rsi+0xa0]
//!         0f ae 56 18            ldmxcsr [rsi+0x18]
//!         0f 58 07               addps xmm0, [rdi]
//!         0f ae 5e 18            stmxcsr [rsi+0x18]
//!         …                      ldmxcsr with the monitor's own
//!         0f 11 86 a0 00 00 00   movups [rsi+0xa0], xmm0
//!         c3                     ret
//! ```

use super::arena::{Stub, stub};
use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, MemoryOperand, OpAccess, OpKind, Register,
};
use machine::cpu::{MXCSR, XMM0};

/// What a stub's caller has to provide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Needs(pub(crate) u8);

impl Needs {
    /// The x87 state in the host's unit.
    pub(crate) const X87: u8 = 1 << 0;
    /// The instruction rounds or raises SIMD exceptions.
    pub(crate) const MXCSR: u8 = 1 << 1;
    /// It reads its memory operand.
    pub(crate) const READS: u8 = 1 << 2;
    /// It writes its memory operand.
    pub(crate) const WRITES: u8 = 1 << 3;
    /// It reads or writes a general register.
    pub(crate) const GENERAL: u8 = 1 << 4;
    /// It writes that general register.
    pub(crate) const SETS_GENERAL: u8 = 1 << 5;
    /// Its memory operand must be aligned to 16 bytes.
    pub(crate) const ALIGNED: u8 = 1 << 6;

    pub(crate) fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}

/// A stub with what its caller has to know.
pub(crate) struct Made {
    pub(crate) stub: Stub,
    pub(crate) needs: Needs,
    /// The number of the guest's general register, if it names one.
    pub(crate) general: u8,
}

/// Makes the stub for `instruction`; `rounds` tells whether MXCSR matters. Nothing if it cannot be
/// encoded for the host.
pub(crate) fn make(instruction: &Instruction, rounds: bool) -> Option<Made> {
    let mut host = *instruction;
    let mut needs = if rounds { Needs::MXCSR } else { 0 };
    let mut info = InstructionInfoFactory::new();
    let info = info.info(instruction);
    let mut general = 0;
    let (mut loads, mut stores) = (Vec::new(), Vec::new());
    for number in 0..instruction.op_count() {
        let access = info.op_access(number);
        match instruction.op_kind(number) {
            OpKind::Memory => needs |= memory_needs(instruction, access),
            OpKind::Register => {
                let register = instruction.op_register(number);
                if register.is_xmm() {
                    loads.push(register);
                    if writes(access) {
                        stores.push(register);
                    }
                } else if register.is_mm() || register.is_st() {
                    needs |= Needs::X87;
                } else if register.is_gpr() {
                    host.set_op_register(number, Register::ECX);
                    general = register.number() as u8 & 7;
                    needs |= Needs::GENERAL;
                    needs |= if writes(access) { Needs::SETS_GENERAL } else { 0 };
                }
            }
            _ => {}
        }
    }
    point_at_rdi(&mut host);
    let code = assemble(&host, rounds, &loads, &stores)?;
    Some(Made { stub: stub(&code)?, needs: Needs(needs), general })
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn memory_needs(instruction: &Instruction, access: OpAccess) -> u8 {
    use iced_x86::Mnemonic::{Movdqu, Movupd, Movups};
    let mut needs = if writes(access) { Needs::WRITES } else { 0 };
    if !matches!(access, OpAccess::Write) {
        needs |= Needs::READS;
    }
    let unaligned = matches!(instruction.mnemonic(), Movups | Movupd | Movdqu);
    if instruction.memory_size().size() == 16 && !unaligned {
        needs |= Needs::ALIGNED;
    }
    needs
}

fn point_at_rdi(host: &mut Instruction) {
    if (0..host.op_count()).any(|number| host.op_kind(number) == OpKind::Memory) {
        host.set_memory_base(Register::RDI);
        host.set_memory_index(Register::None);
        host.set_memory_index_scale(1);
        host.set_memory_displ_size(0);
        host.set_memory_displacement64(0);
    }
    host.set_segment_prefix(Register::None);
}

fn assemble(
    host: &Instruction,
    rounds: bool,
    loads: &[Register],
    stores: &[Register],
) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    let mut emit = |instruction: &Instruction| encoder.encode(instruction, 0).ok();
    let slot = |register: Register| at_rsi(XMM0 + 16 * register.number());
    for &register in loads {
        emit(&Instruction::with2(Code::Movups_xmm_xmmm128, register, slot(register)).ok()?)?;
    }
    if rounds {
        emit(&Instruction::with1(Code::Ldmxcsr_m32, at_rsi(MXCSR)).ok()?)?;
    }
    emit(host)?;
    if rounds {
        emit(&Instruction::with1(Code::Stmxcsr_m32, at_rsi(MXCSR)).ok()?)?;
        // The red zone: a stub calls nothing, and signal handlers leave it alone.
        let below = MemoryOperand::with_base_displ(Register::RSP, -8);
        emit(&Instruction::with2(Code::Mov_rm32_imm32, below, 0x1f80).ok()?)?;
        emit(&Instruction::with1(Code::Ldmxcsr_m32, below).ok()?)?;
    }
    for &register in stores {
        emit(&Instruction::with2(Code::Movups_xmmm128_xmm, slot(register), register).ok()?)?;
    }
    emit(&Instruction::with(Code::Retnq))?;
    Some(encoder.take_buffer())
}

fn at_rsi(offset: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RSI, offset as i64)
}
