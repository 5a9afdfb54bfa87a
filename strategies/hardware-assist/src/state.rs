//! The whole architectural state: from the machine into the vCPU and back.
//!
//! What is on its way in the vCPU (an exception or interrupt that KVM has begun to deliver) has no
//! place in the machine: `run` takes the state out only when there is nothing of the kind.

use crate::error::refused;
use crate::segments;
use crate::vcpu::Vcpu;
use kvm_bindings::{
    KVM_SREGS2_FLAGS_PDPTRS_VALID, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_MOV_SS,
    KVM_X86_SHADOW_INT_STI, Msrs, kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs2,
    kvm_vcpu_events, kvm_xsave,
};
use machine::clock::ClockSource;
use machine::cpu::{
    Cr0, Cr4, Eflags, InterruptShadow, MXCSR, Segment, SegmentRegister, XMM0, register,
};
use machine::{Cpu, Machine, PhysicalAddress};
use strategy::Error;

/// The APIC, globally disabled: no CPU model announces one (Intel SDM volume 3, 11.4.3).
const APIC_BASE: u64 = 0xfee0_0100;

/// MXCSR's defined bits; KVM refuses others (Intel SDM volume 1, 10.2.3).
const MXCSR_BITS: u32 = 0xffff;

/// Model-specific registers that are moved (Intel SDM volume 4, table 2-2).
mod msr {
    pub(super) const TSC: u32 = 0x10;
    pub(super) const BIOS_SIGN_ID: u32 = 0x8b;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const PAT: u32 = 0x277;
}

/// A guest that finds its time-stamp counter this far from the machine's clock has written it.
/// Setting the vCPU's counter is never exact: the host may take the CPU away in between.
const TSC_TOLERANCE: u64 = 1 << 23;

/// Puts the machine's state into the vCPU.
pub(crate) fn put(vcpu: &Vcpu, machine: &Machine) -> Result<(), Error> {
    let cpu = &machine.cpu;
    // Control registers first: they decide how KVM understands flags and segments.
    let system = system_to_kvm(cpu);
    if cpu.paging() {
        // KVM flushes the guest's TLB only when a control register changes, and somebody else may
        // have executed an INVLPG since. A CR3 that is never used makes the real one a change.
        vcpu.set_system_registers(&kvm_sregs2 { cr3: system.cr3 ^ 0x1000, ..system })?;
    }
    vcpu.set_system_registers(&system)?;
    let fd = vcpu.fd();
    fd.set_regs(&general_to_kvm(cpu)).map_err(refused("KVM_SET_REGS"))?;
    let xsave = floating_point_to_kvm(cpu);
    // SAFETY: KVM reads more than the 4 KiB of the structure only where features beyond AVX-512
    // have been enabled for guests with arch_prctl, which this process does not do.
    unsafe { fd.set_xsave(&xsave) }.map_err(refused("KVM_SET_XSAVE"))?;
    fd.set_debug_regs(&debug_to_kvm(cpu)).map_err(refused("KVM_SET_DEBUGREGS"))?;
    fd.set_vcpu_events(&events_to_kvm(cpu)).map_err(refused("KVM_SET_VCPU_EVENTS"))?;
    put_msrs(vcpu, machine)
}

/// Takes the vCPU's state into the machine. `halted` is not KVM's and stays.
pub(crate) fn take(vcpu: &Vcpu, machine: &mut Machine) -> Result<(), Error> {
    let fd = vcpu.fd();
    let general = fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
    general_from_kvm(&mut machine.cpu, &general);
    let system = vcpu.system_registers()?;
    system_from_kvm(machine, &system);
    let xsave = fd.get_xsave().map_err(refused("KVM_GET_XSAVE"))?;
    floating_point_from_kvm(&mut machine.cpu, &xsave);
    let debug = fd.get_debug_regs().map_err(refused("KVM_GET_DEBUGREGS"))?;
    debug_from_kvm(&mut machine.cpu, &debug);
    let events = fd.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?;
    machine.cpu.interrupt_shadow = shadow_from_kvm(events.interrupt.shadow);
    take_msrs(vcpu, machine)
}

fn general_to_kvm(cpu: &Cpu) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi] = cpu.registers.map(u64::from);
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        rip: cpu.eip.into(),
        rflags: cpu.flags.bits().into(),
        ..Default::default()
    }
}

