//! One virtual machine in the kernel, for one [`Machine`].

use crate::error::refused;
use crate::vcpu::Vcpu;
use crate::{cpuid, memory};
use kvm_ioctls::{Cap, Kvm, VmFd};
use machine::Machine;
use machine::clock::ClockSource;
use machine::cpu::CpuModel;
use machine::signals::Signals;
use std::sync::Arc;
use strategy::Error;

/// Four pages that Intel CPUs without unrestricted guests need for real mode, one of them an
/// identity map. They lie above the largest RAM and below the largest sensible ROM.
const IDENTITY_MAP: u64 = 0xfeff_c000;
const TSS: usize = 0xfeff_d000;

/// A virtual machine with its one vCPU.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) vcpu: Vcpu,
    /// Kept open: KVM frees the machine with its last descriptor.
    _vm: VmFd,
    signals: Arc<Signals>,
    model: CpuModel,
    memory: *mut u8,
}

// SAFETY: `memory` is only compared, never dereferenced.
unsafe impl Send for Vm {}

/// Opens KVM.
pub(crate) fn open() -> Result<Kvm, Error> {
    Kvm::new().map_err(refused("/dev/kvm"))
}

impl Vm {
    /// A virtual machine of its own KVM.
    pub(crate) fn new(machine: &Machine) -> Result<Vm, Error> {
        Vm::of(&open()?, machine)
    }

    /// A virtual machine that shows `machine`'s memory and CPUID.
    pub(crate) fn of(kvm: &Kvm, machine: &Machine) -> Result<Vm, Error> {
        let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        if kvm.check_extension(Cap::SetTssAddr) {
            let refused = refused("KVM_SET_TSS_ADDR");
            vm.set_identity_map_address(IDENTITY_MAP).map_err(&refused)?;
            vm.set_tss_address(TSS).map_err(&refused)?;
        }
        memory::install(&vm, &machine.memory)?;
        let fd = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        cpuid::announce(&fd, machine.cpu.model)?;
        if machine.clock().source() == ClockSource::Virtual && kvm.check_extension(Cap::TscControl)
        {
            // The virtual clock counts nanoseconds, so its time-stamp counter runs at 1 GHz.
            fd.set_tsc_khz(1_000_000).map_err(refused("KVM_SET_TSC_KHZ"))?;
        }
        Ok(Vm {
            vcpu: Vcpu::new(fd, kvm, vm.run_size()),
            _vm: vm,
            signals: machine.signals().clone(),
            model: machine.cpu.model,
            memory: machine.memory.host_base(),
        })
    }

    /// Whether this was made for `machine`, as it is now. The signals are each machine's own, and
    /// holding them keeps another machine from getting the same address.
    pub(crate) fn belongs_to(&self, machine: &Machine) -> bool {
        Arc::ptr_eq(&self.signals, machine.signals())
            && self.model == machine.cpu.model
            && self.memory == machine.memory.host_base()
    }
}
