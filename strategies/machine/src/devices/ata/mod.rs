//! The primary ATA channel with one disk: PIO and its interrupt, no DMA.
//!
//! Offsets 0 to 7 are the command block (port 0x1F0), offset 8 the control block (port 0x3F6). The
//! data port takes 1, 2 or 4 bytes. A command is done when the write of its code returns, so the
//! guest never sees BSY, a software reset aside. Without a disk the bus floats; an absent slave is
//! answered for by the master, as ATA/ATAPI-6, 9.16.1 has it.
//!
//! A read-only image aborts writes. What fails on the host is an uncorrectable error in the guest.

mod commands;
mod geometry;
mod identify;
mod image;
mod taskfile;
#[cfg(test)]
mod tests;

use crate::Error;
use crate::bus::Device;
use crate::config::DiskConfig;
use crate::devices::state::{require, saved};
use crate::signals::Interrupt;
use crate::snapshot::DiskIdentity;
use commands::{Direction, Transfer};
use geometry::Geometry;
use image::Image;
use std::sync::Arc;
use taskfile::TaskFile;

const DATA: u32 = 0;
const ERROR: u32 = 1;
const DEVICE: u32 = 6;
const STATUS: u32 = 7;
const CONTROL: u32 = 8;

const DIAGNOSE: u8 = 0x90;

/// The most sectors in a block of READ and WRITE MULTIPLE.
const MAX_MULTIPLE: u8 = 16;

bitflags::bitflags! {
    /// The status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    struct Status: u8 {
        const ERROR = 0x01;
        const DATA_REQUEST = 0x08;
        const SEEK_COMPLETE = 0x10;
        const READY = 0x40;
        const BUSY = 0x80;
    }

    /// The error register. After a diagnostic it holds a code instead.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    struct ErrorBits: u8 {
        const DIAGNOSTIC_PASSED = 0x01;
        const ABORTED = 0x04;
        const ID_NOT_FOUND = 0x10;
        const UNCORRECTABLE = 0x40;
    }

    /// The device control register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    struct Control: u8 {
        const NO_INTERRUPT = 0x02;
        const RESET = 0x04;
        const SHOW_PREVIOUS = 0x80;
    }
}

/// The disk and its channel.
pub struct Disk {
    line: Arc<dyn Interrupt>,
    image: Option<Image>,
    task: TaskFile,
    status: Status,
    error: ErrorBits,
    control: Control,
    transfer: Option<Transfer>,
    interrupt_pending: bool,
    geometry: Geometry,
    /// Sectors in a block of READ and WRITE MULTIPLE; 0 when these are off.
    multiple: u8,
}

impl Disk {
    /// The channel, with a disk if `config` has one.
    ///
    /// # Errors
    /// When the image cannot be opened or is no disk's.
    pub fn new(config: Option<&DiskConfig>, line: Arc<dyn Interrupt>) -> Result<Disk, Error> {
        Ok(Disk::with_image(config.map(Image::open).transpose()?, line))
    }

    /// The size of the disk's image in bytes; 0 without a disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.sectors() * image::SECTOR as u64)
    }

    /// By what the disk is known again, if there is one.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub(crate) fn identity(&self) -> Result<Option<DiskIdentity>, Error> {
        self.image.as_ref().map(Image::identity).transpose()
    }

    fn with_image(image: Option<Image>, line: Arc<dyn Interrupt>) -> Disk {
        Disk {
            line,
            image,
            task: TaskFile::signature(),
            status: Status::READY | Status::SEEK_COMPLETE,
            error: ErrorBits::DIAGNOSTIC_PASSED,
            control: Control::empty(),
            transfer: None,
            interrupt_pending: false,
            geometry: Geometry::DEFAULT,
            multiple: 0,
        }
    }

    fn check(&self, state: &DiskState) -> Result<(), &'static str> {
        let sectors = self.image.as_ref().map_or(0, Image::sectors);
        let plausible = |transfer: &Transfer| transfer.is_plausible(sectors);
        require(state.transfer.as_ref().is_none_or(plausible), "a transfer leaves its disk")?;
        require(state.multiple <= MAX_MULTIPLE, "a block has too many sectors")
    }

    /// The disk drives the line only while it is selected and may.
    fn update_line(&self) {
        let connected = !self.control.contains(Control::NO_INTERRUPT) && !self.task.selects_slave();
        self.line.set(self.interrupt_pending && connected);
    }

    fn read_register(&mut self, offset: u32) -> u8 {
        let previous = self.control.contains(Control::SHOW_PREVIOUS);
        match offset {
            DEVICE => self.task.read(DEVICE, false),
            // The master answers for the absent slave: with nothing.
            _ if self.task.selects_slave() => 0,
            ERROR => self.error.bits(),
            STATUS => {
                self.interrupt_pending = false;
                self.status.bits()
            }
            CONTROL => self.status.bits(),
            _ => self.task.read(offset, previous),
        }
    }

    fn write_register(&mut self, offset: u32, value: u8) {
        match offset {
            CONTROL => self.write_control(value),
            _ if self.control.contains(Control::RESET) => {}
            STATUS => {
                self.interrupt_pending = false;
                if !self.task.selects_slave() || value == DIAGNOSE {
                    self.command(value);
                }
            }
            _ => {
                // Any write turns the view back to the current values.
                self.control.remove(Control::SHOW_PREVIOUS);
                self.task.write(offset, value);
            }
        }
    }

    fn write_control(&mut self, value: u8) {
        let value = Control::from_bits_truncate(value);
        let was_reset = self.control.contains(Control::RESET);
        self.control = value;
        if value.contains(Control::RESET) {
            self.transfer = None;
            self.interrupt_pending = false;
            self.status = Status::BUSY;
        } else if was_reset {
            self.show_signature();
        }
    }

    /// Moves bytes between the data port and the block, until either ends.
    fn move_data(&mut self, direction: Direction, step: impl FnOnce(&mut [u8]) -> usize) {
        let Some(transfer) = self.transfer.as_mut().filter(|t| t.direction == direction) else {
            return;
        };
        transfer.done += step(&mut transfer.buffer[transfer.done..]);
        if transfer.done == transfer.buffer.len() {
            self.block_done();
        }
    }

    fn read_data(&mut self, data: &mut [u8]) {
        self.move_data(Direction::ToGuest, |block| {
            let length = data.len().min(block.len());
            data[..length].copy_from_slice(&block[..length]);
            length
        });
    }

    fn write_data(&mut self, data: &[u8]) {
        self.move_data(Direction::FromGuest, |block| {
            let length = data.len().min(block.len());
            block[..length].copy_from_slice(&data[..length]);
            length
        });
    }
}

saved! {
    Disk as DiskState;
    saved {
        task: TaskFile,
        status: Status,
        error: ErrorBits,
        control: Control,
        transfer: Option<Transfer>,
        interrupt_pending: bool,
        geometry: Geometry,
        multiple: u8,
    }
    kept { line, image }
    check Disk::check;
}

impl Device for Disk {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        if self.image.is_none() {
            return;
        }
        if offset == DATA {
            self.read_data(data);
        } else {
            for (offset, byte) in (offset..).zip(data) {
                *byte = self.read_register(offset);
            }
        }
        self.update_line();
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        if self.image.is_none() {
            return;
        }
        if offset == DATA {
            self.write_data(data);
        } else {
            for (offset, byte) in (offset..).zip(data) {
                self.write_register(offset, *byte);
            }
        }
        self.update_line();
    }

    fn width(&self) -> usize {
        4
    }

    fn reset(&mut self) {
        *self = Disk::with_image(self.image.take(), self.line.clone());
        self.update_line();
    }
}
