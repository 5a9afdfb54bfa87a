//! The bus: which device answers at which port and physical address.
//!
//! One table states the port map. Accesses wider than a device are split, as an ISA bridge does;
//! where nothing answers, reads give all ones and writes are lost.

use crate::clock::{Clock, Nanos};
use crate::devices::{DeviceId, Devices};
use crate::memory::{VGA_END, VGA_START};
use crate::signals::Signals;
use crate::tap::Tap;
use crate::{Error, MachineConfig, PhysicalAddress};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A device: it knows offsets from its first port or address and the data, nothing else.
pub trait Device: Send {
    /// Reads 1, 2 or 4 bytes (not more than [`Device::width`]) at `offset`. `data` holds ones
    /// before: a device leaves what it does not drive.
    fn read(&mut self, offset: u32, data: &mut [u8]);
    /// Writes 1, 2 or 4 bytes (not more than [`Device::width`]) at `offset`.
    fn write(&mut self, offset: u32, data: &[u8]);
    /// The widest access in bytes; wider ones arrive in parts.
    fn width(&self) -> usize {
        1
    }
    /// When the device next does something by itself, if it will.
    fn next_event(&self) -> Option<Nanos> {
        None
    }
    /// Does what was due by now.
    fn advance(&mut self) {}
    /// Goes into the state after a reset of the machine.
    fn reset(&mut self) {}
}

/// The port map: which device answers at which ports, and at which offset its range starts.
#[rustfmt::skip]
const PORTS: &[(RangeInclusive<u16>, u32, DeviceId)] = &[
    (0x20..=0x21,   0, DeviceId::Pic),
    (0x40..=0x43,   0, DeviceId::Pit),
    (0x60..=0x60,   0, DeviceId::Keyboard),
    (0x61..=0x61,   4, DeviceId::Pit),
    (0x64..=0x64,   4, DeviceId::Keyboard),
    (0x70..=0x71,   0, DeviceId::Rtc),
    (0x80..=0x80,   0, DeviceId::PostCode),
    (0x92..=0x92,   0, DeviceId::FastGate),
    (0xa0..=0xa1,   2, DeviceId::Pic),
    (0xe9..=0xe9,   0, DeviceId::DebugConsole),
    (0xf4..=0xf4,   0, DeviceId::ExitPort),
    (0x1f0..=0x1f7, 0, DeviceId::Disk),
    (0x3b4..=0x3b5, 0x14, DeviceId::VgaRegisters),
    (0x3ba..=0x3ba, 0x1a, DeviceId::VgaRegisters),
    (0x3c0..=0x3df, 0, DeviceId::VgaRegisters),
    (0x3f6..=0x3f6, 8, DeviceId::Disk),
    (0x3f8..=0x3ff, 0, DeviceId::Serial),
    (0x4d0..=0x4d1, 4, DeviceId::Pic),
    (0x600..=0x60b, 0, DeviceId::PowerManagement),
    (0xcf8..=0xcff, 0, DeviceId::Pci),
    (0x4004..=0x4005, 0, DeviceId::PowerOff),
    (0x8900..=0x8900, 2, DeviceId::PowerOff),
    (0xb004..=0xb005, 0, DeviceId::PowerOff),
];

/// The bus with all devices on it.
pub struct Bus {
    /// The devices.
    pub devices: Devices,
    /// Between the CPU and the devices.
    pub tap: Tap,
    /// For each port, an index into [`PORTS`] plus one, or 0.
    port_index: Box<[u8; 0x1_0000]>,
}

impl Bus {
    /// A bus with the devices that `config` asks for.
    ///
    /// # Errors
    /// When a disk image cannot be opened.
    pub fn new(
        config: &MachineConfig,
        signals: &Arc<Signals>,
        clock: &Arc<Clock>,
    ) -> Result<Bus, Error> {
        let mut port_index = Box::new([0; 0x1_0000]);
        for (index, (ports, ..)) in PORTS.iter().enumerate() {
            for port in ports.clone() {
                port_index[usize::from(port)] = index as u8 + 1;
            }
        }
        let devices = Devices::new(config, signals, clock)?;
        Ok(Bus { devices, tap: Tap::new(signals.clone()), port_index })
    }

