//! Privileged, sensitive and far instructions.
//!
//! SYSENTER, SYSEXIT, SYSCALL, SYSRET and RSM are missing on purpose: no model announces them, so they
//! are undefined.

use super::Lowered;
use crate::handlers::{control, far, flags, identify, inspect, interrupts, io, segments, tables};
use iced_x86::{Code, Instruction, Register};
use machine::cpu::SegmentRegister;

const ES: u8 = SegmentRegister::Es as u8;
const SS: u8 = SegmentRegister::Ss as u8;
const DS: u8 = SegmentRegister::Ds as u8;
const FS: u8 = SegmentRegister::Fs as u8;
const GS: u8 = SegmentRegister::Gs as u8;

/// The handler for `instruction`, if it is one of these.
pub(super) fn lower(instruction: &Instruction) -> Option<Lowered> {
    let code = instruction.code();
    segment_registers(instruction)
        .or_else(|| transfers(code))
        .or_else(|| flags_and_ports(code))
        .or_else(|| registers_and_tables(code))
        .or_else(|| inspection(code))
}

fn segment_registers(instruction: &Instruction) -> Option<Lowered> {
    Some(match instruction.code() {
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => {
            if instruction.op0_register() == Register::CS {
                return None;
            }
            Lowered::fence(segments::mov_to)
        }
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg => Lowered::next(segments::mov_from),
        Code::Pushw_ES
        | Code::Pushw_CS
        | Code::Pushw_SS
        | Code::Pushw_DS
        | Code::Pushw_FS
        | Code::Pushw_GS => Lowered::next(segments::push::<u16>),
        Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS => Lowered::next(segments::push::<u32>),
        Code::Popw_ES | Code::Popw_SS | Code::Popw_DS | Code::Popw_FS | Code::Popw_GS => {
            Lowered::fence(segments::pop::<u16>)
        }
        Code::Popd_ES | Code::Popd_SS | Code::Popd_DS | Code::Popd_FS | Code::Popd_GS => {
            Lowered::fence(segments::pop::<u32>)
        }
        Code::Les_r16_m1616 => Lowered::fence(segments::load_far::<u16, ES>),
        Code::Les_r32_m1632 => Lowered::fence(segments::load_far::<u32, ES>),
        Code::Lss_r16_m1616 => Lowered::fence(segments::load_far::<u16, SS>),
        Code::Lss_r32_m1632 => Lowered::fence(segments::load_far::<u32, SS>),
        Code::Lds_r16_m1616 => Lowered::fence(segments::load_far::<u16, DS>),
        Code::Lds_r32_m1632 => Lowered::fence(segments::load_far::<u32, DS>),
        Code::Lfs_r16_m1616 => Lowered::fence(segments::load_far::<u16, FS>),
        Code::Lfs_r32_m1632 => Lowered::fence(segments::load_far::<u32, FS>),
        Code::Lgs_r16_m1616 => Lowered::fence(segments::load_far::<u16, GS>),
        Code::Lgs_r32_m1632 => Lowered::fence(segments::load_far::<u32, GS>),
        _ => return None,
    })
}

fn transfers(code: Code) -> Option<Lowered> {
    Some(match code {
        Code::Jmp_ptr1616 | Code::Jmp_m1616 => Lowered::jump(far::jump::<u16>),
        Code::Jmp_ptr1632 | Code::Jmp_m1632 => Lowered::jump(far::jump::<u32>),
        Code::Call_ptr1616 | Code::Call_m1616 => Lowered::jump(far::call::<u16>),
        Code::Call_ptr1632 | Code::Call_m1632 => Lowered::jump(far::call::<u32>),
        Code::Retfw | Code::Retfw_imm16 => Lowered::jump(far::ret::<u16>),
        Code::Retfd | Code::Retfd_imm16 => Lowered::jump(far::ret::<u32>),
        Code::Int_imm8 => Lowered::jump(interrupts::int),
        Code::Int3 => Lowered::jump(interrupts::int3),
        Code::Int1 => Lowered::jump(interrupts::int1),
        Code::Into => Lowered::jump(interrupts::into),
        Code::Iretw => Lowered::jump(interrupts::iret::<u16>),
        Code::Iretd => Lowered::jump(interrupts::iret::<u32>),
        _ => return None,
    })
}