fn general_from_kvm(cpu: &mut Cpu, regs: &kvm_regs) {
    for (index, value) in [
        (register::EAX, regs.rax),
        (register::ECX, regs.rcx),
        (register::EDX, regs.rdx),
        (register::EBX, regs.rbx),
        (register::ESP, regs.rsp),
        (register::EBP, regs.rbp),
        (register::ESI, regs.rsi),
        (register::EDI, regs.rdi),
    ] {
        cpu.registers[index] = value as u32;
    }
    cpu.eip = regs.rip as u32;
    cpu.flags.set_bits(regs.rflags as u32);
}

/// Whether the PDPTEs are part of the state.
fn pae_paging(cpu: &Cpu) -> bool {
    cpu.paging() && cpu.cr4.contains(Cr4::PAE)
}

fn system_to_kvm(cpu: &Cpu) -> kvm_sregs2 {
    let segment = |register| segment_to_kvm(cpu, register);
    kvm_sregs2 {
        cs: segment(SegmentRegister::Cs),
        ds: segment(SegmentRegister::Ds),
        es: segment(SegmentRegister::Es),
        fs: segment(SegmentRegister::Fs),
        gs: segment(SegmentRegister::Gs),
        ss: segment(SegmentRegister::Ss),
        tr: segments::task_register_to_kvm(&cpu.tr),
        ldt: segments::to_kvm(&cpu.ldtr),
        gdt: segments::table_to_kvm(&cpu.gdtr),
        idt: segments::table_to_kvm(&cpu.idtr),
        cr0: cpu.cr0.bits().into(),
        cr2: cpu.cr2.into(),
        cr3: cpu.cr3.into(),
        cr4: cpu.cr4.bits().into(),
        cr8: 0,
        efer: 0,
        apic_base: APIC_BASE,
        flags: if pae_paging(cpu) { KVM_SREGS2_FLAGS_PDPTRS_VALID.into() } else { 0 },
        pdptrs: cpu.pdptes,
    }
}

fn segment_to_kvm(cpu: &Cpu, register: SegmentRegister) -> kvm_segment {
    let segment = cpu.segment(register);
    if cpu.in_virtual_8086_mode() {
        return segments::virtual_8086_to_kvm(segment);
    }
    let mut kvm = segments::to_kvm(segment);
    if register == SegmentRegister::Ss {
        // Where KVM keeps the CPL, even with an unusable SS.
        kvm.dpl = cpu.cpl;
    }
    kvm
}

fn system_from_kvm(machine: &mut Machine, sregs: &kvm_sregs2) {
    let cpu = &mut machine.cpu;
    for (register, segment) in [
        (SegmentRegister::Es, &sregs.es),
        (SegmentRegister::Cs, &sregs.cs),
        (SegmentRegister::Ss, &sregs.ss),
        (SegmentRegister::Ds, &sregs.ds),
        (SegmentRegister::Fs, &sregs.fs),
        (SegmentRegister::Gs, &sregs.gs),
    ] {
        *cpu.segment_mut(register) = if cpu.flags.contains(Eflags::VM) {
            Segment::real_mode(segment.selector)
        } else {
            segments::from_kvm(segment)
        };
    }
    cpu.tr = segments::task_register_from_kvm(&sregs.tr);
    cpu.ldtr = segments::from_kvm(&sregs.ldt);
    cpu.gdtr = segments::table_from_kvm(&sregs.gdt);
    cpu.idtr = segments::table_from_kvm(&sregs.idt);
    cpu.cr0 = Cr0::from_bits_truncate(sregs.cr0 as u32);
    cpu.cr2 = sregs.cr2 as u32;
    cpu.cr3 = sregs.cr3 as u32;
    cpu.cr4 = Cr4::from_bits_truncate(sregs.cr4 as u32);
    cpu.cpl = match (cpu.cr0.contains(Cr0::PE), cpu.in_virtual_8086_mode()) {
        (false, _) => 0,
        (true, true) => 3,
        (true, false) => sregs.ss.dpl & 3,
    };
    if pae_paging(cpu) {
        machine.cpu.pdptes = pdptes_from_kvm(machine, sregs);
    }
}

/// The PDPTEs, from memory where KVM does not tell them: right as long as the guest has not
/// written them since it loaded CR3.
fn pdptes_from_kvm(machine: &Machine, sregs: &kvm_sregs2) -> [u64; 4] {
    if sregs.flags & u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0 {
        return sregs.pdptrs;
    }
    let table = u64::from(machine.cpu.cr3 & !31);
    [0, 8, 16, 24].map(|offset| machine.memory.read_u64(PhysicalAddress(table + offset)))
}

