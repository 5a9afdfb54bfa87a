//! x87, MMX, SSE and SSE2: each instruction runs on the host's own unit.
//!
//! `stub` makes a host function for an instruction, `arena` holds them, `unit` keeps the guest's
//! state in the host's registers, `execute` checks what comes before and after, `image` is for the
//! instructions that store or load the state as a whole.

mod arena;
mod execute;
mod image;
mod simd;
mod stub;
mod unit;

pub use arena::prepare;
pub(crate) use unit::leave;

use crate::op::Handler;
use iced_x86::{CpuidFeature, Instruction, Mnemonic, Register};

/// A handler with what it needs in [`crate::op::Op`]'s `immediate`, `destination` and `source`.
pub(crate) struct FloatHandler {
    /// Executes it.
    pub(crate) handler: Handler,
    /// The stub, its general register and its needs, for handlers that call a stub.
    pub(crate) stub: Option<(u32, u8, u8)>,
}

/// The handler for `instruction`, if it is one of these.
pub(crate) fn lower(instruction: &Instruction) -> Option<FloatHandler> {
    if let Some(handler) = without_stub(instruction) {
        return Some(FloatHandler { handler, stub: None });
    }
    let handler = with_stub(instruction)?;
    let mut made = stub::make(instruction, rounds(instruction.mnemonic()))?;
    if !is_sse(instruction) && instruction.mnemonic() != Mnemonic::Movnti {
        // Many x87 instructions name no register.
        made.needs.0 |= stub::Needs::X87;
    }
    Some(FloatHandler { handler, stub: Some((made.stub.0, made.general, made.needs.0)) })
}

fn without_stub(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic::*;
    Some(match instruction.mnemonic() {
        Fnstsw if instruction.op0_register() == Register::AX => image::fnstsw_ax,
        Fnstenv => image::fnstenv,
        Fldenv => image::fldenv,
        Fnsave => image::fnsave,
        Frstor => image::frstor,
        Fninit => image::fninit,
        Wait => image::fwait,
        Fxsave => image::fxsave,
        Fxrstor => image::fxrstor,
        Ldmxcsr => simd::ldmxcsr,
        Stmxcsr => simd::stmxcsr,
        Maskmovq => simd::maskmovq,
        Maskmovdqu => simd::maskmovdqu,
        Sfence | Lfence | Mfence => simd::fence,
        Clflush => simd::clflush,
        _ => return None,
    })
}

fn with_stub(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic::*;
    let is = |features: &[CpuidFeature]| {
        instruction.cpuid_features().iter().any(|feature| features.contains(feature))
    };
    Some(match instruction.mnemonic() {
        Fnstsw | Fnstcw | Fnclex | Fndisi | Fneni | Fnsetpm => execute::x87_control::<false>,
        Fldcw => execute::x87_control::<true>,
        // Needs no XMM state, so no OSFXSR either.
        Movnti => execute::plain,
        _ if is(&[CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387]) => execute::x87,
        _ if instruction.cpuid_features().contains(&CpuidFeature::MMX) => execute::mmx,
        _ if is(&[CpuidFeature::SSE, CpuidFeature::SSE2]) && !is_sse(instruction) => execute::mmx,
        _ if is(&[CpuidFeature::SSE, CpuidFeature::SSE2]) => execute::sse,
        _ => return None,
    })
}

/// Whether the instruction is SSE's in more than its encoding: it names an XMM register, or reads
/// memory in place of one (CVTSD2SI, CVTPS2PI).
fn is_sse(instruction: &Instruction) -> bool {
    rounds(instruction.mnemonic())
        || (0..instruction.op_count()).any(|number| instruction.op_register(number).is_xmm())
}

/// Whether MXCSR matters: the instruction rounds, or can raise a SIMD exception.
fn rounds(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Addps
            | Addpd
            | Addss
            | Addsd
            | Subps
            | Subpd
            | Subss
            | Subsd
            | Mulps
            | Mulpd
            | Mulss
            | Mulsd
            | Divps
            | Divpd
            | Divss
            | Divsd
            | Sqrtps
            | Sqrtpd
            | Sqrtss
            | Sqrtsd
            | Minps
            | Minpd
            | Minss
            | Minsd
            | Maxps
            | Maxpd
            | Maxss
            | Maxsd
            | Cmpps
            | Cmppd
            | Cmpss
            | Cmpsd
            | Comiss
            | Comisd
            | Ucomiss
            | Ucomisd
            | Cvtpi2ps
            | Cvtpi2pd
            | Cvtps2pi
            | Cvttps2pi
            | Cvtpd2pi
            | Cvttpd2pi
            | Cvtsi2ss
            | Cvtsi2sd
            | Cvtss2si
            | Cvttss2si
            | Cvtsd2si
            | Cvttsd2si
            | Cvtss2sd
            | Cvtsd2ss
            | Cvtps2pd
            | Cvtpd2ps
            | Cvtdq2ps
            | Cvtps2dq
            | Cvttps2dq
            | Cvtdq2pd
            | Cvtpd2dq
            | Cvttpd2dq
            | Rcpps
            | Rcpss
            | Rsqrtps
            | Rsqrtss
    )
}
