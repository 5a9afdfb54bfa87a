//! From a decoded instruction to its [`Kind`], and what its operands settle.

use super::kind::{Class, Kind};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What trap-and-emulate makes of one instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It traps and is emulated.
    Emulated,
    /// It goes wrong, and nobody is told.
    Wrong,
    /// What is in registers and memory decides.
    Open,
}

impl Outcome {
    /// All outcomes, in the order in which they are shown.
    pub const ALL: [Outcome; 3] = [Outcome::Emulated, Outcome::Wrong, Outcome::Open];

    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Emulated => "emulated",
            Outcome::Wrong => "wrong",
            Outcome::Open => "open",
        }
    }
}

/// The kind of the instruction, if a monitor has to know of it.
#[must_use]
pub fn classify(instruction: &Instruction) -> Option<Kind> {
    match instruction.mnemonic() {
        Mnemonic::Mov => of_move(instruction),
        Mnemonic::Push => {
            is_segment(instruction.op0_register()).then(|| read(instruction.op0_register()))
        }
        Mnemonic::Pop => is_segment(instruction.op0_register()).then_some(Kind::LoadSegment),
        Mnemonic::Jmp => is_far(instruction).then_some(Kind::FarJump),
        Mnemonic::Call => is_far(instruction).then_some(Kind::FarCall),
        mnemonic => Kind::of_mnemonic(mnemonic)
            .or_else(|| instruction.is_privileged().then_some(Kind::OtherPrivileged)),
    }
}

/// What trap-and-emulate makes of `instruction`, which is of this kind.
#[must_use]
pub(super) fn outcome(instruction: &Instruction, kind: Kind) -> Outcome {
    match (kind.class(), far_selector(instruction)) {
        (Class::Traps, _) => Outcome::Emulated,
        (Class::Silent, _) => Outcome::Wrong,
        (Class::Operands, Some(selector)) => of_selector(selector),
        // Every vector traps: 3 and 4 are exceptions, 0x80 comes as a signal.
        (Class::Operands, None) if kind == Kind::Int => Outcome::Emulated,
        (Class::Operands, None) => Outcome::Open,
    }
}

fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far()
        || instruction.is_call_far_indirect()
}

/// The selector of a far transfer that names it.
fn far_selector(instruction: &Instruction) -> Option<u16> {
    matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        .then(|| instruction.far_branch_selector())
}

/// Linux gives 64-bit processes two code segments in its GDT: 4 (32-bit) and 6 (64-bit). What is
/// in the LDT is the monitor's choice.
fn of_selector(selector: u16) -> Outcome {
    const TABLE_INDICATOR: u16 = 4;
    match selector & !3 {
        0x20 | 0x30 => Outcome::Wrong,
        other if other & TABLE_INDICATOR != 0 => Outcome::Open,
        _ => Outcome::Emulated,
    }
}

fn is_segment(register: Register) -> bool {
    register.is_segment_register()
}

fn read(segment: Register) -> Kind {
    match segment {
        Register::CS | Register::SS => Kind::ReadCode,
        _ => Kind::ReadData,
    }
}