/// The parts of the XSAVE area's legacy region that are state: x87 registers and control words up
/// to the last operand's address, MXCSR, the registers, and XMM0 to XMM7
/// (Intel SDM volume 1, 10.5.1).
const FLOATING_POINT_PARTS: [std::ops::Range<usize>; 3] = [0..MXCSR, 32..XMM0, XMM0..XMM0 + 128];

/// The XSAVE header's bit map of valid components, in doublewords (Intel SDM volume 1, 13.4.2).
const XSTATE_BV: usize = 512 / 4;
const X87_AND_SSE: u32 = 3;

fn floating_point_to_kvm(cpu: &Cpu) -> kvm_xsave {
    let mut area = [0; 512];
    for part in FLOATING_POINT_PARTS {
        area[part.clone()].copy_from_slice(&cpu.fpu.area.0[part]);
    }
    let mxcsr = cpu.fpu.mxcsr() & MXCSR_BITS;
    area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    let mut xsave = kvm_xsave::default();
    for (word, bytes) in xsave.region.iter_mut().zip(area.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    }
    xsave.region[XSTATE_BV] = X87_AND_SSE;
    xsave
}

fn floating_point_from_kvm(cpu: &mut Cpu, xsave: &kvm_xsave) {
    let mut area = [0; 512];
    for (bytes, word) in area.chunks_exact_mut(4).zip(&xsave.region) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    for part in FLOATING_POINT_PARTS {
        cpu.fpu.area.0[part.clone()].copy_from_slice(&area[part]);
    }
    cpu.fpu.set_mxcsr(xsave.region[MXCSR / 4]);
    cpu.fpu.resident = false;
}

fn debug_to_kvm(cpu: &Cpu) -> kvm_debugregs {
    let [db0, db1, db2, db3, _, _, dr6, dr7] = cpu.debug.map(u64::from);
    kvm_debugregs { db: [db0, db1, db2, db3], dr6, dr7, ..Default::default() }
}

fn debug_from_kvm(cpu: &mut Cpu, debug: &kvm_debugregs) {
    for (register, value) in cpu.debug.iter_mut().zip(debug.db) {
        *register = value as u32;
    }
    cpu.debug[6] = debug.dr6 as u32;
    cpu.debug[7] = debug.dr7 as u32;
}

fn events_to_kvm(cpu: &Cpu) -> kvm_vcpu_events {
    let shadow = match cpu.interrupt_shadow {
        InterruptShadow::None => 0,
        InterruptShadow::Sti => KVM_X86_SHADOW_INT_STI,
        InterruptShadow::MovSs => KVM_X86_SHADOW_INT_MOV_SS,
    };
    let mut events = kvm_vcpu_events { flags: KVM_VCPUEVENT_VALID_SHADOW, ..Default::default() };
    // The entry check refuses an STI shadow without IF (Intel SDM volume 3, 27.3.1.5).
    if shadow != KVM_X86_SHADOW_INT_STI || cpu.flags.contains(Eflags::IF) {
        events.interrupt.shadow = shadow as u8;
    }
    events
}

/// AMD's CPUs have one shadow for both; STI is the common cause.
fn shadow_from_kvm(shadow: u8) -> InterruptShadow {
    if u32::from(shadow) & KVM_X86_SHADOW_INT_STI != 0 {
        InterruptShadow::Sti
    } else if u32::from(shadow) & KVM_X86_SHADOW_INT_MOV_SS != 0 {
        InterruptShadow::MovSs
    } else {
        InterruptShadow::None
    }
}

fn put_msrs(vcpu: &Vcpu, machine: &Machine) -> Result<(), Error> {
    let msrs = &machine.cpu.msrs;
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [
        entry(msr::SYSENTER_CS, msrs.sysenter[0].into()),
        entry(msr::SYSENTER_ESP, msrs.sysenter[1].into()),
        entry(msr::SYSENTER_EIP, msrs.sysenter[2].into()),
        entry(msr::PAT, msrs.pat),
        entry(msr::MISC_ENABLE, msrs.misc_enable),
        entry(msr::BIOS_SIGN_ID, msrs.bios_sign_id),
        entry(msr::TSC, machine.clock().tsc()),
    ];
    let list = Msrs::from_entries(&entries).expect("few entries");
    let done = vcpu.fd().set_msrs(&list).map_err(refused("KVM_SET_MSRS"))?;
    match entries.get(done) {
        None => Ok(()),
        Some(entry) => Err(Error::Hypervisor {
            what: format!("KVM refused {:#x} for MSR {:#x}", entry.data, entry.index),
            address: machine.cpu.instruction_address(),
        }),
    }
}

