//! What a translation takes for granted beside the bytes it was made from.

use machine::Machine;
use machine::cpu::{Cr0, Cr4, Dr7, Eflags, InterruptShadow, Segment, SegmentRegister};

/// The assumptions: code is translated anew where they differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Mode(u8);

const USER: u8 = 1 << 0;
const FS: u8 = 1 << 1;
const GS: u8 = 1 << 2;
const FPU: u8 = 1 << 3;
const SSE: u8 = 1 << 4;
const TSC: u8 = 1 << 5;

impl Mode {
    /// The mode that the CPU is in; nothing where its code has to be emulated: outside of flat
    /// 32-bit protected mode at CPL 0 or 3, and while every instruction needs a closer look.
    #[inline]
    pub(crate) fn of(m: &Machine) -> Option<Mode> {
        let cpu = &m.cpu;
        let careful = Eflags::TF | Eflags::VM | Eflags::VIF | Eflags::VIP;
        let plain = cpu.cr0.contains(Cr0::PE)
            && !cpu.flags.contains(careful)
            && !(cpu.cpl == 3 && cpu.cr0.contains(Cr0::AM) && cpu.flags.contains(Eflags::AC))
            && cpu.interrupt_shadow == InterruptShadow::None
            && cpu.pending_debug == 0
            && cpu.debug[7] & Dr7::ENABLED == 0;
        let code = cpu.segment(SegmentRegister::Cs);
        let stack = cpu.segment(SegmentRegister::Ss);
        let flat = code.base == 0
            && code.limit == u32::MAX
            && code.is_32bit()
            && stack.is_32bit()
            && is_flat(stack)
            && is_flat(cpu.segment(SegmentRegister::Ds))
            && is_flat(cpu.segment(SegmentRegister::Es));
        if !plain || !flat || !matches!(cpu.cpl, 0 | 3) {
            return None;
        }
        let bit = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let fpu = !cpu.cr0.intersects(Cr0::EM | Cr0::TS);
        Some(Mode(
            bit(cpu.cpl == 3, USER)
                | bit(is_unlimited(cpu.segment(SegmentRegister::Fs)), FS)
                | bit(is_unlimited(cpu.segment(SegmentRegister::Gs)), GS)
                | bit(fpu, FPU)
                | bit(fpu && cpu.cr4.contains(Cr4::OSFXSR), SSE)
                | bit(has_time_stamps(m), TSC),
        ))
    }

    pub(crate) fn is_user(self) -> bool {
        self.0 & USER != 0
    }

    /// Whether FS (4) or GS (5) can be used with its base alone.
    pub(crate) fn has_plain_segment(self, number: u8) -> bool {
        self.0 & if number == 4 { FS } else { GS } != 0
    }

    /// Whether x87 and MMX instructions run.
    pub(crate) fn has_fpu(self) -> bool {
        self.0 & FPU != 0
    }

    /// Whether SSE instructions run.
    pub(crate) fn has_sse(self) -> bool {
        self.0 & SSE != 0
    }

    /// Whether RDTSC can read the host's counter.
    pub(crate) fn has_time_stamps(self) -> bool {
        self.0 & TSC != 0
    }

    /// The usual mode of a kernel.
    pub(crate) fn kernel() -> Mode {
        Mode(FS | GS | FPU | SSE)
    }
}

#[inline]
fn has_time_stamps(m: &Machine) -> bool {
    let allowed = m.cpu.cpl == 0 || !m.cpu.cr4.contains(Cr4::TSD);
    allowed && m.host_tsc_offset().is_some()
}

#[inline]
fn is_flat(segment: &Segment) -> bool {
    segment.base == 0 && is_unlimited(segment)
}

#[inline]
fn is_unlimited(segment: &Segment) -> bool {
    segment.writes_freely(u32::MAX - 3, 4)
}