fn of_move(instruction: &Instruction) -> Option<Kind> {
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    match (to, from) {
        _ if is_segment(to) => Some(Kind::LoadSegment),
        _ if is_segment(from) => Some(read(from)),
        (Register::CR0, _) => Some(Kind::WriteCr0),
        (Register::CR2, _) => Some(Kind::WriteCr2),
        (Register::CR3, _) => Some(Kind::WriteCr3),
        (Register::CR4, _) => Some(Kind::WriteCr4),
        (_, Register::CR0) => Some(Kind::ReadCr0),
        (_, Register::CR2) => Some(Kind::ReadCr2),
        (_, Register::CR3) => Some(Kind::ReadCr3),
        (_, Register::CR4) => Some(Kind::ReadCr4),
        _ if to.is_dr() || from.is_dr() => Some(Kind::DebugRegister),
        _ if to.is_cr() || from.is_cr() || to.is_tr() || from.is_tr() => {
            Some(Kind::OtherPrivileged)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(32, bytes, 0x10_0000, DecoderOptions::NONE).decode()
    }

    /// One instruction of every kind; the list would not be complete without any of them.
    const ONE_OF_EACH: &[(Kind, &[u8])] = &[
        (Kind::Sgdt, &[0x0f, 0x01, 0x00]),
        (Kind::Sidt, &[0x0f, 0x01, 0x08]),
        (Kind::Sldt, &[0x0f, 0x00, 0xc0]),
        (Kind::Str, &[0x0f, 0x00, 0xc8]),
        (Kind::Smsw, &[0x0f, 0x01, 0xe0]),
        (Kind::Pushf, &[0x9c]),
        (Kind::Popf, &[0x66, 0x9d]),
        (Kind::Lar, &[0x0f, 0x02, 0xc1]),
        (Kind::Lsl, &[0x0f, 0x03, 0xc1]),
        (Kind::Verr, &[0x0f, 0x00, 0xe0]),
        (Kind::Verw, &[0x0f, 0x00, 0xe8]),
        (Kind::ReadCode, &[0x0e]),
        (Kind::ReadCode, &[0x8c, 0xd0]),
        (Kind::ReadData, &[0x8c, 0xd8]),
        (Kind::ReadData, &[0x0f, 0xa0]),
        (Kind::Cpuid, &[0x0f, 0xa2]),
        (Kind::Xgetbv, &[0x0f, 0x01, 0xd0]),
        (Kind::Sysenter, &[0x0f, 0x34]),
        (Kind::Hypercall, &[0x0f, 0x01, 0xc1]),
        (Kind::LoadSegment, &[0x8e, 0xd8]),
        (Kind::LoadSegment, &[0x1f]),
        (Kind::LoadSegment, &[0x0f, 0xb2, 0x20]),
        (Kind::FarJump, &[0xea, 0, 0, 0x10, 0, 8, 0]),
        (Kind::FarJump, &[0xff, 0x28]),
        (Kind::FarCall, &[0x9a, 0, 0, 0x10, 0, 8, 0]),
        (Kind::FarCall, &[0xff, 0x18]),
        (Kind::FarReturn, &[0xcb]),
        (Kind::Iret, &[0xcf]),
        (Kind::Int, &[0xcd, 0x21]),
        (Kind::Rdtsc, &[0x0f, 0x31]),
        (Kind::Rdpmc, &[0x0f, 0x33]),
        (Kind::Cli, &[0xfa]),
        (Kind::Sti, &[0xfb]),
        (Kind::In, &[0xec]),
        (Kind::Out, &[0xe7, 0x80]),
        (Kind::StringIo, &[0xf3, 0x6f]),
        (Kind::Hlt, &[0xf4]),
        (Kind::Lgdt, &[0x0f, 0x01, 0x10]),
        (Kind::Lidt, &[0x0f, 0x01, 0x18]),
        (Kind::Lldt, &[0x0f, 0x00, 0xd0]),
        (Kind::Ltr, &[0x0f, 0x00, 0xd8]),
        (Kind::Lmsw, &[0x0f, 0x01, 0xf0]),
        (Kind::Clts, &[0x0f, 0x06]),
        (Kind::ReadCr0, &[0x0f, 0x20, 0xc0]),
        (Kind::ReadCr2, &[0x0f, 0x20, 0xd0]),
        (Kind::ReadCr3, &[0x0f, 0x20, 0xd8]),
        (Kind::ReadCr4, &[0x0f, 0x20, 0xe0]),
        (Kind::WriteCr0, &[0x0f, 0x22, 0xc0]),
        (Kind::WriteCr2, &[0x0f, 0x22, 0xd0]),
        (Kind::WriteCr3, &[0x0f, 0x22, 0xd8]),
        (Kind::WriteCr4, &[0x0f, 0x22, 0xe0]),
        (Kind::DebugRegister, &[0x0f, 0x23, 0xf8]),
        (Kind::Invlpg, &[0x0f, 0x01, 0x38]),
        (Kind::CacheFlush, &[0x0f, 0x09]),
        (Kind::Rdmsr, &[0x0f, 0x32]),
        (Kind::Wrmsr, &[0x0f, 0x30]),
        (Kind::Sysexit, &[0x0f, 0x35]),
        (Kind::Rsm, &[0x0f, 0xaa]),
        (Kind::Monitor, &[0x0f, 0x01, 0xc9]),
        (Kind::Smap, &[0x0f, 0x01, 0xca]),
        (Kind::Xsetbv, &[0x0f, 0x01, 0xd1]),
        (Kind::Vmx, &[0x0f, 0x01, 0xc2]),
        (Kind::OtherPrivileged, &[0x0f, 0xc7, 0x18]),
    ];

    #[test]
    fn every_kind_is_found() {
        for &(kind, bytes) in ONE_OF_EACH {
            assert_eq!(classify(&decode(bytes)), Some(kind), "{bytes:02x?}");
        }
        let found = |kind: &&Kind| ONE_OF_EACH.iter().any(|(known, _)| known == *kind);
        assert_eq!(Kind::ALL.iter().filter(found).count(), Kind::ALL.len());
    }

    #[test]
    fn ordinary_instructions_are_of_no_kind() {
        let ordinary: [&[u8]; 10] = [
            &[0x89, 0xc8],             // mov eax, ecx
            &[0x50],                   // push eax
            &[0x58],                   // pop eax
            &[0xe8, 0, 0, 0, 0],       // call
            &[0xff, 0xe0],             // jmp eax
            &[0xc3],                   // ret
            &[0xcc],                   // int3
            &[0x0f, 0x0b],             // ud2
            &[0x9f],                   // lahf
            &[0x64, 0xa1, 0, 0, 0, 0], // mov eax, fs:[0]
        ];
        for bytes in ordinary {
            assert_eq!(classify(&decode(bytes)), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn everything_that_the_decoder_calls_privileged_is_of_a_kind() {
        for first in 0..=0xffu8 {
            for second in 0..=0xffu8 {
                for modrm in [0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0xc0, 0xd8, 0xf8] {
                    let instruction = decode(&[first, second, modrm, 0, 0, 0, 0, 0]);
                    if instruction.is_privileged() {
                        let kind = classify(&instruction);
                        assert!(kind.is_some(), "{first:02x} {second:02x} {modrm:02x}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_selector_of_a_far_jump_decides() {
        let to = |selector: u8| decode(&[0xea, 0, 0, 0x10, 0, selector, 0]);
        assert_eq!(outcome(&to(0x08), Kind::FarJump), Outcome::Emulated);
        assert_eq!(outcome(&to(0x33), Kind::FarJump), Outcome::Wrong);
        assert_eq!(outcome(&to(0x0f), Kind::FarJump), Outcome::Open);
        assert_eq!(outcome(&decode(&[0xff, 0x28]), Kind::FarJump), Outcome::Open);
        assert_eq!(outcome(&decode(&[0xcd, 0x80]), Kind::Int), Outcome::Emulated);
        assert_eq!(outcome(&decode(&[0x9c]), Kind::Pushf), Outcome::Wrong);
    }
}
