//! Which instructions are compared, and for each that is not, why.

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind};

/// Instructions that cannot be compared, with the reason.
#[rustfmt::skip]
const EXCLUDED: &[(&str, &[Mnemonic])] = &[
    ("shows the host kernel's tables, or what UMIP makes of them", &[
        Mnemonic::Sgdt, Mnemonic::Sidt, Mnemonic::Sldt, Mnemonic::Str, Mnemonic::Smsw,
        Mnemonic::Lar, Mnemonic::Lsl, Mnemonic::Verr, Mnemonic::Verw,
    ]),
    ("goes through the host kernel's descriptors", &[
        Mnemonic::Lds, Mnemonic::Les, Mnemonic::Lss, Mnemonic::Lfs, Mnemonic::Lgs,
        Mnemonic::Iret, Mnemonic::Iretd, Mnemonic::Retf,
    ]),
    ("differs from host to host, or from moment to moment", &[
        Mnemonic::Cpuid, Mnemonic::Rdtsc, Mnemonic::Rdtscp, Mnemonic::Rdpmc,
    ]),
    ("enters the host kernel or not, as the maker of the CPU had it", &[
        Mnemonic::Syscall, Mnemonic::Sysret, Mnemonic::Sysenter, Mnemonic::Sysexit,
    ]),
    ("is reported with its own address or the next, as the hypervisor below had it", &[
        Mnemonic::Int1,
    ]),
    ("stores the x87 pointers, which neither the CPU nor the kernel keeps reliably", &[
        Mnemonic::Fnsave, Mnemonic::Fnstenv, Mnemonic::Fxsave,
    ]),
];

/// Far transfers and loads of segment registers, whose mnemonics they share with others.
const FAR: &[Code] = &[
    Code::Jmp_ptr1616,
    Code::Jmp_ptr1632,
    Code::Jmp_m1616,
    Code::Jmp_m1632,
    Code::Call_ptr1616,
    Code::Call_ptr1632,
    Code::Call_m1616,
    Code::Call_m1632,
    Code::Mov_Sreg_rm16,
    Code::Mov_Sreg_r32m16,
    Code::Popw_ES,
    Code::Popd_ES,
    Code::Popw_CS,
    Code::Popw_SS,
    Code::Popd_SS,
    Code::Popw_DS,
    Code::Popd_DS,
    Code::Popw_FS,
    Code::Popd_FS,
    Code::Popw_GS,
    Code::Popd_GS,
];

/// The system-call vector of 32-bit Linux programs.
const LINUX_SYSTEM_CALL: u8 = 0x80;

/// Why an instruction is not compared, or nothing if it is. Bytes that decode to nothing are
/// compared: they are #UD.
pub(crate) fn exclusion(instruction: &Instruction) -> Option<&'static str> {
    if instruction.is_invalid() {
        return None;
    }
    if FAR.contains(&instruction.code()) {
        return Some("goes through the host kernel's descriptors");
    }
    if matches!(
        instruction.code(),
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D
    ) {
        return Some("is #UD on AMD CPUs and does nothing on Intel's");
    }
    if instruction.code() == Code::Int_imm8 && instruction.immediate8() == LINUX_SYSTEM_CALL {
        return Some("enters the host kernel");
    }
    if !is_ia32(instruction) {
        return Some("is newer than SSE2: the host has it, guests do not");
    }
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if repeats && matches!(instruction.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne) {
        return Some("takes its condition from the prefix on AMD CPUs");
    }
    EXCLUDED
        .iter()
        .find(|(_, mnemonics)| mnemonics.contains(&instruction.mnemonic()))
        .map(|(reason, _)| *reason)
}

/// Whether an instruction belongs to what guests are shown.
fn is_ia32(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    instruction.encoding() == EncodingKind::Legacy
        && instruction.cpuid_features().iter().all(|feature| {
            matches!(
                feature,
                F::INTEL8086
                    | F::INTEL8086_ONLY
                    | F::INTEL186
                    | F::INTEL286
                    | F::INTEL386
                    | F::INTEL486
                    | F::CX8
                    | F::CMOV
                    | F::FPU
                    | F::FPU287
                    | F::FPU387
                    | F::FXSR
                    | F::MMX
                    | F::SSE
                    | F::SSE2
                    | F::MSR
                    | F::MULTIBYTENOP
                    | F::PAUSE
                    | F::CLFSH
            )
        })
}

/// Whether the bytes mean #UD, whatever follows them. At the end of a page, or of the 15 bytes that
/// an instruction may have, what follows may raise something else before.
pub(crate) fn is_undefined(instruction: &Instruction) -> bool {
    instruction.is_invalid()
        || matches!(instruction.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2)
}

/// Whether the instruction makes several accesses, and which of them faults first is the CPU's
/// choice.
pub(crate) fn accesses_in_any_order(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        // MOVSD and CMPSD are SSE2 instructions as well.
        M::Cmpsb | M::Cmpsw | M::Cmpsd => instruction.is_string_instruction(),
        // The push may come before the check of the target against the limit of CS.
        M::Call => true,
        mnemonic => matches!(mnemonic, M::Fldenv | M::Frstor | M::Fxrstor | M::Maskmovdqu),
    }
}

/// Whether the instruction, when it faults, has loaded or stored some registers already on some
/// CPUs. It can be executed again all the same: ESP is as before.
pub(crate) fn does_part_before_fault(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Popa | M::Popad | M::Pusha | M::Pushad)
        || instruction.code() == Code::Fstp_m80fp
}

/// Whether the instruction works on x87, MMX or SSE state.
pub(crate) fn is_floating_point(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    instruction.cpuid_features().iter().any(|feature| {
        matches!(feature, F::FPU | F::FPU287 | F::FPU387 | F::MMX | F::SSE | F::SSE2 | F::FXSR)
    })
}

/// Bits of MXCSR that guests are shown. Bit 17 exists on AMD CPUs only (misaligned accesses), and
/// what a case does with it set cannot be compared.
pub(crate) const MXCSR_BITS: u32 = 0xffff;

/// Whether the instruction always ends a sequence at CPL 3 and IOPL 0.
pub(crate) fn always_faults(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let privileged = matches!(
        instruction.mnemonic(),
        M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Cli
            | M::Sti
            | M::Hlt
            | M::Int
            | M::Int3
            | M::Clts
            | M::Lmsw
            | M::Lgdt
            | M::Lidt
            | M::Lldt
            | M::Ltr
            | M::Invd
            | M::Wbinvd
            | M::Invlpg
            | M::Rdmsr
            | M::Wrmsr
            | M::Ud0
            | M::Ud1
            | M::Ud2
    );
    let moves_control_register = (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register && {
            let register = instruction.op_register(operand);
            register.is_cr() || register.is_dr() || register.is_tr()
        }
    });
    privileged || moves_control_register || instruction.is_invalid()
}

/// Whether control goes to a place that the instruction computes.
pub(crate) fn is_indirect(instruction: &Instruction) -> bool {
    instruction.is_jmp_near_indirect()
        || instruction.is_call_near_indirect()
        || instruction.mnemonic() == Mnemonic::Ret
}
