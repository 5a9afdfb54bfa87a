//! What KVM has begun to deliver to the guest and not finished.

use crate::error::refused;
use crate::vcpu::Vcpu;
use machine::Vector;
use strategy::Error;

/// An exception or interrupt on its way. There is no place for it in the machine's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pending {
    /// An exception.
    pub(crate) exception: bool,
    /// An external interrupt that the machine's controller has been told was taken.
    pub(crate) interrupt: Option<Vector>,
}

impl Pending {
    /// What the vCPU holds.
    pub(crate) fn of(vcpu: &Vcpu) -> Result<Pending, Error> {
        let events = vcpu.fd().get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?;
        let interrupt = events.interrupt;
        // A software interrupt is an instruction: EIP is still at it, and it will be done again.
        let external = interrupt.injected != 0 && interrupt.soft == 0;
        Ok(Pending {
            exception: events.exception.injected != 0 || events.exception.pending != 0,
            interrupt: external.then_some(Vector(interrupt.nr)),
        })
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(self) -> bool {
        self == Pending::default()
    }
}
