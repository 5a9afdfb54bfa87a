//! What translated code finds through R13: the state that is not in host registers, where exits
//! leave their reason, and the tables that it looks into by itself.
//!
//! The offsets below are the code's only knowledge of this structure.

use crate::calls::{self, CALLS};
use host::translated::Fault;
use machine::Machine;
use machine::cpu::{Cpu, CpuModel, Cr4, Eflags, SegmentRegister, register};
use std::mem::offset_of;

/// Entries of the table of indirect targets, by the low 16 bits of EIP.
pub(crate) const TARGETS: usize = 1 << 16;
/// Entries of each software TLB.
pub(crate) const SOFT_ENTRIES: usize = 256;

/// Why translated code was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Exit {
    /// The unit at `exit_eip` is not in the table of targets.
    Lookup = 0,
    /// The same, and the jump at `resume` can be linked to it.
    Link = 1,
    /// The emulator has to execute the instruction at `exit_eip`; `resume` goes on behind it.
    Step = 2,
    /// A signal: see `fault`.
    Fault = 3,
    /// As [`Exit::Step`], because the software TLB does not have the page of `soft_address`.
    Miss = 5,
    /// As [`Exit::Step`], and the instruction changes nothing but what translated code finds in the machine
    /// itself and the arithmetic flags.
    LightStep = 6,
    /// STI found an interrupt waiting: the instruction at `exit_eip` still comes before it.
    Shadow = 4,
}

impl Exit {
    pub(crate) fn from_code(code: u32) -> Exit {
        match code {
            0 => Exit::Lookup,
            1 => Exit::Link,
            2 => Exit::Step,
            4 => Exit::Shadow,
            5 => Exit::Miss,
            6 => Exit::LightStep,
            _ => Exit::Fault,
        }
    }
}

/// One entry of the table of indirect targets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Target {
    /// (epoch, EIP).
    pub(crate) key: u64,
    pub(crate) host: u64,
}

/// A software TLB for accesses that faulted too often: one for the kernel, one for the user.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct SoftTlb {
    /// Minus the linear page address, for reads.
    pub(crate) read: [u32; SOFT_ENTRIES],
    /// The same for writes.
    pub(crate) write: [u32; SOFT_ENTRIES],
    /// Host address less linear address.
    pub(crate) addend: [u64; SOFT_ENTRIES],
}

impl SoftTlb {
    /// A tag that no address with this index matches: not the next page's either, in which an access
    /// that straddles two pages ends.
    fn never(index: usize) -> u32 {
        (((index as u32 + 2) & 0xff) << 12).wrapping_neg()
    }

    pub(crate) fn clear(&mut self) {
        for index in 0..SOFT_ENTRIES {
            self.read[index] = SoftTlb::never(index);
            self.write[index] = SoftTlb::never(index);
        }
    }

    pub(crate) fn clear_page(&mut self, linear: u32) {
        let index = (linear >> 12) as usize % SOFT_ENTRIES;
        self.read[index] = SoftTlb::never(index);
        self.write[index] = SoftTlb::never(index);
    }

    pub(crate) fn insert(&mut self, linear: u32, host: *mut u8, write: bool) {
        let (page, index) = (linear & !0xfff, (linear >> 12) as usize % SOFT_ENTRIES);
        self.read[index] = page.wrapping_neg();
        self.write[index] = if write { page.wrapping_neg() } else { SoftTlb::never(index) };
        self.addend[index] = (host as u64).wrapping_sub(u64::from(page));
    }

    /// Takes the right to write the page at this host address (it now holds code).
    pub(crate) fn withhold(&mut self, host: *mut u8) {
        for index in 0..SOFT_ENTRIES {
            let page = self.write[index].wrapping_neg();
            if self.addend[index].wrapping_add(u64::from(page)) == host as u64 {
                self.write[index] = SoftTlb::never(index);
            }
        }
    }
}

/// No key: its epoch is never given out.
const NO_KEY: u64 = 0;

fn key(eip: u32, epoch: u32) -> u64 {
    u64::from(epoch) << 32 | u64::from(eip)
}

