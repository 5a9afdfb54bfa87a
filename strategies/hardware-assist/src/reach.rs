//! How much of IA-32 this host's KVM really runs.
//!
//! KVM with hardware behind it runs all of it. A KVM that works in software need not: `kvm_pvm`,
//! made for 64-bit guests, refuses 32-bit paging, raises #UD for what it cannot emulate outside of
//! ring 0, shows the host's features in CPUID, and tells nobody. Small guests find that out, once
//! in a process; what is out of reach is left to the emulator.

use crate::vcpu::Exit;
use crate::vm::Vm;
use crate::{cpuid, state};
use host::kick::Kick;
use machine::cpu::{Cr0, Dr7, Segment, TableRegister, access, register};
use machine::{Cpu, Machine, MachineConfig, PhysicalAddress};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use strategy::Error;

/// What this host's KVM runs as IA-32 says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    /// Paging without long mode.
    pub(crate) paging: bool,
    /// Privilege levels other than 0, virtual-8086 mode among them.
    pub(crate) user_mode: bool,
    /// CPUID as it was set.
    pub(crate) cpuid: bool,
}

impl Reach {
    /// Finds out, at the first call in this process.
    pub(crate) fn of_this_host() -> Result<Reach, Error> {
        static REACH: OnceLock<Reach> = OnceLock::new();
        if let Some(&reach) = REACH.get() {
            return Ok(reach);
        }
        let reach = Reach {
            paging: keeps_paging_on()?,
            user_mode: delivers_from_ring_3()?,
            cpuid: shows_the_model()?,
        };
        if !reach.is_whole() {
            tracing::warn!(
                ?reach,
                "this KVM does not run all of IA-32: the emulator does the rest"
            );
        }
        Ok(*REACH.get_or_init(|| reach))
    }

    /// Whether KVM can be believed in everything.
    pub(crate) fn is_whole(self) -> bool {
        self.paging && self.user_mode && self.cpuid
    }

    /// Whether instructions that KVM gets wrong have to be caught, see `breakpoints`.
    pub(crate) fn needs_breakpoints(self) -> bool {
        !self.paging || !self.cpuid
    }

    /// Whether KVM runs a guest in this state.
    pub(crate) fn runs(self, cpu: &Cpu) -> bool {
        // A debug trap that is put off has no place in KVM: the emulator raises it.
        cpu.pending_debug == 0
            && (self.user_mode || cpu.cpl == 0)
            && (self.paging || !cpu.paging())
            // The debug registers cannot serve the monitor and the guest at once.
            && (!self.needs_breakpoints() || cpu.debug[7] & Dr7::ENABLED == 0)
    }
}

const CODE: u32 = 0x1000;
const IDT: u32 = 0x2000;
const TSS: u32 = 0x3000;
const GDT: u32 = 0x4000;
const HANDLER: u32 = 0x5000;
const STACK: u32 = 0x8000;
const VECTOR: u32 = 0x41;

/// A machine in flat protected mode with the given code, and nothing else set up.
fn probe(code: &[u8], dpl: u8) -> Result<Machine, Error> {
    let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config).map_err(|error| Error::Host {
        what: "memory for a probe of KVM",
        source: std::io::Error::other(error),
    })?;
    machine.memory.write(PhysicalAddress(CODE.into()), code);
    let cpu = &mut machine.cpu;
    cpu.cr0 |= Cr0::PE;
    cpu.cpl = dpl;
    let rpl = u16::from(dpl);
    cpu.segments = [Segment::flat(0x20 | rpl, false, dpl); 6];
    cpu.segments[1] = Segment::flat(0x18 | rpl, true, dpl);
    cpu.eip = CODE;
    cpu.registers[register::ESP] = STACK;
    Ok(machine)
}

/// Whether CR0.PG stays set where EFER.LME is clear.
fn keeps_paging_on() -> Result<bool, Error> {
    let mut machine = probe(&[], 0)?;
    machine.cpu.cr0 |= Cr0::PG;
    machine.cpu.cr3 = 0x6000;
    let vm = Vm::new(&machine)?;
    if state::put(&vm.vcpu, &machine).is_err() {
        return Ok(false);
    }
    state::take(&vm.vcpu, &mut machine)?;
    Ok(machine.cpu.paging())
}

/// Whether the guest's CPUID is the model's.
fn shows_the_model() -> Result<bool, Error> {
    let machine = probe(&[], 0)?;
    let vm = Vm::new(&machine)?;
    // The state says that there is no APIC, and KVM shows that bit accordingly.
    state::put(&vm.vcpu, &machine)?;
    cpuid::shows(vm.vcpu.fd(), machine.cpu.model)
}

/// Whether INT n in ring 3 arrives at its handler in ring 0.
fn delivers_from_ring_3() -> Result<bool, Error> {
    let mut machine = probe(&[0xcd, VECTOR as u8], 3)?;
    let descriptors = [0u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    for (at, descriptor) in (u64::from(GDT)..).step_by(8).zip(descriptors) {
        machine.memory.write(PhysicalAddress(at), &descriptor.to_le_bytes());
    }
    // A present 32-bit interrupt gate with DPL 3 to 8:HANDLER.
    let gate = u64::from(HANDLER) | 8 << 16 | 0xee00 << 32;
    machine.memory.write(PhysicalAddress(u64::from(IDT + 8 * VECTOR)), &gate.to_le_bytes());
    // ESP0 and SS0.
    machine.memory.write(PhysicalAddress(u64::from(TSS) + 4), &STACK.to_le_bytes());
    machine.memory.write(PhysicalAddress(u64::from(TSS) + 8), &[0x10, 0, 0, 0]);
    machine.memory.write(PhysicalAddress(HANDLER.into()), &[0xf4]);
    machine.cpu.gdtr = TableRegister { base: GDT, limit: 0x17 };
    machine.cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
    machine.cpu.tr = Segment::system(0x28, TSS, 0x67, access::TSS32_BUSY);

    let mut vm = Vm::new(&machine)?;
    state::put(&vm.vcpu, &machine)?;
    let exit = run_briefly(&mut vm)?;
    state::take(&vm.vcpu, &mut machine)?;
    Ok(exit == Exit::Halt && machine.cpu.eip == HANDLER + 1)
}

/// Runs a guest that should stop at once, for a moment at most.
fn run_briefly(vm: &mut Vm) -> Result<Exit, Error> {
    // SAFETY: the byte belongs to the vCPU, which outlives the kick.
    let kick = unsafe { Kick::new(vm.vcpu.immediate_exit()) };
    let mut kick = kick.map_err(|source| Error::Host { what: "a timer for KVM_RUN", source })?;
    let now = Instant::now();
    kick.arm(now, now + Duration::from_millis(100));
    vm.vcpu.run()
}
