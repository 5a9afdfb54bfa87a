//! KVM's memory slots: the machine's own pages, where they already lie in this process.
//!
//! What is in no slot (the VGA hole, everything above RAM) ends in an MMIO exit, and so does a
//! write to a read-only slot.

use crate::error::refused;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use machine::memory::Memory;
use strategy::Error;

/// Shows all areas of `memory` to the guest.
pub(crate) fn install(vm: &VmFd, memory: &Memory) -> Result<(), Error> {
    for (slot, (start, length, _, writable)) in (0..).zip(memory.areas()) {
        let host = memory.host_page(start).expect("an area is RAM or ROM from its first byte on");
        let region = kvm_userspace_memory_region {
            slot,
            flags: if writable { 0 } else { KVM_MEM_READONLY },
            guest_phys_addr: start.0,
            memory_size: length,
            userspace_addr: host as u64,
        };
        // SAFETY: the areas lie within mappings that `memory` owns, each in one piece, and do not
        // overlap. The virtual machine runs only while the machine that owns `memory` is borrowed;
        // should the mapping go before it, KVM finds the pages gone and accesses nothing.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}
