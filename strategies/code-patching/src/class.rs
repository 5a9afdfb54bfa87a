//! What has to be done about an instruction before it may run in ring 3.
//!
//! Sensitive instructions that do not trap go wrong there, privileged ones trap at the price of a
//! signal (Popek & Goldberg 1974; Robin & Irvine 2000; Intel SDM volume 3, 5.9).

use crate::loads;
use crate::time_stamp;
use crate::virtual_cpu::Word;
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// What has to be done about an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Treatment {
    /// Nothing: ring 3 executes it as ring 0 would.
    Native,
    /// A stub can do the work on the virtual CPU; for guest ring 3, the monitor.
    Stub(Work),
    /// The monitor has to do it.
    Monitor,
    /// It raises #UD, or is not worth a stub: a byte that traps is enough.
    Trap,
}

/// What a stub can do without the monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Clears the virtual IF.
    Cli,
    /// Sets it, unless an interrupt waits for that.
    Sti,
    /// Pushes the flags with the virtual IF and IOPL.
    Pushf,
    /// Pops them, unless an interrupt waits or a trap flag is among them.
    Popf,
    /// Pushes a word of the virtual CPU.
    Push(Word),
    /// Stores 16 bits of such a word to memory or a 16-bit register, all of it to a 32-bit one.
    Store(Word),
    /// Stores a table register: a limit and a base.
    StoreTable(Word, Word),
    /// Returns what the guest's CPU model says.
    Cpuid,
    /// Loads a segment register, by its number, as it was loaded before.
    Load(u8),
    /// Reads the time-stamp counter.
    Rdtsc,
    /// Tells that what the stack segment was loaded with can be written.
    Verw,
}

/// What has to be done about `instruction`.
pub(crate) fn treatment(instruction: &Instruction) -> Treatment {
    if instruction.is_invalid() || !emulator::is_ia32(instruction) {
        return Treatment::Trap;
    }
    match work(instruction) {
        Some(work) => Treatment::Stub(work),
        None if raises_undefined(instruction) => Treatment::Trap,
        None if needs_monitor(instruction) => Treatment::Monitor,
        None => Treatment::Native,
    }
}

fn work(instruction: &Instruction) -> Option<Work> {
    let code = instruction.code();
    Some(match code {
        Code::Cli => Work::Cli,
        Code::Sti => Work::Sti,
        Code::Pushfd => Work::Pushf,
        Code::Popfd => Work::Popf,
        Code::Cpuid => Work::Cpuid,
        Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS => Work::Push(Word::segment(instruction.op0_register().number())),
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg => {
            Work::Store(Word::segment(instruction.op1_register().number()))
        }
        Code::Smsw_rm16 | Code::Smsw_r32m16 => Work::Store(Word::Cr0),
        Code::Sldt_rm16 | Code::Sldt_r32m16 => Work::Store(Word::Ldtr),
        Code::Str_rm16 | Code::Str_r32m16 => Work::Store(Word::Tr),
        Code::Mov_r32_cr => Work::Store(Word::control(instruction.op1_register().number())?),
        Code::Sgdt_m1632 | Code::Sgdt_m1632_16 => Work::StoreTable(Word::GdtrLimit, Word::GdtrBase),
        Code::Sidt_m1632 | Code::Sidt_m1632_16 => Work::StoreTable(Word::IdtrLimit, Word::IdtrBase),
        Code::Rdtsc if time_stamp::can_be_added() => Work::Rdtsc,
        Code::Verw_rm16 | Code::Verw_r32m16 if loads::has_source(instruction, 0) => Work::Verw,
        _ => Work::Load(loads::register(instruction)?),
    })
}