/// The context. It stays where it is: translated code and a signal handler hold pointers to it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Context {
    /// Points to what polls read, and is in R15 while translated code runs. A kick makes both
    /// non-canonical, this by its highest byte …
    pub(crate) poll: u64,
    /// … and this one match no target, by its lowest: (epoch, 0).
    pub(crate) epoch: u64,
    /// Called before floating-point instructions: loads the guest's state if it is not there.
    pub(crate) fpu_ensure: u64,
    /// The common exit.
    pub(crate) exit: u64,
    /// The shared lookup of the target in R8.
    pub(crate) lookup: u64,
    /// IF, as EFLAGS has it.
    pub(crate) interrupt_flag: u32,
    /// Not zero while an interrupt waits.
    pub(crate) pending: u32,
    /// The flags of EFLAGS that are neither arithmetic nor IF nor DF, and the fixed one.
    pub(crate) system_flags: u32,
    pub(crate) exit_eip: u32,
    /// For [`Exit::Miss`]: the linear address.
    pub(crate) soft_address: u32,
    /// For [`Exit::Step`]: EIP behind the instruction.
    pub(crate) exit_next: u32,
    pub(crate) reason: u32,
    /// Whether the guest's floating-point state is in the host's registers.
    pub(crate) fpu_live: u32,
    /// Whether the last exit stored it.
    pub(crate) fpu_stored: u32,
    pub(crate) resume: u64,
    /// For exits to the emulator: a host address that belongs to the guest instruction alone,
    /// or 0 if its bytes may change unseen.
    pub(crate) place: u64,
    /// The stack of return addresses.
    pub(crate) stack: u64,
    pub(crate) host_stack: u64,
    pub(crate) window: u64,
    pub(crate) fx: u64,
    /// The machine, for the functions that translated code calls …
    pub(crate) machine: u64,
    /// … their addresses, …
    pub(crate) functions: [u64; CALLS],
    /// … the stubs that call them, …
    pub(crate) calls: [u64; CALLS],
    /// … guest registers that they may change otherwise, …
    pub(crate) kept: [u32; 4],
    /// … and how many instructions they have executed.
    pub(crate) called: u64,
    /// The machine's CPU: what translated code does not keep in registers or here it finds there.
    pub(crate) cpu: u64,
    /// The arithmetic flags, as LAHF and SETO AL leave them in AX.
    pub(crate) flags: u32,
    /// DF, as EFLAGS has it.
    pub(crate) direction: u32,
    /// Bases of FS and GS.
    pub(crate) bases: [u32; 2],
    /// What the guest's time-stamp counter is ahead of the host's.
    pub(crate) time_stamp_offset: u64,
    /// CPUID's leaf 0 and every other one: EAX, ECX, EDX, EBX.
    pub(crate) cpuid: [[u32; 4]; 2],
    pub(crate) host_mxcsr: u32,
    /// EAX and the arithmetic flags, where a fault found them borrowed: R12 and R11.
    pub(crate) borrowed: [u64; 2],
    /// CS's selector if its descriptor is in the GDT, else no selector at all …
    pub(crate) code_selector: u32,
    /// … and what the descriptor was when it was loaded.
    pub(crate) code_descriptor: u64,
    /// Bits of CR4 whose change is the emulator's business.
    pub(crate) careful_control_4: u32,
    pub(crate) poll_byte: u32,
    pub(crate) fault: Fault,
    pub(crate) soft: [SoftTlb; 2],
    pub(crate) targets: [Target; TARGETS],
}

impl Context {
    pub(crate) fn new() -> Box<Context> {
        let layout = std::alloc::Layout::new::<Context>();
        // SAFETY: the layout is not empty.
        let context = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Context>();
        if context.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        // SAFETY: allocated with this type's layout, and all-zero bytes are a value of each field.
        let mut context = unsafe { Box::from_raw(context) };
        context.host_mxcsr = 0x1f80;
        context.functions = calls::functions();
        for soft in &mut context.soft {
            soft.clear();
        }
        context.forget_targets();
        context
    }

    /// Empties the table of targets.
    pub(crate) fn forget_targets(&mut self) {
        self.targets.fill(Target { key: NO_KEY, host: 0 });
    }

    /// The unit for an EIP, if the table of targets has it.
    pub(crate) fn target(&self, eip: u32, epoch: u32) -> Option<u64> {
        let target = &self.targets[eip as usize % TARGETS];
        (target.key == key(eip, epoch)).then_some(target.host)
    }

    /// Enters a unit into the table of targets.
    pub(crate) fn set_target(&mut self, eip: u32, epoch: u32, host: u64) {
        self.targets[eip as usize % TARGETS] = Target { key: key(eip, epoch), host };
    }

