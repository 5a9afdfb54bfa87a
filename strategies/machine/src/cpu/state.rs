//! What is saved of the CPU: all of it, hidden segment parts and the FXSAVE area included.

use super::{Cpu, CpuModel, Cr0, Cr4, Eflags, Fpu, FxArea, InterruptShadow, Msrs};
use super::{Segment, TableRegister};

/// Bits of MXCSR that exist; the host faults when others are loaded (Intel SDM volume 1, 10.2.3).
const MXCSR_BITS: u32 = 0xffff;

/// A saved segment register.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct SegmentState {
    selector: u16,
    base: u32,
    limit: u32,
    attributes: u16,
}

/// A saved CPU.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct CpuState {
    registers: [u32; 8],
    eip: u32,
    flags: u32,
    segments: [SegmentState; 6],
    cpl: u8,
    interrupt_shadow: InterruptShadow,
    halted: bool,
    cr0: Cr0,
    cr2: u32,
    cr3: u32,
    cr4: Cr4,
    pdptes: [u64; 4],
    gdtr: TableRegister,
    idtr: TableRegister,
    ldtr: SegmentState,
    tr: SegmentState,
    debug: [u32; 8],
    pending_debug: u32,
    msrs: Msrs,
    fpu: Vec<u8>,
    model: CpuModel,
}

impl From<&Segment> for SegmentState {
    fn from(segment: &Segment) -> SegmentState {
        SegmentState {
            selector: segment.selector,
            base: segment.base,
            limit: segment.limit,
            attributes: segment.attributes(),
        }
    }
}

impl SegmentState {
    fn segment(self) -> Segment {
        Segment::new(self.selector, self.base, self.limit, self.attributes)
    }
}

impl Cpu {
    /// What is saved of this CPU.
    pub(crate) fn state(&self) -> CpuState {
        // Without `..`, so that nobody adds a field and forgets it here.
        let Cpu {
            registers,
            eip,
            flags,
            segments,
            cpl,
            interrupt_shadow,
            halted,
            cr0,
            cr2,
            cr3,
            cr4,
            pdptes,
            gdtr,
            idtr,
            ldtr,
            tr,
            debug,
            pending_debug,
            msrs,
            fpu: Fpu { area, resident: _ },
            model,
        } = self;
        CpuState {
            registers: *registers,
            eip: *eip,
            flags: flags.bits(),
            segments: segments.each_ref().map(SegmentState::from),
            cpl: *cpl,
            interrupt_shadow: *interrupt_shadow,
            halted: *halted,
            cr0: *cr0,
            cr2: *cr2,
            cr3: *cr3,
            cr4: *cr4,
            pdptes: *pdptes,
            gdtr: *gdtr,
            idtr: *idtr,
            ldtr: ldtr.into(),
            tr: tr.into(),
            debug: *debug,
            pending_debug: *pending_debug,
            msrs: *msrs,
            fpu: area.0.to_vec(),
            model: *model,
        }
    }

    /// The CPU in a saved state.
    ///
    /// # Errors
    /// When no CPU can be in that state; with the reason.
    pub(crate) fn from_state(state: &CpuState) -> Result<Cpu, &'static str> {
        let mut cpu = Cpu {
            registers: state.registers,
            eip: state.eip,
            segments: state.segments.map(SegmentState::segment),
            cpl: state.cpl,
            interrupt_shadow: state.interrupt_shadow,
            halted: state.halted,
            cr0: state.cr0,
            cr2: state.cr2,
            cr3: state.cr3,
            cr4: state.cr4,
            pdptes: state.pdptes,
            gdtr: state.gdtr,
            idtr: state.idtr,
            ldtr: state.ldtr.segment(),
            tr: state.tr.segment(),
            debug: state.debug,
            pending_debug: state.pending_debug,
            msrs: state.msrs,
            ..Cpu::new(state.model)
        };
        cpu.flags.set_bits(state.flags);
        let area =
            state.fpu.as_slice().try_into().map_err(|_| "the FPU's area has another size")?;
        cpu.fpu = Fpu { area: FxArea(area), resident: false };
        cpu.check()?;
        Ok(cpu)
    }

    /// Refuses what no instruction leads to.
    fn check(&self) -> Result<(), &'static str> {
        let protected = self.cr0.contains(Cr0::PE);
        if self.cpl > 3 {
            Err("a privilege level above 3")
        } else if self.cr0.contains(Cr0::PG) && !protected {
            Err("paging in real mode")
        } else if self.flags.contains(Eflags::VM) && (!protected || self.cpl != 3) {
            Err("virtual-8086 mode outside of protected mode or ring 3")
        } else if self.fpu.mxcsr() & !MXCSR_BITS != 0 {
            Err("reserved bits of MXCSR are set")
        } else {
            Ok(())
        }
    }
}
