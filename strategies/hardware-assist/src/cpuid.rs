//! The CPUID that the guest sees: the machine's CPU model and nothing else.

use crate::error::refused;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;
use machine::cpu::CpuModel;
use strategy::Error;

/// Announces leaves 0 and 1 and nothing else: no hypervisor leaf and no extended ones. With an
/// Intel vendor string KVM answers what lies above with the highest leaf, as Intel's CPUs do
/// (Intel SDM volume 2, CPUID) and as the model says.
pub(crate) fn announce(vcpu: &VcpuFd, model: CpuModel) -> Result<(), Error> {
    let cpuid = CpuId::from_entries(&entries(model)).expect("two entries are below KVM's limit");
    vcpu.set_cpuid2(&cpuid).map_err(refused("KVM_SET_CPUID2"))
}

/// Whether KVM kept what was announced. One that works in software may add to it.
pub(crate) fn shows(vcpu: &VcpuFd, model: CpuModel) -> Result<bool, Error> {
    let kept = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(refused("KVM_GET_CPUID2"))?;
    let registers = |entry: &kvm_cpuid_entry2| [entry.eax, entry.ebx, entry.ecx, entry.edx];
    let is_kept = |wanted: &kvm_cpuid_entry2| {
        let found = kept.as_slice().iter().find(|entry| entry.function == wanted.function);
        found.is_some_and(|found| registers(found) == registers(wanted))
    };
    Ok(entries(model).iter().all(is_kept))
}

fn entries(model: CpuModel) -> [kvm_cpuid_entry2; 2] {
    [0, 1].map(|function| {
        let leaf = model.cpuid(function);
        let (eax, ebx, ecx, edx) = (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx);
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    })
}
