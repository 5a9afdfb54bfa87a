//! The CPU as gdb shows it: the general registers, x87 and SSE.

use gdbstub_arch::x86::reg::{X86CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use machine::Cpu;
use machine::cpu::{Eflags, FxArea, SegmentRegister, XMM0};

/// Offsets in the FXSAVE area (Intel SDM volume 1, table 10-2).
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FCS: usize = 12;
const FDP: usize = 16;
const FDS: usize = 20;
const ST0: usize = 32;

/// In the order in which gdb has them.
const SEGMENTS: [SegmentRegister; 6] = [
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Es,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// What gdb is shown.
pub(super) fn read(cpu: &Cpu) -> X86CoreRegs {
    let [eax, ecx, edx, ebx, esp, ebp, esi, edi] = cpu.registers;
    let [cs, ss, ds, es, fs, gs] = selectors(cpu);
    let area = &cpu.fpu.area;
    X86CoreRegs {
        eax,
        ecx,
        edx,
        ebx,
        esp,
        ebp,
        esi,
        edi,
        eip: cpu.eip,
        eflags: cpu.flags.bits(),
        segments: X86SegmentRegs { cs, ss, ds, es, fs, gs },
        st: std::array::from_fn(|index| bytes(area, ST0 + 16 * index)),
        fpu: X87FpuInternalRegs {
            fctrl: word(area, FCW),
            fstat: word(area, FSW),
            ftag: full_tags(area),
            fiseg: word(area, FCS),
            fioff: u32::from_le_bytes(bytes(area, FIP)),
            foseg: word(area, FDS),
            fooff: u32::from_le_bytes(bytes(area, FDP)),
            fop: word(area, FOP),
        },
        xmm: std::array::from_fn(|index| u128::from_le_bytes(bytes(area, XMM0 + 16 * index))),
        mxcsr: cpu.fpu.mxcsr(),
    }
}

/// Takes over what gdb has changed: general registers, EIP, those flags that POPF changes in ring 0,
/// and XMM registers. False, and nothing changed, when it has changed something else: a selector does
/// not tell its segment.
pub(super) fn write(cpu: &mut Cpu, registers: &X86CoreRegs) -> bool {
    let before = read(cpu);
    let other = X86CoreRegs {
        eax: before.eax,
        ecx: before.ecx,
        edx: before.edx,
        ebx: before.ebx,
        esp: before.esp,
        ebp: before.ebp,
        esi: before.esi,
        edi: before.edi,
        eip: before.eip,
        eflags: before.eflags,
        xmm: before.xmm,
        ..registers.clone()
    };
    let changed = registers.eflags ^ before.eflags;
    if other != before || changed & !Eflags::WRITABLE.bits() != 0 {
        return false;
    }
    let X86CoreRegs { eax, ecx, edx, ebx, esp, ebp, esi, edi, .. } = *registers;
    cpu.registers = [eax, ecx, edx, ebx, esp, ebp, esi, edi];
    if cpu.eip != registers.eip {
        // The instruction elsewhere is not behind the STI or the HLT here.
        cpu.eip = registers.eip;
        cpu.halted = false;
        cpu.interrupt_shadow = machine::cpu::InterruptShadow::None;
    }
    cpu.flags.set_bits(registers.eflags);
    for (index, xmm) in registers.xmm.iter().enumerate() {
        let at = XMM0 + 16 * index;
        cpu.fpu.area.0[at..at + 16].copy_from_slice(&xmm.to_le_bytes());
    }
    true
}

fn selectors(cpu: &Cpu) -> [u32; 6] {
    SEGMENTS.map(|register| cpu.segment(register).selector.into())
}

fn bytes<const COUNT: usize>(area: &FxArea, at: usize) -> [u8; COUNT] {
    std::array::from_fn(|index| area.0[at + index])
}

fn word(area: &FxArea, at: usize) -> u32 {
    u16::from_le_bytes(bytes(area, at)).into()
}

/// The tag word of FSAVE, two bits a register, from FXSAVE's of one bit (Intel SDM volume 1, 10.5.1.1
/// and 8.1.7): 0 for a valid number, 1 for zero, 2 for anything special, 3 for nothing.
fn full_tags(area: &FxArea) -> u32 {
    let top = word(area, FSW) >> 11 & 7;
    (0..8u32).fold(0, |tags, physical| {
        let tag = match area.0[FTW] >> physical & 1 {
            0 => 3,
            _ => tag(bytes(area, ST0 + 16 * (physical.wrapping_sub(top) & 7) as usize)),
        };
        tags | tag << (2 * physical)
    })
}

fn tag(number: [u8; 10]) -> u32 {
    let exponent = u16::from_le_bytes([number[8], number[9]]) & 0x7fff;
    let fraction = number[..8].iter().rev().fold(0, |high, &byte| high << 8 | u64::from(byte));
    let is_normal = fraction >> 63 == 1 && (1..0x7fff).contains(&exponent);
    match (exponent, fraction) {
        (0, 0) => 1,
        _ if is_normal => 0,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::cpu::CpuModel;

    #[test]
    fn what_gdb_writes_it_reads() {
        let mut cpu = Cpu::new(CpuModel::default());
        let mut registers = read(&cpu);
        registers.ebx = 0x1234_5678;
        registers.eip = 0x9999;
        registers.eflags ^= (Eflags::CF | Eflags::IF).bits();
        registers.xmm[7] = 1 << 127 | 5;
        assert!(write(&mut cpu, &registers));
        assert_eq!(read(&cpu), registers);
        assert_eq!((cpu.registers[3], cpu.eip), (0x1234_5678, 0x9999));
    }

    #[test]
    fn what_a_selector_cannot_tell_is_refused() {
        let mut cpu = Cpu::new(CpuModel::default());
        let changes: [fn(&mut X86CoreRegs); 3] = [
            |registers| registers.segments.cs = 8,
            |registers| registers.eflags ^= Eflags::VM.bits(),
            |registers| registers.st[0][3] = 1,
        ];
        for change in changes {
            let mut registers = read(&cpu);
            registers.eax = 1;
            change(&mut registers);
            assert!(!write(&mut cpu, &registers));
            assert_eq!(cpu, Cpu::new(CpuModel::default()));
        }
    }

    #[test]
    fn tags_tell_numbers_from_zero_and_nothing() {
        let mut cpu = Cpu::new(CpuModel::default());
        assert_eq!(read(&cpu).fpu.ftag, 0xffff);
        // TOP is 6: ST0 is register 6, with 1.0; ST1 is register 7, with 0.
        let area = &mut cpu.fpu.area.0;
        area[FSW + 1] = 6 << 3;
        area[FTW] = 0xc0;
        area[ST0 + 7..ST0 + 10].copy_from_slice(&[0x80, 0xff, 0x3f]);
        assert_eq!(read(&cpu).fpu.ftag, 0x4fff);
    }
}