fn flags_and_ports(code: Code) -> Option<Lowered> {
    Some(match code {
        Code::Pushfw => Lowered::next(flags::pushf::<u16>),
        Code::Pushfd => Lowered::next(flags::pushf::<u32>),
        Code::Popfw => Lowered::fence(flags::popf::<u16>),
        Code::Popfd => Lowered::fence(flags::popf::<u32>),
        Code::Cli => Lowered::fence(flags::cli),
        Code::Sti => Lowered::fence(flags::sti),
        Code::In_AL_imm8 | Code::In_AL_DX => Lowered::fence(io::read::<u8>),
        Code::In_AX_imm8 | Code::In_AX_DX => Lowered::fence(io::read::<u16>),
        Code::In_EAX_imm8 | Code::In_EAX_DX => Lowered::fence(io::read::<u32>),
        Code::Out_imm8_AL | Code::Out_DX_AL => Lowered::fence(io::write::<u8>),
        Code::Out_imm8_AX | Code::Out_DX_AX => Lowered::fence(io::write::<u16>),
        Code::Out_imm8_EAX | Code::Out_DX_EAX => Lowered::fence(io::write::<u32>),
        Code::Insb_m8_DX => Lowered::jump(io::read_string::<u8>),
        Code::Insw_m16_DX => Lowered::jump(io::read_string::<u16>),
        Code::Insd_m32_DX => Lowered::jump(io::read_string::<u32>),
        Code::Outsb_DX_m8 => Lowered::jump(io::write_string::<u8>),
        Code::Outsw_DX_m16 => Lowered::jump(io::write_string::<u16>),
        Code::Outsd_DX_m32 => Lowered::jump(io::write_string::<u32>),
        _ => return None,
    })
}

fn registers_and_tables(code: Code) -> Option<Lowered> {
    Some(match code {
        Code::Mov_r32_cr => Lowered::next(control::mov_from_control),
        Code::Mov_cr_r32 => Lowered::fence(control::mov_to_control),
        Code::Mov_r32_dr => Lowered::next(control::mov_from_debug),
        Code::Mov_dr_r32 => Lowered::fence(control::mov_to_debug),
        Code::Clts => Lowered::fence(control::clts),
        Code::Smsw_rm16 | Code::Smsw_r32m16 => Lowered::next(control::smsw),
        Code::Lmsw_rm16 | Code::Lmsw_r32m16 => Lowered::fence(control::lmsw),
        Code::Invlpg_m => Lowered::fence(control::invlpg),
        Code::Invd | Code::Wbinvd => Lowered::fence(control::flush_cache),
        Code::Hlt => Lowered::fence(control::hlt),
        Code::Lgdt_m1632_16 => Lowered::fence(tables::lgdt::<false>),
        Code::Lgdt_m1632 => Lowered::fence(tables::lgdt::<true>),
        Code::Lidt_m1632_16 => Lowered::fence(tables::lidt::<false>),
        Code::Lidt_m1632 => Lowered::fence(tables::lidt::<true>),
        Code::Sgdt_m1632_16 | Code::Sgdt_m1632 => Lowered::next(tables::sgdt),
        Code::Sidt_m1632_16 | Code::Sidt_m1632 => Lowered::next(tables::sidt),
        Code::Lldt_rm16 | Code::Lldt_r32m16 => Lowered::fence(tables::lldt),
        Code::Ltr_rm16 | Code::Ltr_r32m16 => Lowered::fence(tables::ltr),
        Code::Sldt_rm16 | Code::Sldt_r32m16 => Lowered::next(tables::sldt),
        Code::Str_rm16 | Code::Str_r32m16 => Lowered::next(tables::str),
        Code::Rdmsr => Lowered::next(identify::rdmsr),
        Code::Wrmsr => Lowered::fence(identify::wrmsr),
        _ => return None,
    })
}

fn inspection(code: Code) -> Option<Lowered> {
    Some(match code {
        Code::Lar_r16_rm16 => Lowered::next(inspect::lar::<u16>),
        Code::Lar_r32_r32m16 => Lowered::next(inspect::lar::<u32>),
        Code::Lsl_r16_rm16 => Lowered::next(inspect::lsl::<u16>),
        Code::Lsl_r32_r32m16 => Lowered::next(inspect::lsl::<u32>),
        Code::Verr_rm16 | Code::Verr_r32m16 => Lowered::next(inspect::verr),
        Code::Verw_rm16 | Code::Verw_r32m16 => Lowered::next(inspect::verw),
        Code::Arpl_rm16_r16 | Code::Arpl_r32m16_r32 => Lowered::next(inspect::arpl),
        Code::Cpuid => Lowered::next(identify::cpuid),
        Code::Rdtsc => Lowered::next(identify::rdtsc),
        Code::Rdpmc => Lowered::next(identify::rdpmc),
        _ => return None,
    })
}
