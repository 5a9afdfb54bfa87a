//! Which instructions come out as themselves: everything of the user's instruction set that names
//! its operands and does nothing else.

use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic};

/// What an instruction that comes out as itself needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Nothing: general registers, memory, flags.
    Plain,
    /// The x87 unit or MMX registers.
    Fpu,
    /// XMM registers.
    Sse,
    /// It is another topic's, or the emulator's.
    Other,
}

/// The class of an instruction.
pub(crate) fn of(instruction: &Instruction) -> Class {
    if is_plain(instruction.mnemonic()) {
        return Class::Plain;
    }
    if is_special_float(instruction.mnemonic()) {
        return Class::Other;
    }
    let is = |features: &[CpuidFeature]| {
        instruction.cpuid_features().iter().any(|feature| features.contains(feature))
    };
    let names_xmm = (0..instruction.op_count()).any(|n| instruction.op_register(n).is_xmm());
    if is(&[CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387]) {
        Class::Fpu
    } else if names_xmm {
        Class::Sse
    } else if instruction.cpuid_features().contains(&CpuidFeature::MMX) {
        Class::Fpu
    } else if is(&[CpuidFeature::SSE, CpuidFeature::SSE2]) {
        // MMX registers and MXCSR's rounding: both.
        Class::Sse
    } else {
        Class::Other
    }
}

/// Floating-point instructions that store or load more than operands, or whose operands are implied.
fn is_special_float(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Fnstenv
            | Fstenv
            | Fldenv
            | Fnsave
            | Fsave
            | Frstor
            | Fxsave
            | Fxrstor
            | Ldmxcsr
            | Maskmovq
            | Maskmovdqu
            | Fndisi
            | Fneni
            | Fnsetpm
            | Clflush
            | Frstpm
            | Sysenter
            | Sysexit
    )
}

fn is_plain(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mov | Movzx
            | Movsx
            | Lea
            | Add
            | Adc
            | Sub
            | Sbb
            | And
            | Or
            | Xor
            | Cmp
            | Test
            | Inc
            | Dec
            | Neg
            | Not
            | Mul
            | Imul
            | Div
            | Idiv
            | Rol
            | Ror
            | Rcl
            | Rcr
            | Shl
            | Shr
            | Sar
            | Sal
            | Shld
            | Shrd
            | Bt
            | Bts
            | Btr
            | Btc
            | Bsf
            | Bsr
            | Bswap
            | Xchg
            | Cmpxchg
            | Xadd
            | Cmpxchg8b
            | Cbw
            | Cwde
            | Cwd
            | Cdq
            | Lahf
            | Sahf
            | Clc
            | Stc
            | Cmc
            | Nop
            | Pause
            | Movnti
            | Sfence
            | Lfence
            | Mfence
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
            | Prefetchnta
            | Prefetchw
            | Prefetch
            | Reservednop
            | Seta
            | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
            | Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

/// The same instruction in an encoding that 64-bit mode has too.
pub(crate) fn long_mode_code(code: Code) -> Code {
    use Code::*;
    match code {
        Inc_r16 => Inc_rm16,
        Inc_r32 => Inc_rm32,
        Dec_r16 => Dec_rm16,
        Dec_r32 => Dec_rm32,
        Mov_AL_moffs8 => Mov_r8_rm8,
        Mov_AX_moffs16 => Mov_r16_rm16,
        Mov_EAX_moffs32 => Mov_r32_rm32,
        Mov_moffs8_AL => Mov_rm8_r8,
        Mov_moffs16_AX => Mov_rm16_r16,
        Mov_moffs32_EAX => Mov_rm32_r32,
        Add_rm8_imm8_82 => Add_rm8_imm8,
        Or_rm8_imm8_82 => Or_rm8_imm8,
        Adc_rm8_imm8_82 => Adc_rm8_imm8,
        Sbb_rm8_imm8_82 => Sbb_rm8_imm8,
        And_rm8_imm8_82 => And_rm8_imm8,
        Sub_rm8_imm8_82 => Sub_rm8_imm8,
        Xor_rm8_imm8_82 => Xor_rm8_imm8,
        Cmp_rm8_imm8_82 => Cmp_rm8_imm8,
        _ => code,
    }
}
