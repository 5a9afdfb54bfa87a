//! The vCPU: KVM_RUN, what it ends with, and the accesses to the page shared with the kernel.
//!
//! With `state`, this is the whole of the crate's contact with KVM while a guest runs.

use crate::error::refused;
use kvm_bindings::{
    KVM_EXIT_IO_IN, KVM_INTERNAL_ERROR_EMULATION, KVMIO, kvm_interrupt, kvm_run, kvm_sregs,
    kvm_sregs2,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use machine::bus::Bus;
use machine::{PhysicalAddress, Vector};
use std::fmt;
use strategy::Error;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

// kvm-ioctls has no function for these three.
ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_SREGS2, KVMIO, 0xcd, kvm_sregs2);

/// Why KVM_RUN returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// IN, OUT, INS, OUTS: see [`Vcpu::do_port_io`].
    PortIo,
    /// An access where no memory is: see [`Vcpu::do_mmio`].
    Mmio,
    /// HLT.
    Halt,
    /// The guest can take an interrupt, as was asked for.
    InterruptWindow,
    /// A breakpoint of the monitor's, before its instruction.
    Breakpoint,
    /// A triple fault.
    Shutdown,
    /// A signal, or the immediate exit that was asked for.
    Interrupted,
    /// KVM cannot go on by itself.
    GaveUp(Reason),
}

/// What KVM cannot go on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// KVM_EXIT_INTERNAL_ERROR with its suberror.
    Internal(u32),
    /// KVM_EXIT_FAIL_ENTRY with the hardware's reason.
    FailedEntry(u64),
    /// Another KVM_EXIT_ number.
    Unexpected(u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal(KVM_INTERNAL_ERROR_EMULATION) => {
                f.write_str("KVM could not emulate an instruction")
            }
            Self::Internal(suberror) => write!(f, "KVM reported internal error {suberror}"),
            Self::FailedEntry(reason) => write!(f, "the CPU refused the guest: {reason:#x}"),
            Self::Unexpected(exit) => write!(f, "KVM returned with exit reason {exit}"),
        }
    }
}

/// The vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    /// Whether PDPTEs can be set and read (KVM_CAP_SREGS2), and not only loaded from memory.
    pub(crate) has_sregs2: bool,
    /// Bytes in the page shared with the kernel.
    run_size: usize,
}

impl Vcpu {
    /// Wraps a new vCPU.
    pub(crate) fn new(fd: VcpuFd, kvm: &Kvm, run_size: usize) -> Vcpu {
        let has_sregs2 = kvm.check_extension_raw(kvm_bindings::KVM_CAP_SREGS2.into()) > 0;
        Vcpu { fd, has_sregs2, run_size }
    }