fn needs_monitor(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    match instruction.mnemonic() {
        Sgdt | Sidt | Sldt | Str | Smsw | Pushf | Popf | Pushfd | Popfd => true,
        Lar | Lsl | Verr | Verw | Cpuid | Rdtsc | Rdpmc => true,
        Cli | Sti | In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd | Hlt => true,
        Lgdt | Lidt | Lldt | Ltr | Lmsw | Clts | Invlpg | Invd | Wbinvd | Rdmsr | Wrmsr => true,
        Lds | Les | Lfs | Lgs | Lss | Retf | Iret | Iretd | Int => true,
        Jmp => instruction.is_jmp_far() || instruction.is_jmp_far_indirect(),
        Call => instruction.is_call_far() || instruction.is_call_far_indirect(),
        _ => {
            names_system_register(instruction)
                || instruction.is_privileged()
                || reads_code_segment(instruction)
                || is_repeated_scan(instruction) && instruction.segment_prefix() != Register::None
        }
    }
}

/// MOV, PUSH and POP with a segment, control or debug register.
fn names_system_register(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|number| {
        let register = instruction.op_register(number);
        instruction.op_kind(number) == OpKind::Register
            && (register.is_segment_register()
                || register.is_cr()
                || register.is_dr()
                || register.is_tr())
    })
}

/// Data behind a CS prefix: code segments need not show the guest's own bytes.
fn reads_code_segment(instruction: &Instruction) -> bool {
    names_memory_by(instruction, Register::CS)
}

/// Whether the instruction accesses memory with a segment's prefix.
pub(crate) fn names_memory_by(instruction: &Instruction, segment: Register) -> bool {
    let is_memory = |number| {
        let kind = instruction.op_kind(number);
        !matches!(kind, OpKind::Register | OpKind::NearBranch16 | OpKind::NearBranch32)
    };
    instruction.segment_prefix() == segment
        && instruction.mnemonic() != Mnemonic::Nop
        && (0..instruction.op_count()).any(is_memory)
}

/// Whether the instruction is BSF or BSR with a repeat prefix: what newer CPUs take for TZCNT and LZCNT,
/// which do something else with 0.
pub(crate) fn is_repeated_scan(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr) && instruction.has_rep_prefix()
}

/// Whether the instruction accesses memory at GS's base and above, as far as can be seen.
pub(crate) fn is_above_gs(instruction: &Instruction) -> bool {
    names_memory_by(instruction, Register::GS)
        && instruction.memory_base() == Register::None
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement32() < 1 << 31
        && (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory)
}

/// UD2 and its like, for which the host's signal is dearer than the one of a trap byte, and ways into
/// the host's kernel, which no model of CPU has.
fn raises_undefined(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(instruction.mnemonic(), Ud0 | Ud1 | Ud2 | Syscall | Sysenter | Sysexit | Sysret)
}

/// Where control goes behind an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// To the next one.
    Next,
    /// There, and nowhere else.
    Jump(u32),
    /// There, or to the next one.
    Branch(u32),
    /// The same, by a form that has no 32-bit displacement (LOOP, JECXZ).
    ShortBranch(u32),
    /// There, and to the next one afterwards.
    Call(u32),
    /// Elsewhere, and to the next one afterwards.
    IndirectCall,
    /// Elsewhere.
    Ends,
}