    /// Takes an EIP out of the table of targets, whatever its epoch.
    pub(crate) fn forget_target(&mut self, eip: u32) {
        self.targets[eip as usize % TARGETS].key = NO_KEY;
    }

    /// Whether a kick has come.
    pub(crate) fn is_kicked(&self) -> bool {
        // SAFETY: a plain read of a field that a signal handler on this thread may write.
        unsafe { (&raw const self.poll).read_volatile() >> 56 != 0 }
    }

    /// Makes ready for the next kick.
    pub(crate) fn rearm(&mut self) {
        self.poll = (&raw const self.poll_byte) as u64;
    }

    /// Changes the epoch. A kick that came is not lost.
    pub(crate) fn set_epoch(&mut self, epoch: u32) {
        let value = u64::from(epoch) << 32;
        // SAFETY: a field of this value; volatile, for a handler on this thread may write it between
        // this and the next line.
        unsafe { (&raw mut self.epoch).write_volatile(value) };
        if self.is_kicked() {
            self.epoch = value | 1;
        }
    }

    /// Takes what CPUID shows.
    pub(crate) fn set_model(&mut self, model: CpuModel) {
        self.cpuid = [0, 1].map(|number| {
            let leaf = model.cpuid(number);
            [leaf.eax, leaf.ecx, leaf.edx, leaf.ebx]
        });
        // Beside it the mode depends on all of them, or the windows do.
        self.careful_control_4 = !(model.cr4_mask() & Cr4::TSD).bits();
    }

    /// Takes the state that translated code uses and does not find in the machine itself.
    #[inline]
    pub(crate) fn load(&mut self, m: &mut Machine) {
        self.load_flags(m);
        let cpu = &mut m.cpu;
        self.fx = (&raw mut cpu.fpu.area) as u64;
        self.bases[0] = cpu.segment(SegmentRegister::Fs).base;
        self.bases[1] = cpu.segment(SegmentRegister::Gs).base;
        self.load_code_segment(cpu);
        self.time_stamp_offset = m.host_tsc_offset().unwrap_or(0);
    }

    /// Takes what far transfers compare: a flat CS's descriptor.
    fn load_code_segment(&mut self, cpu: &Cpu) {
        const FLAT: u64 = 0x000f_0000_0000_ffff;
        const LOCAL: u16 = 4;
        const NO_SELECTOR: u32 = 0x1_0000;
        let code = cpu.segment(SegmentRegister::Cs);
        let is_global = code.selector & LOCAL == 0;
        self.code_selector = if is_global { u32::from(code.selector) } else { NO_SELECTOR };
        self.code_descriptor = u64::from(code.attributes() & 0xf0ff) << 40 | FLAT;
    }

    /// The part of that which any instruction may change.
    #[inline]
    pub(crate) fn load_flags(&mut self, m: &Machine) {
        self.flags = u32::from(m.cpu.flags.host());
        let system = m.cpu.flags.system();
        self.interrupt_flag = system & Eflags::IF.bits();
        self.direction = system & Eflags::DF.bits();
        // RF is gone with the first instruction, and nothing looks at it before.
        let elsewhere = Eflags::IF | Eflags::DF | Eflags::RF;
        self.system_flags = system & !elsewhere.bits() | Eflags::FIXED.bits();
        self.pending = u32::from(m.interrupt_requested());
    }

    /// Gives the machine EAX and the arithmetic flags that were borrowed when a fault came.
    pub(crate) fn give_back(&self, m: &mut Machine) {
        m.cpu.registers[register::EAX] = self.borrowed[0] as u32;
        m.cpu.flags.set_host(self.borrowed[1] as u16);
    }

    /// Gives the machine the flags. Translated code has changed all else in the machine itself, but
    /// EIP.
    #[inline]
    pub(crate) fn store(&self, m: &mut Machine) {
        m.cpu.flags.set_host(self.flags as u16);
        m.cpu.flags.set_system(self.interrupt_flag | self.direction | self.system_flags);
    }
}

/// Offsets from R13.
pub(crate) mod at {
    use super::{Context, SoftTlb, offset_of};

    macro_rules! offsets {
        ($($name:ident = $field:ident,)*) => {
            $(pub(crate) const $name: i32 = offset_of!(Context, $field) as i32;)*
        };
    }