    /// For the system calls that kvm-ioctls covers.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs the guest until it needs the monitor.
    pub(crate) fn run(&mut self) -> Result<Exit, Error> {
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => Exit::PortIo,
            Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Exit::Mmio,
            Ok(VcpuExit::Hlt) => Exit::Halt,
            Ok(VcpuExit::IrqWindowOpen) => Exit::InterruptWindow,
            Ok(VcpuExit::Debug(_)) => Exit::Breakpoint,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::Intr) => Exit::Interrupted,
            Ok(VcpuExit::FailEntry(reason, _)) => Exit::GaveUp(Reason::FailedEntry(reason)),
            Ok(VcpuExit::InternalError) => Exit::GaveUp(Reason::Internal(self.suberror())),
            Ok(_) => Exit::GaveUp(Reason::Unexpected(self.shared().exit_reason)),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => Exit::Interrupted,
            Err(error) => return Err(refused("KVM_RUN")(error)),
        };
        Ok(exit)
    }

    fn shared(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }

    fn suberror(&mut self) -> u32 {
        // SAFETY: the exit reason says that this member of the union was filled.
        unsafe { self.shared().__bindgen_anon_1.internal.suberror }
    }

    /// Does what an [`Exit::PortIo`] asks for, all elements of a string instruction.
    pub(crate) fn do_port_io(&mut self, bus: &mut Bus) {
        let run_size = self.run_size;
        let shared = self.shared();
        // SAFETY: the exit reason says that this member of the union was filled.
        let io = unsafe { shared.__bindgen_anon_1.io };
        let (size, bytes) = (usize::from(io.size), usize::from(io.size) * io.count as usize);
        let offset = io.data_offset as usize;
        assert!(offset + bytes <= run_size, "KVM put the port data outside of its own page");
        // SAFETY: the whole of `run_size` bytes is mapped, and the data lies within, as was just
        // checked. Nothing else accesses it: the vCPU is borrowed and does not run.
        let data = unsafe {
            std::slice::from_raw_parts_mut((&raw mut *shared).cast::<u8>().add(offset), bytes)
        };
        for element in data.chunks_exact_mut(size.max(1)) {
            if u32::from(io.direction) == KVM_EXIT_IO_IN {
                element.copy_from_slice(&bus.port_read(io.port, size).to_le_bytes()[..size]);
            } else {
                let mut value = [0; 4];
                value[..size].copy_from_slice(element);
                bus.port_write(io.port, size, u32::from_le_bytes(value));
            }
        }
    }

    /// Does what an [`Exit::Mmio`] asks for.
    pub(crate) fn do_mmio(&mut self, bus: &mut Bus) {
        // SAFETY: the exit reason says that this member of the union was filled.
        let mmio = unsafe { &mut self.shared().__bindgen_anon_1.mmio };
        let data = &mut mmio.data[..mmio.len as usize];
        if mmio.is_write != 0 {
            bus.mmio_write(PhysicalAddress(mmio.phys_addr), data);
        } else {
            bus.mmio_read(PhysicalAddress(mmio.phys_addr), data);
        }
    }

    /// The byte that keeps KVM_RUN from entering the guest while it is set.
    pub(crate) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.shared().immediate_exit
    }

    /// Sets or clears that byte.
    pub(crate) fn set_immediate_exit(&mut self, value: bool) {
        self.fd.set_kvm_immediate_exit(value.into());
    }

    /// The guest's IF when KVM_RUN last returned.
    pub(crate) fn interrupts_enabled(&mut self) -> bool {
        self.shared().if_flag != 0
    }

    /// Whether an interrupt could have been taken when KVM_RUN last returned.
    pub(crate) fn is_ready_for_interrupt(&mut self) -> bool {
        self.shared().ready_for_interrupt_injection != 0
    }

    /// Asks for an [`Exit::InterruptWindow`] as soon as an interrupt can be taken, or no longer.
    pub(crate) fn request_interrupt_window(&mut self, wanted: bool) {
        self.shared().request_interrupt_window = wanted.into();
    }

    /// Delivers an external interrupt at the next entry. To be called only when the guest is ready.
    pub(crate) fn interrupt(&self, vector: Vector) -> Result<(), Error> {
        let interrupt = kvm_interrupt { irq: vector.0.into() };
        // SAFETY: the descriptor is a vCPU's, and the structure is the one that the call reads.
        let result = unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) };
        check(result, "KVM_INTERRUPT")
    }

    /// The system registers. Without KVM_CAP_SREGS2 there are no PDPTEs among them.
    pub(crate) fn system_registers(&self) -> Result<kvm_sregs2, Error> {
        if !self.has_sregs2 {
            let old = self.fd.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
            return Ok(widen(&old));
        }
        let mut registers = kvm_sregs2::default();
        // SAFETY: the descriptor is a vCPU's, and the structure is the one that the call fills.
        let result = unsafe { ioctl_with_mut_ref(&self.fd, KVM_GET_SREGS2(), &mut registers) };
        check(result, "KVM_GET_SREGS2").map(|()| registers)
    }

    /// Sets the system registers. Without KVM_CAP_SREGS2 KVM loads the PDPTEs from memory.
    pub(crate) fn set_system_registers(&self, registers: &kvm_sregs2) -> Result<(), Error> {
        if !self.has_sregs2 {
            return self.fd.set_sregs(&narrow(registers)).map_err(refused("KVM_SET_SREGS"));
        }
        // SAFETY: the descriptor is a vCPU's, and the structure is the one that the call reads.
        let result = unsafe { ioctl_with_ref(&self.fd, KVM_SET_SREGS2(), registers) };
        check(result, "KVM_SET_SREGS2")
    }
}

fn check(result: i32, what: &'static str) -> Result<(), Error> {
    match result {
        0 => Ok(()),
        _ => Err(Error::Host { what, source: std::io::Error::last_os_error() }),
    }
}

/// The old structure's registers in the new one.
fn widen(old: &kvm_sregs) -> kvm_sregs2 {
    let kvm_sregs { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, .. } = *old;
    let kvm_sregs { cr0, cr2, cr3, cr4, cr8, efer, apic_base, .. } = *old;
    kvm_sregs2 {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr,
        ldt,
        gdt,
        idt,
        cr0,
        cr2,
        cr3,
        cr4,
        cr8,
        efer,
        apic_base,
        ..Default::default()
    }
}

/// The new structure's registers in the old one.
fn narrow(new: &kvm_sregs2) -> kvm_sregs {
    let kvm_sregs2 { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, .. } = *new;
    let kvm_sregs2 { cr0, cr2, cr3, cr4, cr8, efer, apic_base, .. } = *new;
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr,
        ldt,
        gdt,
        idt,
        cr0,
        cr2,
        cr3,
        cr4,
        cr8,
        efer,
        apic_base,
        ..Default::default()
    }
}