    /// What answers at a port: the device, the offset there, and how wide an access may be that
    /// wants `size` bytes and must not leave the device's ports.
    fn port(&mut self, port: u16, size: usize) -> Option<(&mut dyn Device, u32, usize)> {
        let index = self.port_index[usize::from(port)].checked_sub(1)?;
        let (ports, first, id) = &PORTS[usize::from(index)];
        let left = usize::from(ports.end() - port) + 1;
        let device = self.devices.get(*id);
        let width = if size == 1 { 1 } else { access_width(device.width(), size.min(left)) };
        Some((device, first + u32::from(port - ports.start()), width))
    }

    /// Reads `size` (1, 2 or 4) bytes at `port`.
    #[inline]
    pub fn port_read(&mut self, port: u16, size: usize) -> u32 {
        if self.tap.is_off() {
            self.device_port_read(port, size)
        } else {
            self.tapped_port_read(port, size)
        }
    }

    /// Writes the low `size` (1, 2 or 4) bytes of `value` at `port`.
    #[inline]
    pub fn port_write(&mut self, port: u16, size: usize, value: u32) {
        if self.tap.is_off() {
            self.device_port_write(port, size, value);
        } else {
            self.tapped_port_write(port, size, value);
        }
    }

    /// Reads device memory; what nothing answers reads all ones. Any length up to 16 bytes.
    #[inline]
    pub fn mmio_read(&mut self, address: PhysicalAddress, data: &mut [u8]) {
        if self.tap.is_off() {
            self.device_mmio_read(address, data);
        } else {
            self.tapped_mmio_read(address, data);
        }
    }

    /// Writes device memory; what nothing answers is lost. Any length up to 16 bytes.
    #[inline]
    pub fn mmio_write(&mut self, address: PhysicalAddress, data: &[u8]) {
        if self.tap.is_off() {
            self.device_mmio_write(address, data);
        } else {
            self.tapped_mmio_write(address, data);
        }
    }

    /// The host address of a page of device memory whose reads and writes do nothing else, so that
    /// they need not come here; nothing while a tap has to see them. It is right until the machine is
    /// reset or another run of it begins.
    pub fn plain_page(&mut self, address: PhysicalAddress) -> Option<*mut u8> {
        if !self.tap.is_off() || !(VGA_START..VGA_END).contains(&address.0) {
            return None;
        }
        self.devices.vga.memory.page((address.0 - VGA_START) as usize)
    }

    pub(crate) fn device_port_read(&mut self, port: u16, size: usize) -> u32 {
        if size == 1 {
            let mut byte = [0xff];
            if let Some((device, offset, _)) = self.port(port, 1) {
                device.read(offset, &mut byte);
            }
            return u32::from(byte[0]);
        }
        let mut data = [0xff; 4];
        let mut at = 0;
        while at < size {
            let here = port.wrapping_add(at as u16);
            let Some((device, offset, width)) = self.port(here, size - at) else {
                at += 1;
                continue;
            };
            device.read(offset, &mut data[at..at + width]);
            at += width;
        }
        if size < 4 {
            u32::from_le_bytes(data) & ((1 << (8 * size)) - 1)
        } else {
            u32::from_le_bytes(data)
        }
    }

    pub(crate) fn device_port_write(&mut self, port: u16, size: usize, value: u32) {
        if size == 1 {
            if let Some((device, offset, _)) = self.port(port, 1) {
                device.write(offset, &[value as u8]);
            }
            return;
        }
        let data = value.to_le_bytes();
        let mut at = 0;
        while at < size {
            let here = port.wrapping_add(at as u16);
            let Some((device, offset, width)) = self.port(here, size - at) else {
                at += 1;
                continue;
            };
            device.write(offset, &data[at..at + width]);
            at += width;
        }
    }

    pub(crate) fn device_mmio_read(&mut self, address: PhysicalAddress, data: &mut [u8]) {
        data.fill(0xff);
        let mut at = 0;
        while at < data.len() {
            let (memory, width) = self.device_memory(address, at, data.len());
            if let Some((device, offset)) = memory {
                device.read(offset, &mut data[at..at + width]);
            }
            at += width;
        }
    }

    pub(crate) fn device_mmio_write(&mut self, address: PhysicalAddress, data: &[u8]) {
        let mut at = 0;
        while at < data.len() {
            let (memory, width) = self.device_memory(address, at, data.len());
            if let Some((device, offset)) = memory {
                device.write(offset, &data[at..at + width]);
            }
            at += width;
        }
    }