    offsets! {
        POLL = poll,
        EPOCH = epoch,
        FPU_ENSURE = fpu_ensure,
        EXIT = exit,
        LOOKUP = lookup,
        INTERRUPT_FLAG = interrupt_flag,
        PENDING = pending,
        SYSTEM_FLAGS = system_flags,
        EXIT_EIP = exit_eip,
        EXIT_NEXT = exit_next,
        SOFT_ADDRESS = soft_address,
        REASON = reason,
        FPU_LIVE = fpu_live,
        FPU_STORED = fpu_stored,
        RESUME = resume,
        PLACE = place,
        STACK = stack,
        HOST_STACK = host_stack,
        WINDOW = window,
        FX = fx,
        FUNCTIONS = functions,
        CALLS = calls,
        KEPT = kept,
        CPU = cpu,
        FLAGS = flags,
        DIRECTION = direction,
        BASES = bases,
        TIME_STAMP_OFFSET = time_stamp_offset,
        CPUID = cpuid,
        HOST_MXCSR = host_mxcsr,
        BORROWED = borrowed,
        CODE_SELECTOR = code_selector,
        CODE_DESCRIPTOR = code_descriptor,
        CAREFUL_CONTROL_4 = careful_control_4,
        TARGETS = targets,
        SOFT = soft,
    }

    /// The base of FS (4) or GS (5).
    pub(crate) const fn base(segment: usize) -> i32 {
        BASES + 4 * (segment as i32 - 4)
    }

    /// The tags of a software TLB.
    pub(crate) const fn soft_tags(user: bool, write: bool) -> i32 {
        let field = if write { offset_of!(SoftTlb, write) } else { offset_of!(SoftTlb, read) };
        SOFT + (user as i32) * size_of::<SoftTlb>() as i32 + field as i32
    }

    /// Its addends.
    pub(crate) const fn soft_addends(user: bool) -> i32 {
        SOFT + (user as i32) * size_of::<SoftTlb>() as i32 + offset_of!(SoftTlb, addend) as i32
    }
}

/// Offsets in the machine's CPU.
pub(crate) mod cpu {
    use machine::cpu::{Cpu, Segment, TableRegister};
    use std::mem::offset_of;

    pub(crate) const REGISTERS: i32 = offset_of!(Cpu, registers) as i32;
    pub(crate) const LDTR_SELECTOR: i32 =
        (offset_of!(Cpu, ldtr) + offset_of!(Segment, selector)) as i32;
    pub(crate) const TR_SELECTOR: i32 =
        (offset_of!(Cpu, tr) + offset_of!(Segment, selector)) as i32;
    pub(crate) const GDTR: i32 = offset_of!(Cpu, gdtr) as i32;
    pub(crate) const IDTR: i32 = offset_of!(Cpu, idtr) as i32;
    /// In one of these two.
    pub(crate) const BASE: i32 = offset_of!(TableRegister, base) as i32;
    pub(crate) const LIMIT: i32 = offset_of!(TableRegister, limit) as i32;

    /// The selector of a segment register.
    pub(crate) const fn selector(segment: usize) -> i32 {
        (offset_of!(Cpu, segments) + segment * size_of::<Segment>() + offset_of!(Segment, selector))
            as i32
    }

    /// A control register.
    pub(crate) const fn control(number: usize) -> i32 {
        (match number {
            0 => offset_of!(Cpu, cr0),
            2 => offset_of!(Cpu, cr2),
            3 => offset_of!(Cpu, cr3),
            _ => offset_of!(Cpu, cr4),
        }) as i32
    }
}

/// GS's base.
pub(crate) fn gs_base() -> u64 {
    let base: u64;
    // SAFETY: reads a register; the strategy has found that the instruction is allowed (FSGSBASE).
    unsafe {
        core::arch::asm!(
            "rdgsbase {base}",
            base = out(reg) base,
            options(nomem, nostack, preserves_flags)
        );
    }
    base
}

/// Sets GS's base.
#[inline]
pub(crate) fn set_gs_base(base: u64) {
    // SAFETY: nothing in a Linux process uses GS on x86-64, and the strategy has found that the
    // instruction is allowed (FSGSBASE).
    unsafe {
        core::arch::asm!(
            "wrgsbase {base}",
            base = in(reg) base,
            options(nomem, nostack, preserves_flags)
        );
    }
}
