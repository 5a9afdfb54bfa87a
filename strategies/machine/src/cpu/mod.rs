//! The architectural state of the guest's one CPU.

mod control;
mod flags;
mod fpu;
mod model;
mod segment;
mod state;

pub use control::{Cr0, Cr4, Dr6, Dr7};
pub use flags::{Condition, Eflags, Flags};
pub use fpu::{Fpu, FxArea, MXCSR, XMM0};
pub use model::{CpuModel, CpuidLeaf, Features};
pub use segment::{Descriptor, Segment, SegmentRegister, TableRegister, access};
pub(crate) use state::CpuState;

/// Indices into [`Cpu::registers`], in the order of the instruction encoding.
pub mod register {
    /// EAX.
    pub const EAX: usize = 0;
    /// ECX.
    pub const ECX: usize = 1;
    /// EDX.
    pub const EDX: usize = 2;
    /// EBX.
    pub const EBX: usize = 3;
    /// ESP.
    pub const ESP: usize = 4;
    /// EBP.
    pub const EBP: usize = 5;
    /// ESI.
    pub const ESI: usize = 6;
    /// EDI.
    pub const EDI: usize = 7;
}

/// What holds interrupts off for one instruction (Intel SDM volume 3, 6.8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum InterruptShadow {
    /// Nothing.
    #[default]
    None,
    /// The instruction before was an STI that set IF: external interrupts are held off.
    Sti,
    /// The instruction before loaded SS: external interrupts and debug traps are held off.
    MovSs,
}

/// Model-specific registers that guests may read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Msrs {
    /// IA32_SYSENTER_CS, ESP, EIP: stored, though no model announces SYSENTER.
    pub sysenter: [u32; 3],
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_BIOS_SIGN_ID.
    pub bios_sign_id: u64,
}

/// The architectural state of the CPU, complete whenever no strategy runs.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Cpu {
    /// General registers, in encoding order (see [`register`]).
    pub registers: [u32; 8],
    /// The instruction pointer.
    pub eip: u32,
    /// EFLAGS.
    pub flags: Flags,
    /// ES, CS, SS, DS, FS, GS with their hidden parts, in encoding order.
    pub segments: [Segment; 6],
    /// Current privilege level. Real mode runs at 0, virtual-8086 mode at 3.
    pub cpl: u8,
    /// Interrupts held off for one instruction.
    pub interrupt_shadow: InterruptShadow,
    /// Whether the CPU waits in HLT.
    pub halted: bool,
    /// Control register 0.
    pub cr0: Cr0,
    /// Control register 2: the last page fault's linear address.
    pub cr2: u32,
    /// Control register 3: the page directory's physical address.
    pub cr3: u32,
    /// Control register 4.
    pub cr4: Cr4,
    /// The four page-directory-pointer entries, loaded with CR3 under PAE (Intel SDM volume 3, 4.4.1).
    pub pdptes: [u64; 4],
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// Local descriptor table register with its hidden part.
    pub ldtr: Segment,
    /// Task register with its hidden part.
    pub tr: Segment,
    /// DR0 to DR7; 4 and 5 are aliases of 6 and 7 and stay unused.
    pub debug: [u32; 8],
    /// Bits for DR6 of a debug trap that is due after the current instruction.
    pub pending_debug: u32,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// x87, MMX and SSE state.
    pub fpu: Fpu,
    /// Which CPU the guest sees.
    pub model: CpuModel,
}

impl Cpu {
    /// The state after power-up (Intel SDM volume 3, table 10-1).
    #[must_use]
    pub fn new(model: CpuModel) -> Cpu {
        let mut cpu = Cpu {
            registers: [0; 8],
            eip: 0xfff0,
            flags: Flags::default(),
            segments: [Segment::real_mode(0); 6],
            cpl: 0,
            interrupt_shadow: InterruptShadow::None,
            halted: false,
            cr0: Cr0::ET | Cr0::NW | Cr0::CD,
            cr2: 0,
            cr3: 0,
            cr4: Cr4::empty(),
            pdptes: [0; 4],
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            ldtr: Segment::system(0, 0, 0xffff, access::LDT),
            tr: Segment::system(0, 0, 0xffff, access::TSS32_BUSY),
            debug: [0, 0, 0, 0, 0, 0, Dr6::RESET, Dr7::RESET],
            pending_debug: 0,
            msrs: Msrs { pat: 0x0007_0406_0007_0406, ..Msrs::default() },
            fpu: Fpu::default(),
            model,
        };
        cpu.registers[register::EDX] = model.signature();
        let cs = cpu.segment_mut(SegmentRegister::Cs);
        cs.selector = 0xf000;
        cs.base = 0xffff_0000;
        cpu
    }

    /// A segment register with its hidden part.
    #[inline]
    #[must_use]
    pub fn segment(&self, register: SegmentRegister) -> &Segment {
        &self.segments[register as usize]
    }

    /// A segment register with its hidden part, to be changed.
    #[inline]
    pub fn segment_mut(&mut self, register: SegmentRegister) -> &mut Segment {
        &mut self.segments[register as usize]
    }

    /// Whether CR0.PE is set and EFLAGS.VM is clear.
    #[inline]
    #[must_use]
    pub fn in_protected_mode(&self) -> bool {
        self.cr0.contains(Cr0::PE) && !self.in_virtual_8086_mode()
    }

    /// Whether the CPU is in virtual-8086 mode.
    #[inline]
    #[must_use]
    pub fn in_virtual_8086_mode(&self) -> bool {
        self.flags.contains(Eflags::VM)
    }

    /// Whether paging is on.
    #[inline]
    #[must_use]
    pub fn paging(&self) -> bool {
        self.cr0.contains(Cr0::PG)
    }

    /// Whether external interrupts are taken now.
    #[inline]
    #[must_use]
    pub fn interruptible(&self) -> bool {
        self.flags.contains(Eflags::IF) && self.interrupt_shadow == InterruptShadow::None
    }

    /// The linear address of the next instruction.
    #[inline]
    #[must_use]
    pub fn instruction_address(&self) -> crate::LinearAddress {
        crate::LinearAddress(
            self.segments[SegmentRegister::Cs as usize].base.wrapping_add(self.eip),
        )
    }
}
