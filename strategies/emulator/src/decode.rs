//! From guest bytes to an [`Op`]: iced-x86 decodes, [`crate::lower`] finds the handler.

use crate::exception::Exception;
use crate::lower::{self, Flow, Lowered};
use crate::op::{NO_REGISTER, Op, present};
use crate::operand::register_number;
use iced_x86::{
    CpuidFeature, Decoder, DecoderError, DecoderOptions, EncodingKind, Instruction, OpKind,
    Register,
};
use machine::Machine;

/// The longest instruction (Intel SDM volume 2, 2.3.11).
pub(crate) const LONGEST: usize = 15;

/// Opcodes as the CPUs before CET, MPX and BMI know them: hints are no-operations, and the prefix of
/// TZCNT, LZCNT and WBNOINVD means nothing to BSF, BSR and WBINVD.
pub const DECODER_OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD
    | DecoderOptions::NO_WBNOINVD;

/// What the bytes at some place are.
pub(crate) enum Decoded {
    /// An instruction, and how execution goes on after it.
    Op(Op, Flow),
    /// More bytes are needed to tell.
    Incomplete,
}

/// Decodes the instruction at `code[at..]`, where `code` begins at its block's start.
pub(crate) fn decode(code: &[u8], at: usize, is_32bit: bool) -> Decoded {
    let bits = if is_32bit { 32 } else { 16 };
    let end = code.len().min(at + LONGEST);
    let mut decoder = Decoder::with_ip(bits, &code[at..end], at as u64, DECODER_OPTIONS);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        if decoder.last_error() == DecoderError::NoMoreBytes && end - at < LONGEST {
            return Decoded::Incomplete;
        }
        let too_long = is_too_long(&code[at..end], bits);
        let handler = if too_long { raise_protection } else { raise_undefined };
        return Decoded::Op(op(instruction, handler, at), Flow::Jump);
    }
    let lowered = if is_ia32(&instruction) { lower::lower(&instruction) } else { None };
    let Lowered { handler, flow, stub } = lowered.unwrap_or(Lowered::jump(raise_undefined));
    let mut op = op(instruction, handler, at);
    if let Some((immediate, destination, source)) = stub {
        (op.immediate, op.destination, op.source) = (immediate, destination, source);
    }
    Decoded::Op(op, flow)
}

fn raise_undefined(_m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    Err(Exception::UNDEFINED)
}

fn raise_protection(_m: &mut Machine, _op: &Op) -> Result<(), Exception> {
    Err(Exception::PROTECTION)
}

/// Whether an instruction that does not decode would do so if it might be longer: beyond 15 bytes
/// it raises #GP and not #UD. Its first bytes are all there is, so repeated prefixes, which change
/// nothing, are left out to make room.
fn is_too_long(code: &[u8], bits: u32) -> bool {
    let is_prefix = |byte: &u8| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
    };
    let prefixes = code.iter().take_while(|byte| is_prefix(byte)).count();
    if code.len() < LONGEST || prefixes == 0 {
        return false;
    }
    let (mut shorter, mut kept) = ([0; LONGEST], 0);
    for (at, byte) in code.iter().enumerate() {
        if at >= prefixes || !code[at + 1..prefixes].contains(byte) {
            shorter[kept] = *byte;
            kept += 1;
        }
    }
    let mut decoder = Decoder::new(bits, &shorter[..kept], DECODER_OPTIONS);
    let rest = decoder.decode();
    if rest.is_invalid() {
        decoder.last_error() == DecoderError::NoMoreBytes
    } else {
        rest.len() + (code.len() - kept) > LONGEST
    }
}

/// Whether the instruction belongs to the architecture that guests are shown: nothing after SSE2.
#[must_use]
pub fn is_ia32(instruction: &Instruction) -> bool {
    use CpuidFeature::*;
    instruction.encoding() == EncodingKind::Legacy
        && instruction.cpuid_features().iter().all(|feature| {
            matches!(
                feature,
                INTEL8086
                    | INTEL8086_ONLY
                    | INTEL186
                    | INTEL286
                    | INTEL386
                    | INTEL486
                    | INTEL286_ONLY
                    | INTEL386_ONLY
                    | CPUID
                    | CX8
                    | CMOV
                    | FPU
                    | FPU287
                    | FPU387
                    | FPU387SL_ONLY
                    | FXSR
                    | MMX
                    | SSE
                    | SSE2
                    | TSC
                    | MSR
                    | RDPMC
                    | MULTIBYTENOP
                    | PAUSE
                    | PREFETCHW
                    | SMM
                    | SEP
                    | SYSCALL
                    | CLFSH
            )
        })
}

fn op(instruction: Instruction, handler: crate::op::Handler, at: usize) -> Op {
    let general = |number: u32| {
        let is_register = number < instruction.op_count()
            && instruction.op_kind(number) == OpKind::Register
            && instruction.op_register(number).is_gpr();
        if is_register { register_number(instruction.op_register(number)) } else { 0 }
    };
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let address = |register: Register| {
        if register == Register::None { NO_REGISTER } else { present(register_number(register)) }
    };
    let end = at + instruction.len().max(1);
    Op {
        handler,
        instruction,
        immediate: immediate(&instruction),
        address_mask: if has_16bit_address(&instruction) { 0xffff } else { u32::MAX },
        base: address(base),
        index: address(index),
        scale: instruction.memory_index_scale().trailing_zeros() as u8,
        segment: segment_number(&instruction),
        destination: general(0),
        source: general(1),
        start: at as u8,
        end: end as u8,
    }
}

fn segment_number(instruction: &Instruction) -> u8 {
    let segment = instruction.memory_segment();
    if segment == Register::None { 3 } else { (segment.number() as u8).min(5) }
}

/// The first immediate, sign-extended to 32 bits, or a near branch's target.
fn immediate(instruction: &Instruction) -> u32 {
    for number in 0..instruction.op_count() {
        match instruction.op_kind(number) {
            OpKind::NearBranch16 => return u32::from(instruction.near_branch16()),
            OpKind::NearBranch32 => return instruction.near_branch32(),
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32 => return instruction.immediate(number) as u32,
            _ => {}
        }
    }
    0
}

/// Whether memory is addressed with 16 bits. For instructions without a memory operand, whether
/// their counter or string registers are.
fn has_16bit_address(instruction: &Instruction) -> bool {
    use iced_x86::Code::*;
    let base = [instruction.memory_base(), instruction.memory_index()];
    if matches!(
        instruction.code(),
        Loop_rel8_16_CX
            | Loop_rel8_32_CX
            | Loope_rel8_16_CX
            | Loope_rel8_32_CX
            | Loopne_rel8_16_CX
            | Loopne_rel8_32_CX
            | Jcxz_rel8_16
            | Jcxz_rel8_32
    ) {
        return true;
    }
    let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    memory
        && (base.iter().any(|register| register.is_gpr16())
            || base == [Register::None; 2] && instruction.memory_displ_size() == 2)
}
