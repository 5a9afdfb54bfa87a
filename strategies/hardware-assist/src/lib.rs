//! The strategy that leaves the guest to the CPU's own virtualization, through KVM.
//!
//! KVM runs the guest; everything else is the machine's: the devices (there is no interrupt
//! controller in the kernel), the clock, and the CPUID. What KVM gives up on, and what a KVM
//! without hardware behind it is known to get wrong (`reach`), the emulator executes
//! (`emulation`), and KVM goes on from there.
//!
//! KVM's own types stay in this crate: `vcpu` fences its system calls, `state` turns its
//! registers into the machine's and back, `run` is the loop.

mod breakpoints;
mod cpuid;
mod emulation;
mod error;
mod events;
mod memory;
mod pace;
mod reach;
mod run;
mod segments;
mod state;
mod support;
mod vcpu;
mod vm;

pub use support::support;

use kvm_ioctls::Kvm;
use machine::Machine;
use reach::Reach;
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId, Support};
use vm::Vm;

/// The CPU's own virtualization, through KVM.
///
/// The virtual machine in the kernel is made at the first [`Strategy::run`] for the machine given,
/// and again for another machine.
#[derive(Debug)]
pub struct HardwareAssist {
    /// Open from the beginning: later the process may be confined and open nothing.
    kvm: Kvm,
    reach: Reach,
    vm: Option<Vm>,
    exits: ExitCounts,
}

impl HardwareAssist {
    /// Opens KVM and finds out what it really runs.
    ///
    /// # Errors
    /// When this host has no usable KVM; the reason says what would help.
    pub fn new() -> Result<HardwareAssist, Error> {
        if let Support::Missing(reason) = support() {
            return Err(Error::Unsupported { strategy: StrategyId::HardwareAssist, reason });
        }
        let reach = Reach::of_this_host()?;
        Ok(HardwareAssist { kvm: vm::open()?, reach, vm: None, exits: ExitCounts::default() })
    }

    /// The virtual machine for `machine`, made anew where there is none.
    fn vm_for(&mut self, machine: &Machine) -> Result<&mut Vm, Error> {
        if !self.vm.as_ref().is_some_and(|vm| vm.belongs_to(machine)) {
            // The old one goes first: KVM allows a process many, but its memory is not free.
            self.vm = None;
            self.vm = Some(Vm::of(&self.kvm, machine)?);
        }
        Ok(self.vm.as_mut().expect("made above"))
    }
}

impl Strategy for HardwareAssist {
    fn id(&self) -> StrategyId {
        StrategyId::HardwareAssist
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let reach = self.reach;
        let mut exits = std::mem::take(&mut self.exits);
        let result =
            self.vm_for(machine).and_then(|vm| run::run(vm, machine, &mut exits, reach, limit));
        self.exits = exits;
        if !matches!(result, Ok(stop) if stop != Stop::TripleFault) {
            // What a vCPU does after a shutdown or a failure differs from one KVM to the next.
            self.vm = None;
        }
        result
    }

    fn exits(&self) -> &ExitCounts {
        &self.exits
    }
}