    /// What answers at byte `at` of an access of `size` bytes, and how many bytes it takes.
    fn device_memory(
        &mut self,
        address: PhysicalAddress,
        at: usize,
        size: usize,
    ) -> (Option<(&mut dyn Device, u32)>, usize) {
        let here = address.0.wrapping_add(at as u64);
        if !(VGA_START..VGA_END).contains(&here) {
            return (None, 1);
        }
        let left = (size - at).min((VGA_END - here) as usize);
        let device = self.devices.vga_memory();
        let width = access_width(device.width(), left);
        (Some((device, (here - VGA_START) as u32)), width)
    }
}

/// The widest power of two not above either bound.
fn access_width(device: usize, left: usize) -> usize {
    let width = device.min(left);
    if width >= 4 {
        4
    } else if width >= 2 {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockSource;

    fn bus() -> Bus {
        let config = MachineConfig { clock: ClockSource::Virtual, ..MachineConfig::default() };
        let clock = Arc::new(Clock::new(config.clock));
        Bus::new(&config, &Arc::default(), &clock).unwrap()
    }

    #[test]
    fn port_ranges_do_not_overlap_and_fit_the_index() {
        let mut claimed = vec![false; 0x1_0000];
        for port in PORTS.iter().flat_map(|(ports, ..)| ports.clone()) {
            assert!(!std::mem::replace(&mut claimed[usize::from(port)], true), "{port:#x}");
        }
        assert!(PORTS.len() < 255);
    }

    #[test]
    fn absent_ports_read_ones_and_swallow_writes() {
        let mut bus = bus();
        assert_eq!(bus.port_read(0x300, 1), 0xff);
        assert_eq!(bus.port_read(0x300, 2), 0xffff);
        assert_eq!(bus.port_read(0x300, 4), u32::MAX);
        bus.port_write(0x300, 4, 0);
        assert_eq!(bus.port_read(0x1f7, 1), 0xff, "no disk");
    }

    #[test]
    fn wide_accesses_of_narrow_devices_are_split() {
        let mut bus = bus();
        bus.port_write(0x3d4, 2, 0x5a0f);
        assert_eq!(bus.port_read(0x3d4, 2), 0x5a0f);
        bus.port_write(0x3fe, 4, 0x0302_a500);
        assert_eq!(bus.port_read(0x3fe, 4), 0xffff_a5b0, "scratch at 0x3ff, then nothing");
    }

    #[test]
    fn an_access_does_not_run_from_one_range_into_the_next() {
        let mut bus = bus();
        bus.port_write(0x80, 1, 0x77);
        assert_eq!(bus.port_read(0x7f, 4), 0xffff_77ff);
        assert_eq!(bus.port_read(0xffff, 4), u32::MAX, "ports wrap");
    }

    #[test]
    fn the_address_register_of_pci_takes_four_bytes_at_once() {
        let mut bus = bus();
        bus.port_write(0xcf8, 4, 0x8000_0800);
        assert_eq!(bus.port_read(0xcf8, 4), 0x8000_0800);
        assert_eq!(bus.port_read(0xcfc, 2), 0xffff);
    }

    #[test]
    fn monochrome_and_colour_ports_are_the_same_registers() {
        let mut bus = bus();
        bus.port_write(0x3b4, 1, 0x0f);
        bus.port_write(0x3b5, 1, 0x42);
        assert_eq!(bus.port_read(0x3d5, 1), 0x42);
    }

    #[test]
    fn video_memory_takes_any_length_and_ends_at_its_hole() {
        let mut bus = bus();
        let data: Vec<u8> = (1..=16).collect();
        let mut back = [0; 16];
        bus.mmio_write(PhysicalAddress(0xb_8001), &data);
        bus.mmio_read(PhysicalAddress(0xb_8001), &mut back);
        assert_eq!(back[..], data);
        bus.mmio_write(PhysicalAddress(0xb_fff8), &data);
        bus.mmio_read(PhysicalAddress(0xb_fff8), &mut back);
        assert_eq!((&back[..8], &back[8..]), (&data[..8], &[0xff; 8][..]));
        bus.mmio_read(PhysicalAddress(u64::MAX - 3), &mut back);
        assert_eq!(back, [0xff; 16]);
    }
}