fn take_msrs(vcpu: &Vcpu, machine: &mut Machine) -> Result<(), Error> {
    let indices = [
        msr::SYSENTER_CS,
        msr::SYSENTER_ESP,
        msr::SYSENTER_EIP,
        msr::PAT,
        msr::MISC_ENABLE,
        msr::BIOS_SIGN_ID,
        msr::TSC,
    ];
    let entries = indices.map(|index| kvm_msr_entry { index, ..Default::default() });
    let mut list = Msrs::from_entries(&entries).expect("few entries");
    let done = vcpu.fd().get_msrs(&mut list).map_err(refused("KVM_GET_MSRS"))?;
    let [cs, esp, eip, pat, misc_enable, bios_sign_id, tsc]: [kvm_msr_entry; 7] =
        list.as_slice().try_into().expect("as many entries as were put in");
    if done != indices.len() {
        return Err(Error::Hypervisor {
            what: format!("KVM did not tell MSR {:#x}", indices[done]),
            address: machine.cpu.instruction_address(),
        });
    }
    let msrs = &mut machine.cpu.msrs;
    msrs.sysenter = [cs.data as u32, esp.data as u32, eip.data as u32];
    msrs.pat = pat.data;
    msrs.misc_enable = misc_enable.data;
    msrs.bios_sign_id = bios_sign_id.data;
    take_time_stamp(machine, tsc.data);
    Ok(())
}

