//! The bus while the tap is on.

use super::divergence::Found;
use super::event::{Data, Event};
use crate::PhysicalAddress;
use crate::bus::Bus;
use crate::signals::Request;

impl Bus {
    /// Reads a port, of the devices or of the log.
    #[cold]
    pub(crate) fn tapped_port_read(&mut self, port: u16, size: usize) -> u32 {
        let width = size as u8;
        let Some(player) = self.tap.player_mut() else {
            let before = self.request();
            let value = self.device_port_read(port, size);
            self.record(Event::PortRead { port, size: width, value }, before);
            return value;
        };
        let value = player.expect(Found::PortRead { port, size: width }, |event| match *event {
            Event::PortRead { port: p, size: s, value } if (p, s) == (port, width) => Some(value),
            _ => None,
        });
        value.unwrap_or(u32::MAX >> (32 - 8 * size.clamp(1, 4)))
    }

    /// Writes a port of the devices, or compares the write with the log's.
    #[cold]
    pub(crate) fn tapped_port_write(&mut self, port: u16, size: usize, value: u32) {
        let width = size as u8;
        // What lies above is not written.
        let value = value & u32::MAX >> (32 - 8 * size.clamp(1, 4));
        let event = Event::PortWrite { port, size: width, value };
        if let Some(player) = self.tap.player_mut() {
            let found = Found::PortWrite { port, size: width, value };
            player.expect(found, |recorded| (*recorded == event).then_some(()));
            return;
        }
        let before = self.request();
        self.device_port_write(port, size, value);
        self.record(event, before);
    }

    /// Reads device memory, of the devices or of the log, in pieces that an event can hold.
    #[cold]
    pub(crate) fn tapped_mmio_read(&mut self, address: PhysicalAddress, data: &mut [u8]) {
        for (at, piece) in (address.0..).step_by(Data::MOST).zip(data.chunks_mut(Data::MOST)) {
            self.tapped_piece_read(PhysicalAddress(at), piece);
        }
    }

    fn tapped_piece_read(&mut self, address: PhysicalAddress, data: &mut [u8]) {
        let Some(player) = self.tap.player_mut() else {
            let before = self.request();
            self.device_mmio_read(address, data);
            let read = Event::MmioRead { address: address.0, data: Data::new(data) };
            return self.record(read, before);
        };
        let size = data.len();
        let found = Found::MmioRead { address: address.0, size };
        let read = player.expect(found, |event| match *event {
            Event::MmioRead { address: at, data } => {
                (at == address.0 && data.bytes().len() == size).then_some(data)
            }
            _ => None,
        });
        match read {
            Some(read) => data.copy_from_slice(read.bytes()),
            None => data.fill(0xff),
        }
    }

    /// Writes device memory, or compares the write with the log's, in pieces as well.
    #[cold]
    pub(crate) fn tapped_mmio_write(&mut self, address: PhysicalAddress, data: &[u8]) {
        for (at, piece) in (address.0..).step_by(Data::MOST).zip(data.chunks(Data::MOST)) {
            self.tapped_piece_write(PhysicalAddress(at), piece);
        }
    }

    fn tapped_piece_write(&mut self, address: PhysicalAddress, data: &[u8]) {
        let written = Data::new(data);
        let event = Event::MmioWrite { address: address.0, data: written };
        if let Some(player) = self.tap.player_mut() {
            let found = Found::MmioWrite { address: address.0, data: written };
            player.expect(found, |recorded| (*recorded == event).then_some(()));
            return;
        }
        let before = self.request();
        self.device_mmio_write(address, data);
        self.record(event, before);
    }

    fn request(&self) -> Option<Request> {
        self.tap.signals.guest_request()
    }

    /// Records an access, and what it made a device ask for.
    fn record(&mut self, event: Event, request_before: Option<Request>) {
        self.tap.record(event);
        if let (None, Some(request)) = (request_before, self.request()) {
            self.tap.record(Event::Request(request));
        }
    }
}
