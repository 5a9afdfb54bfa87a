//! The devices of the machine, one file or folder each, and the one list of them.

mod ata;
mod debug_console;
mod exit_port;
mod fast_gate;
mod input;
mod keyboard;
mod pci;
mod pic;
mod pit;
mod post_code;
mod power_management;
mod power_off;
mod rtc;
mod serial;
mod state;
#[cfg(test)]
mod testing;
mod vga;

pub use ata::Disk;
pub use debug_console::{DebugConsole, Mark};
pub use exit_port::ExitPort;
pub use fast_gate::FastGate;
pub use input::HostInput;
pub use keyboard::{Key, KeyEvent, KeyboardController};
pub use pci::PciHost;
pub use pic::Pic;
pub use pit::{FREQUENCY as PIT_FREQUENCY, Pit};
pub use post_code::PostCode;
pub use power_management::{PowerManagement, S5_SLEEP_TYPE};
pub use power_off::PowerOff;
pub use rtc::Rtc;
pub use serial::Serial;
pub use vga::{COLUMNS, Cell, ROWS, TextScreen, Vga, VgaMemory};

use crate::bus::Device;
use crate::clock::{Clock, Nanos};
use crate::signals::{Interrupt, InterruptLine, Signals};
use crate::{Error, MachineConfig};
use input::InputState;
use state::Saved;
use std::sync::Arc;

/// The interrupt line of ACPI's events, the system control interrupt.
pub const SYSTEM_CONTROL_INTERRUPT: u8 = 9;

macro_rules! devices {
    ($($(#[doc = $doc:literal])* $id:ident = $field:ident: $kind:ty,)*) => {
        /// The devices that the bus can reach.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DeviceId { $($(#[doc = $doc])* $id,)* }

        /// All devices.
        pub struct Devices {
            $($(#[doc = $doc])* pub $field: $kind,)*
            input: HostInput,
        }

        /// What is saved of all devices.
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct DevicesState {
            $($field: <$kind as Saved>::State,)*
            input: InputState,
        }

        impl Devices {
            /// The device behind an entry of the port map.
            pub fn get(&mut self, id: DeviceId) -> &mut dyn Device {
                match id { $(DeviceId::$id => &mut self.$field,)* }
            }

            /// What is saved of all devices.
            pub(crate) fn state(&self) -> DevicesState {
                DevicesState { $($field: self.$field.state(),)* input: self.input.state() }
            }

            /// Takes over a saved state.
            ///
            /// # Errors
            /// When a device could not be in its state; with the device and why.
            pub(crate) fn restore(&mut self, state: DevicesState) -> Result<(), String> {
                let of = |name| move |reason| format!("{name}: {reason}");
                $(self.$field.restore(state.$field).map_err(of(stringify!($field)))?;)*
                self.input.restore(&state.input).map_err(of("input"))
            }

            fn each(&self) -> impl Iterator<Item = &dyn Device> {
                [$(&self.$field as &dyn Device,)*].into_iter()
            }

            fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Device> {
                [$(&mut self.$field as &mut dyn Device,)*].into_iter()
            }
        }
    };
}

devices! {
    /// The two 8259 interrupt controllers.
    Pic = pic: Pic,
    /// The 8254 interval timer with port 0x61: speaker, timer gate, refresh toggle.
    Pit = pit: Pit,
    /// The i8042 keyboard controller.
    Keyboard = keyboard: KeyboardController,
    /// The MC146818 real-time clock with CMOS memory.
    Rtc = rtc: Rtc,
    /// Port 0x80: power-on self-test codes.
    PostCode = post_code: PostCode,
    /// Port 0x92: fast A20 gate and reset.
    FastGate = fast_gate: FastGate,
    /// Port 0xE9: debug console.
    DebugConsole = debug_console: DebugConsole,
    /// Port 0xF4: end of the run.
    ExitPort = exit_port: ExitPort,
    /// The ATA disk.
    Disk = disk: Disk,
    /// VGA registers.
    VgaRegisters = vga: Vga,
    /// The 16550 serial port.
    Serial = serial: Serial,
    /// The PCI configuration ports.
    Pci = pci: PciHost,
    /// The fixed hardware of ACPI: events, sleep, and the power-management timer.
    PowerManagement = power_management: PowerManagement,
    /// The ports by which guests without ACPI switch the machine off.
    PowerOff = power_off: PowerOff,
}

impl Devices {
    /// The devices that `config` asks for, as after power-up.
    ///
    /// # Errors
    /// When the disk image cannot be opened.
    pub fn new(
        config: &MachineConfig,
        signals: &Arc<Signals>,
        clock: &Arc<Clock>,
    ) -> Result<Devices, Error> {
        let input = HostInput::new(signals.clone());
        let line =
            |irq| -> Arc<dyn Interrupt> { Arc::new(InterruptLine::new(signals.clone(), irq)) };
        Ok(Devices {
            pic: Pic::new(signals.clone()),
            pit: Pit::new(signals.clone(), clock.clone(), line(0)),
            keyboard: KeyboardController::new(signals.clone(), line(1), input.keys.clone()),
            rtc: Rtc::new(config, signals.clone(), clock.clone(), line(8)),
            post_code: PostCode::default(),
            fast_gate: FastGate::new(signals.clone()),
            debug_console: DebugConsole::default(),
            exit_port: ExitPort::new(signals.clone()),
            disk: Disk::new(config.disk.as_ref(), line(14))?,
            vga: Vga::new(clock.clone()),
            serial: Serial::new(line(4), input.serial.clone()),
            pci: PciHost::new(signals.clone()),
            power_management: PowerManagement::new(
                signals.clone(),
                clock.clone(),
                line(SYSTEM_CONTROL_INTERRUPT),
            ),
            power_off: PowerOff::new(signals.clone()),
            input,
        })
    }

    /// The memory between 0xA0000 and 0xBFFFF.
    pub fn vga_memory(&mut self) -> &mut dyn Device {
        &mut self.vga.memory
    }

    /// Where the host sends keys and serial input; clone it for another thread.
    #[must_use]
    pub fn input(&self) -> &HostInput {
        &self.input
    }

    /// Moves what the host sent (keys, serial input) into the devices.
    pub fn take_host_input(&mut self) {
        self.keyboard.take_input();
        self.serial.take_input();
    }

    /// When the first device does something by itself.
    #[must_use]
    pub fn next_event(&self) -> Option<Nanos> {
        self.each().filter_map(Device::next_event).min()
    }

    /// Lets every timed device do what is due.
    pub fn advance(&mut self) {
        self.each_mut().for_each(Device::advance);
    }

    /// Resets all devices.
    pub fn reset(&mut self) {
        self.each_mut().for_each(Device::reset);
    }
}