/// Sets the machine's clock after a guest that wrote its time-stamp counter, and under a KVM that
/// shows guests the host's counter whatever was put in: that guests see one counter under all
/// strategies matters more than which. A virtual clock's counter follows that clock alone.
fn take_time_stamp(machine: &Machine, tsc: u64) {
    let clock = machine.clock();
    let off = tsc.wrapping_sub(clock.tsc()) as i64;
    if clock.source() == ClockSource::Host && off.unsigned_abs() > TSC_TOLERANCE {
        clock.set_tsc(tsc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::Reach;
    use crate::support;
    use crate::vm::Vm;
    use machine::MachineConfig;
    use machine::cpu::{TableRegister, access};

    /// A machine of one MiB, and a virtual machine for it; none where there is no KVM.
    fn machine_and_vm() -> Option<(Machine, Vm)> {
        if let strategy::Support::Missing(reason) = support() {
            println!("not tested, for want of KVM: {reason}");
            return None;
        }
        let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
        let machine = Machine::new(&config).unwrap();
        let vm = Vm::new(&machine).unwrap();
        Some((machine, vm))
    }

    /// Puts the state in, spoils the machine's, takes it out, and compares.
    fn check_round_trip(machine: &mut Machine, vm: &Vm) {
        let before = machine.cpu.clone();
        put(&vm.vcpu, machine).unwrap();
        machine.cpu = Cpu::new(before.model);
        for part in FLOATING_POINT_PARTS {
            machine.cpu.fpu.area.0[part].fill(0xee);
        }
        machine.cpu.halted = before.halted;
        take(&vm.vcpu, machine).unwrap();
        let [before, after] = [&before, &machine.cpu].map(|cpu| format!("{cpu:#?}"));
        let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(b, a)| b != a).collect();
        assert!(changed.is_empty(), "{changed:#?}");
    }

    fn fill_registers(cpu: &mut Cpu) {
        cpu.registers = [1, 0x8000_0002, 3, 4, 5, 6, 7, u32::MAX];
        cpu.eip = 0xffff_fff0;
        cpu.flags.set_bits(0x0024_0ad7);
        cpu.cr2 = 0xdead_b000;
        cpu.debug = [0x10, 0x20, 0x30, 0xffff_fff0, 0, 0, 0xffff_0ff1, 0x700];
        cpu.msrs.sysenter = [8, 0x1000, 0xc000_0000];
        cpu.msrs.pat = 0x0007_0406_0007_0106;
        for (index, byte) in cpu.fpu.area.0[32..288].iter_mut().enumerate() {
            // Ten bytes a register: above them the area is reserved.
            *byte = if index < 128 && index % 16 >= 10 { 0 } else { index as u8 };
        }
        cpu.fpu.area.0[..24].copy_from_slice(&[
            0x7f, 0x02, 0x00, 0x38, 0xff, 0, 0x11, 0x02, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0x21,
            0x43, 0x65, 0x07, 0, 0, 0, 0,
        ]);
        cpu.fpu.set_mxcsr(0x1fbf);
    }

    fn protect(cpu: &mut Cpu, dpl: u8) {
        let rpl = u16::from(dpl);
        cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP;
        cpu.cpl = dpl;
        cpu.segments = [Segment::flat(0x20 | rpl, false, dpl); 6];
        *cpu.segment_mut(SegmentRegister::Cs) = Segment::flat(0x18 | rpl, true, dpl);
        *cpu.segment_mut(SegmentRegister::Fs) = Segment::null(0);
        let small = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE | access::ACCESSED;
        *cpu.segment_mut(SegmentRegister::Gs) =
            Segment::new(0x33, 0x1234_5000, 0x7ff, small | 3 << 5);
        cpu.gdtr = TableRegister { base: 0x8000_1000, limit: 0x7f };
        cpu.idtr = TableRegister { base: 0x8000_2000, limit: 0x3ff };
        cpu.ldtr = Segment::system(0x28, 0x9000, 0xff, access::LDT);
        cpu.tr = Segment::system(0x30, 0xa000, 0x67, access::TSS32_BUSY);
    }

    #[test]
    fn the_state_after_reset_survives_the_round_trip() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        check_round_trip(&mut machine, &vm);
    }

    #[test]
    fn real_mode_state_survives_the_round_trip() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        fill_registers(&mut machine.cpu);
        machine.cpu.eip = 0x1234;
        check_round_trip(&mut machine, &vm);
    }

    #[test]
    fn protected_mode_state_survives_the_round_trip() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        for dpl in [0, 3] {
            fill_registers(&mut machine.cpu);
            protect(&mut machine.cpu, dpl);
            machine.cpu.cr4 = Cr4::PSE | Cr4::OSFXSR;
            check_round_trip(&mut machine, &vm);
        }
    }

    #[test]
    fn virtual_8086_state_survives_the_round_trip() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        if !Reach::of_this_host().unwrap().user_mode {
            println!("not tested: this KVM has no virtual-8086 mode");
            return;
        }
        fill_registers(&mut machine.cpu);
        protect(&mut machine.cpu, 0);
        let cpu = &mut machine.cpu;
        cpu.flags.set(Eflags::VM, true);
        cpu.cpl = 3;
        cpu.eip = 0x100;
        cpu.segments = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60].map(Segment::real_mode);
        check_round_trip(&mut machine, &vm);
    }

    #[test]
    fn paging_state_survives_the_round_trip_where_kvm_has_paging() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        if !Reach::of_this_host().unwrap().paging {
            println!("not tested: this KVM has no 32-bit paging");
            return;
        }
        fill_registers(&mut machine.cpu);
        protect(&mut machine.cpu, 0);
        let cpu = &mut machine.cpu;
        cpu.cr0 |= Cr0::PG;
        cpu.cr3 = 0x4000;
        cpu.cr4 = Cr4::PSE | Cr4::PGE;
        check_round_trip(&mut machine, &vm);
        machine.cpu.cr4 |= Cr4::PAE;
        machine.cpu.pdptes = [0x5001, 0x6001, 0, 0x7001];
        check_round_trip(&mut machine, &vm);
    }

    #[test]
    fn the_interrupt_shadow_survives_the_round_trip() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        machine.cpu.flags.set(Eflags::IF, true);
        machine.cpu.interrupt_shadow = InterruptShadow::Sti;
        check_round_trip(&mut machine, &vm);
    }

    #[test]
    fn the_time_stamp_counter_and_the_machines_clock_agree() {
        let Some((mut machine, vm)) = machine_and_vm() else { return };
        machine.clock().set_tsc(1 << 50);
        put(&vm.vcpu, &machine).unwrap();
        take(&vm.vcpu, &mut machine).unwrap();
        let entry = kvm_msr_entry { index: msr::TSC, ..Default::default() };
        let mut list = Msrs::from_entries(&[entry]).unwrap();
        vm.vcpu.fd().get_msrs(&mut list).unwrap();
        let apart = machine.clock().tsc().wrapping_sub(list.as_slice()[0].data) as i64;
        assert!(apart.unsigned_abs() < TSC_TOLERANCE, "{apart:#x}");
    }
}
