//! What guest code is executed from: the guest's own bytes, or something that a strategy has made of
//! them.

use crate::shadow::{Shadow, Touch};
use machine::{LinearAddress, Machine};

/// What a strategy puts between the guest's code and the CPU. Called by the engine around each stay.
pub trait Code {
    /// Whether the guest's own pages may be executed; if not, only those that [`Shadow::show_code`]
    /// shows.
    fn runs_guest_pages(&self) -> bool;

    /// A run begins: another engine may have changed what this one knows. The window shows nothing
    /// but what is taken.
    ///
    /// # Errors
    /// When the host fails.
    fn begin(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<(), host::Error>;

    /// Before a stay: where the CPU is to begin for the guest to go on at its EIP.
    ///
    /// # Errors
    /// When the host fails.
    fn enter(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<u32, host::Error>;

    /// Behind a stay: the machine has the CPU's state, which is made the guest's. `crossing` is the
    /// number of the crossing that ended it, if one did.
    fn leave(&mut self, m: &mut Machine, crossing: Option<u32>);

    /// An instruction could not be fetched from `address`: whether it can be now, or is to be emulated.
    ///
    /// # Errors
    /// When the host fails.
    fn fetch(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        address: u32,
    ) -> Result<Touch, host::Error>;

    /// The instruction at EIP trapped: whether it is to be executed again, or emulated.
    ///
    /// # Errors
    /// When the host fails.
    fn trapped(&mut self, m: &mut Machine, shadow: &mut Shadow) -> Result<Touch, host::Error>;

    /// The emulator has executed the instruction that was at `address`.
    ///
    /// # Errors
    /// When the host fails.
    fn emulated(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        address: LinearAddress,
    ) -> Result<(), host::Error>;

    /// The host's selectors for the guest's six segment registers in the stay that begins. With another
    /// `generation`, those of before mean something else now.
    fn segments_shown(&mut self, _: &mut Machine, _selectors: &[u16; 6], _generation: u64) {}

    /// Where pads of crossings are, if there are any.
    fn pads(&self) -> Option<std::ops::Range<u32>>;

    /// Whether in this stay the code finds what is at GS and above through FS, which the guest has no
    /// use for, and only what is below through GS.
    fn splits_gs(&self) -> bool {
        false
    }
}

/// The guest's own bytes, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct GuestBytes;

impl Code for GuestBytes {
    fn runs_guest_pages(&self) -> bool {
        true
    }

    fn begin(&mut self, _: &mut Machine, _: &mut Shadow) -> Result<(), host::Error> {
        Ok(())
    }

    fn enter(&mut self, m: &mut Machine, _: &mut Shadow) -> Result<u32, host::Error> {
        Ok(m.cpu.eip)
    }

    fn leave(&mut self, _: &mut Machine, _: Option<u32>) {}

    fn fetch(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        address: u32,
    ) -> Result<Touch, host::Error> {
        shadow.touch(m, address, false)
    }

    fn trapped(&mut self, _: &mut Machine, _: &mut Shadow) -> Result<Touch, host::Error> {
        Ok(Touch::Emulate)
    }

    fn emulated(
        &mut self,
        _: &mut Machine,
        _: &mut Shadow,
        _: LinearAddress,
    ) -> Result<(), host::Error> {
        Ok(())
    }

    fn pads(&self) -> Option<std::ops::Range<u32>> {
        None
    }
}