/// Where control goes behind `instruction`.
pub(crate) fn flow(instruction: &Instruction) -> Flow {
    let target = instruction.near_branch_target() as u32;
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
            Flow::Jump(target)
        }
        FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {
            Flow::Branch(target)
        }
        FlowControl::ConditionalBranch => Flow::ShortBranch(target),
        FlowControl::Call if instruction.is_call_near() => Flow::Call(target),
        FlowControl::Call | FlowControl::IndirectCall => Flow::IndirectCall,
        FlowControl::Next | FlowControl::Interrupt => Flow::Next,
        _ => Flow::Ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(32, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn what_stubs_can_do_is_known() {
        let known: [(&[u8], Work); 13] = [
            (&[0xfa], Work::Cli),
            (&[0xfb], Work::Sti),
            (&[0x9c], Work::Pushf),
            (&[0x9d], Work::Popf),
            (&[0x0e], Work::Push(Word::segment(1))),
            (&[0x8c, 0xd8], Work::Store(Word::segment(3))),
            (&[0x0f, 0x01, 0xe0], Work::Store(Word::Cr0)),
            (&[0x0f, 0x20, 0xd0], Work::Store(Word::Cr2)),
            (&[0x0f, 0x01, 0x00], Work::StoreTable(Word::GdtrLimit, Word::GdtrBase)),
            (&[0x0f, 0xa2], Work::Cpuid),
            (&[0x8e, 0xd8], Work::Load(3)),
            (&[0x0f, 0xa1], Work::Load(4)),
            (&[0x0f, 0x00, 0xe8], Work::Verw),
        ];
        for (bytes, work) in known {
            assert_eq!(treatment(&decode(bytes)), Treatment::Stub(work), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_needs_the_monitor_is_not_left_alone() {
        let all: [&[u8]; 19] = [
            &[0x66, 0x9c],             // pushf, 16 bits
            &[0xec],                   // in al, dx
            &[0xf3, 0x6f],             // rep outsd
            &[0xf4],                   // hlt
            &[0x0f, 0x22, 0xd8],       // mov cr3, eax
            &[0x8e, 0xd0],             // mov ss, eax
            &[0x66, 0x1f],             // pop ds, 16 bits
            &[0x17],                   // pop ss
            &[0xcf],                   // iret
            &[0xcb],                   // retf
            &[0xcd, 0x80],             // int 0x80
            &[0x0f, 0x02, 0xc1],       // lar
            &[0x0f, 0x30],             // wrmsr
            &[0xff, 0x28],             // jmp far [eax]
            &[0x9a, 0, 0, 0, 0, 8, 0], // call far
            &[0x0f, 0x23, 0xf8],       // mov dr7, eax
            &[0xc5, 0x00],             // lds
            &[0x2e, 0x8b, 0x00],       // mov eax, cs:[eax]
            &[0x2e, 0xa4],             // movsb from cs:[esi]
        ];
        for bytes in all {
            assert_eq!(treatment(&decode(bytes)), Treatment::Monitor, "{bytes:02x?}");
        }
    }

    #[test]
    fn ordinary_instructions_run_as_they_are() {
        let all: [&[u8]; 10] = [
            &[0x2e, 0x74, 0],
            &[0x2e, 0x0f, 0x1f, 0],
            &[0x89, 0xc8],
            &[0xe8, 0, 0, 0, 0],
            &[0xc3],
            &[0xcc],
            &[0xff, 0xe0],
            &[0x64, 0xa1, 0, 0, 0, 0],
            &[0xf3, 0xab],
            &[0xd9, 0xe8],
        ];
        for bytes in all {
            assert_eq!(treatment(&decode(bytes)), Treatment::Native, "{bytes:02x?}");
        }
        assert_eq!(treatment(&decode(&[0x0f, 0x0b])), Treatment::Trap);
        assert_eq!(treatment(&decode(&[0x0f, 0x05])), Treatment::Trap, "syscall");
        assert_eq!(treatment(&decode(&[0x0f, 0x34])), Treatment::Trap, "sysenter");
        assert_eq!(treatment(&decode(&[0xc5, 0xf8, 0x77])), Treatment::Trap, "vzeroupper");
    }

    #[test]
    fn flow_is_followed() {
        assert_eq!(flow(&decode(&[0xeb, 0x10])), Flow::Jump(0x1012));
        assert_eq!(flow(&decode(&[0x74, 0x10])), Flow::Branch(0x1012));
        assert_eq!(flow(&decode(&[0xe2, 0x10])), Flow::ShortBranch(0x1012));
        assert_eq!(flow(&decode(&[0xe8, 0, 1, 0, 0])), Flow::Call(0x1105));
        assert_eq!(flow(&decode(&[0xff, 0xd0])), Flow::IndirectCall);
        assert_eq!(flow(&decode(&[0xff, 0xe0])), Flow::Ends);
        assert_eq!(flow(&decode(&[0xcd, 0x80])), Flow::Next);
        assert_eq!(flow(&decode(&[0xcf])), Flow::Ends);
        assert_eq!(flow(&decode(&[0x0f, 0x0b])), Flow::Ends);
    }
}
