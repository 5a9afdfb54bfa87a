//! PCI configuration mechanism #1 of a machine without PCI devices, and the reset register.
//!
//! Offset 0 is the address register (port 0xCF8), offset 4 the data register. Only 4-byte accesses
//! reach the address register; a byte access to 0xCF9 in the middle of it is the reset control
//! register of Intel's chip sets (PIIX3 data sheet, 290550, 4.2.6).

use crate::bus::Device;
use crate::devices::state::saved;
use crate::signals::{Request, Signals};
use std::sync::Arc;

const ADDRESS: u32 = 0;
const RESET_CONTROL: u32 = 1;
/// Bits of the address register that can be written: enable, bus, device, function, register.
const ADDRESS_MASK: u32 = 0x80ff_fffc;
const RESET_CPU: u8 = 0x04;

/// The host bridge's configuration ports.
pub struct PciHost {
    signals: Arc<Signals>,
    address: u32,
    reset_control: u8,
}

impl PciHost {
    /// A bridge that asks for resets through `signals`.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> PciHost {
        PciHost { signals, address: 0, reset_control: 0 }
    }
}

saved! {
    PciHost as PciHostState;
    saved { address: u32, reset_control: u8, }
    kept { signals }
}

impl Device for PciHost {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        match (offset, data.len()) {
            (ADDRESS, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET_CONTROL, 1) => data[0] = self.reset_control,
            // No device answers a configuration cycle: all ones stay.
            _ => {}
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        match (offset, data) {
            (ADDRESS, &[a, b, c, d]) => {
                self.address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_MASK;
            }
            (RESET_CONTROL, &[value]) => {
                let rises = value & !self.reset_control & RESET_CPU != 0;
                // Bit 1 chooses a hard or a soft reset; here both reset the machine.
                self.reset_control = value & 0x06;
                if rises {
                    self.signals.request(Request::Reset);
                }
            }
            _ => {}
        }
    }

    fn width(&self) -> usize {
        4
    }

    fn reset(&mut self) {
        *self = PciHost::new(self.signals.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> (PciHost, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        (PciHost::new(signals.clone()), signals)
    }

    fn read32(bridge: &mut PciHost, offset: u32) -> u32 {
        let mut data = [0xff; 4];
        bridge.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_mechanism_is_there_and_finds_no_device() {
        let (mut bridge, _) = bridge();
        bridge.write(ADDRESS, &0x8000_0000u32.to_le_bytes());
        assert_eq!(read32(&mut bridge, ADDRESS), 0x8000_0000);
        assert_eq!(read32(&mut bridge, 4), u32::MAX);
        bridge.write(3, &[1]);
        assert_eq!(read32(&mut bridge, ADDRESS), 0x8000_0000, "bytes do not reach it");
    }

    #[test]
    fn the_reset_register_acts_when_its_bit_rises() {
        let (mut bridge, signals) = bridge();
        bridge.write(ADDRESS, &u32::MAX.to_le_bytes());
        bridge.write(RESET_CONTROL, &[0x02]);
        assert_eq!(signals.take_request(), None);
        bridge.write(RESET_CONTROL, &[0x06]);
        assert_eq!(signals.take_request(), Some(Request::Reset));
    }
}
