//! The devices of the machine, one file each.

mod debug_console;
mod exit_port;
mod pic;
#[cfg(test)]
mod testing;

pub use debug_console::{DebugConsole, Mark};
pub use exit_port::ExitPort;
pub use pic::Pic;

use crate::bus::Device;
use crate::clock::{Clock, Nanos};
use crate::signals::Signals;
use crate::{Error, MachineConfig};
use std::sync::Arc;

/// The devices that the bus can reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceId {
    /// The two 8259 interrupt controllers.
    Pic,
    /// The 8254 interval timer.
    Pit,
    /// The i8042 keyboard controller.
    Keyboard,
    /// Port 0x61: speaker, timer gate, refresh toggle.
    SystemPort,
    /// The MC146818 real-time clock with CMOS memory.
    Rtc,
    /// Port 0x80: power-on self-test codes.
    PostCode,
    /// Port 0x92: fast A20 gate and reset.
    FastGate,
    /// Port 0xE9: debug console.
    DebugConsole,
    /// Port 0xF4: end of the run.
    ExitPort,
    /// The ATA disk.
    Disk,
    /// VGA registers.
    VgaRegisters,
    /// The 16550 serial port.
    Serial,
    /// The PCI configuration ports.
    Pci,
}

/// All devices.
pub struct Devices {
    /// The interrupt controllers.
    pub pic: Pic,
    /// Port 0xE9.
    pub debug_console: DebugConsole,
    exit_port: ExitPort,
    open: OpenBus,
}

/// Answers nothing. (Stands for the devices that are still to come.)
struct OpenBus;

impl Device for OpenBus {
    fn read(&mut self, _offset: u32, _data: &mut [u8]) {}
    fn write(&mut self, _offset: u32, _data: &[u8]) {}
}

impl Devices {
    /// The devices that `config` asks for, as after power-up.
    ///
    /// # Errors
    /// When the disk image cannot be opened.
    pub fn new(
        _config: &MachineConfig,
        signals: &Arc<Signals>,
        _clock: &Arc<Clock>,
    ) -> Result<Devices, Error> {
        Ok(Devices {
            pic: Pic::new(signals.clone()),
            debug_console: DebugConsole::default(),
            exit_port: ExitPort::new(signals.clone()),
            open: OpenBus,
        })
    }

    /// The device behind an entry of the port map.
    pub fn get(&mut self, id: DeviceId) -> &mut dyn Device {
        match id {
            DeviceId::Pic => &mut self.pic,
            DeviceId::DebugConsole => &mut self.debug_console,
            DeviceId::ExitPort => &mut self.exit_port,
            _ => &mut self.open,
        }
    }

    /// The memory between 0xA0000 and 0xBFFFF.
    pub fn vga_memory(&mut self) -> &mut dyn Device {
        &mut self.open
    }

    /// Moves what the host sent (keys, serial input) into the devices.
    pub fn take_host_input(&mut self) {}

    /// When the first device does something by itself.
    #[must_use]
    pub fn next_event(&self) -> Option<Nanos> {
        None
    }

    /// Lets every timed device do what is due.
    pub fn advance(&mut self) {}

    /// Resets all devices.
    pub fn reset(&mut self) {}
}
