//! What the disk does on a command (ATA/ATAPI-6, chapter 8).

use super::geometry::Geometry;
use super::identify::identify;
use super::image::{Image, SECTOR};
use super::taskfile::{TaskFile, Width};
use super::{Disk, ErrorBits, MAX_MULTIPLE, Status};

/// A transfer of data through the data port, a block at a time.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Transfer {
    pub(super) direction: Direction,
    pub(super) buffer: Vec<u8>,
    /// Bytes of the buffer that went through the port.
    pub(super) done: usize,
    /// The first sector of the buffer.
    sector: u64,
    /// Sectors after this block.
    left: u64,
    /// Sectors in a block.
    block: u64,
    width: Width,
}

/// Where the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Direction {
    ToGuest,
    FromGuest,
}

impl Transfer {
    /// Whether a transfer with a disk of so many sectors can be in this state.
    pub(super) fn is_plausible(&self, sectors: u64) -> bool {
        let here = (self.buffer.len() / SECTOR) as u64;
        let blocks = 1..=u64::from(MAX_MULTIPLE);
        let end = here.checked_add(self.left).and_then(|count| self.sector.checked_add(count));
        self.buffer.len().is_multiple_of(SECTOR)
            && here <= u64::from(MAX_MULTIPLE)
            && self.done < self.buffer.len()
            && blocks.contains(&self.block)
            && end.is_some_and(|end| end <= sectors)
    }
}

impl Disk {
    /// Executes a command; whatever was going on before ends.
    pub(super) fn command(&mut self, command: u8) {
        self.transfer = None;
        self.error = ErrorBits::empty();
        self.status = Status::READY | Status::SEEK_COMPLETE;
        match command {
            0x20 | 0x21 => self.begin(Direction::ToGuest, Width::Short, 1),
            0x24 => self.begin(Direction::ToGuest, Width::Extended, 1),
            0x29 => self.begin(Direction::ToGuest, Width::Extended, self.multiple),
            0xc4 => self.begin(Direction::ToGuest, Width::Short, self.multiple),
            0x30 | 0x31 => self.begin(Direction::FromGuest, Width::Short, 1),
            0x34 => self.begin(Direction::FromGuest, Width::Extended, 1),
            0x39 => self.begin(Direction::FromGuest, Width::Extended, self.multiple),
            0xc5 => self.begin(Direction::FromGuest, Width::Short, self.multiple),
            0x40 | 0x41 => self.verify(Width::Short, true),
            0x42 => self.verify(Width::Extended, true),
            0x70..=0x7f => self.verify(Width::Short, false),
            0x90 => self.diagnose(),
            0x91 => self.initialize_parameters(),
            0xc6 => self.set_multiple(),
            0xe5 => {
                // Active or idle.
                self.task.set_raw_count(0xff);
                self.interrupt();
            }
            // RECALIBRATE, and the power modes: nothing spins here.
            0x10..=0x1f | 0xe0..=0xe3 | 0xe6 => self.interrupt(),
            0xe7 | 0xea => self.flush(),
            0xec => self.identify(),
            0xef => self.set_features(),
            _ => self.fail(ErrorBits::ABORTED),
        }
    }

    fn interrupt(&mut self) {
        self.interrupt_pending = true;
    }

    /// Ends the command with an error.
    pub(super) fn fail(&mut self, error: ErrorBits) {
        self.transfer = None;
        self.error = error;
        self.status = Status::READY | Status::SEEK_COMPLETE | Status::ERROR;
        self.interrupt();
    }

    fn fail_at(&mut self, sector: u64, width: Width, error: ErrorBits) {
        self.task.set_sector(sector, width, self.geometry);
        self.fail(error);
    }

    /// The sectors that the registers name, if the disk has them.
    fn range(&self, width: Width) -> Option<(u64, u64)> {
        let (first, count) = (self.task.sector(width, self.geometry)?, self.task.count(width));
        self.image.as_ref()?.holds(first, count).then_some((first, count))
    }

    fn begin(&mut self, direction: Direction, width: Width, block: u8) {
        let read_only = self.image.as_ref().is_some_and(Image::is_read_only);
        if block == 0 || (direction == Direction::FromGuest && read_only) {
            return self.fail(ErrorBits::ABORTED);
        }
        let Some((sector, count)) = self.range(width) else {
            return self.fail(ErrorBits::ID_NOT_FOUND);
        };
        let transfer = Transfer {
            direction,
            buffer: Vec::new(),
            done: 0,
            sector,
            left: count,
            block: u64::from(block),
            width,
        };
        self.next_block(transfer);
        if direction == Direction::FromGuest {
            // The first block of a write is asked for without an interrupt.
            self.interrupt_pending = false;
        }
    }

    /// Offers the next block of a transfer, or ends it.
    fn next_block(&mut self, mut transfer: Transfer) {
        let sectors = transfer.left.min(transfer.block);
        transfer.left -= sectors;
        transfer.done = 0;
        transfer.buffer.resize(sectors as usize * SECTOR, 0);
        if transfer.direction == Direction::ToGuest && !self.read_block(&mut transfer) {
            return self.fail_at(transfer.sector, transfer.width, ErrorBits::UNCORRECTABLE);
        }
        self.offer(transfer);
    }

    fn read_block(&self, transfer: &mut Transfer) -> bool {
        let image = self.image.as_ref();
        image.is_some_and(|image| image.read(transfer.sector, &mut transfer.buffer).is_ok())
    }

    fn offer(&mut self, transfer: Transfer) {
        self.transfer = Some(transfer);
        self.status = Status::READY | Status::SEEK_COMPLETE | Status::DATA_REQUEST;
        self.interrupt();
    }

    /// The guest moved the last byte of a block.
    pub(super) fn block_done(&mut self) {
        let Some(mut transfer) = self.transfer.take() else { return };
        self.status = Status::READY | Status::SEEK_COMPLETE;
        let writes = transfer.direction == Direction::FromGuest;
        if writes && !self.write_block(&transfer) {
            return self.fail_at(transfer.sector, transfer.width, ErrorBits::UNCORRECTABLE);
        }
        if transfer.left > 0 {
            transfer.sector += (transfer.buffer.len() / SECTOR) as u64;
            self.next_block(transfer);
        } else if writes {
            self.interrupt();
        }
    }

    fn write_block(&self, transfer: &Transfer) -> bool {
        let image = self.image.as_ref();
        image.is_some_and(|image| image.write(transfer.sector, &transfer.buffer).is_ok())
    }

    /// READ VERIFY, which reads what it checks, and SEEK, which takes one address.
    fn verify(&mut self, width: Width, reads: bool) {
        let sector = self.task.sector(width, self.geometry);
        let count = if reads { self.task.count(width) } else { 1 };
        let (Some(first), Some(image)) = (sector, &self.image) else {
            return self.fail(ErrorBits::ID_NOT_FOUND);
        };
        if !image.holds(first, count) {
            return self.fail(ErrorBits::ID_NOT_FOUND);
        }
        let mut data = [0; SECTOR];
        let bad = |sector: &u64| image.read(*sector, &mut data).is_err();
        let bad = if reads { (first..first + count).find(bad) } else { None };
        match bad {
            Some(sector) => self.fail_at(sector, width, ErrorBits::UNCORRECTABLE),
            None => self.interrupt(),
        }
    }

    /// EXECUTE DEVICE DIAGNOSTIC: device 0 passed, and there is no device 1.
    fn diagnose(&mut self) {
        self.show_signature();
        self.interrupt();
    }

    /// What the registers show after a reset.
    pub(super) fn show_signature(&mut self) {
        self.task = TaskFile::signature();
        self.error = ErrorBits::DIAGNOSTIC_PASSED;
        self.status = Status::READY | Status::SEEK_COMPLETE;
    }

    fn initialize_parameters(&mut self) {
        let (sectors, heads) = (self.task.raw_count(), self.task.head() + 1);
        if sectors == 0 {
            return self.fail(ErrorBits::ABORTED);
        }
        self.geometry = Geometry { heads, sectors };
        self.interrupt();
    }

    fn set_multiple(&mut self) {
        let count = self.task.raw_count();
        if count > MAX_MULTIPLE || (count != 0 && !count.is_power_of_two()) {
            self.multiple = 0;
            return self.fail(ErrorBits::ABORTED);
        }
        self.multiple = count;
        self.interrupt();
    }

    fn flush(&mut self) {
        match self.image.as_ref().map(Image::flush) {
            Some(Ok(())) => self.interrupt(),
            _ => self.fail(ErrorBits::UNCORRECTABLE),
        }
    }

    fn identify(&mut self) {
        let Some(image) = &self.image else { return self.fail(ErrorBits::ABORTED) };
        let buffer = identify(image.sectors(), Geometry::DEFAULT, self.geometry, self.multiple);
        self.offer(Transfer {
            direction: Direction::ToGuest,
            buffer,
            done: 0,
            sector: 0,
            left: 0,
            block: 1,
            width: Width::Short,
        });
    }

    /// Write cache, look-ahead and defaults make no difference here; of the transfer modes there is
    /// PIO.
    fn set_features(&mut self) {
        match (self.task.features(), self.task.raw_count()) {
            (0x02 | 0x82 | 0x55 | 0xaa | 0x66 | 0xcc, _) | (0x03, 0x00..=0x0c) => self.interrupt(),
            _ => self.fail(ErrorBits::ABORTED),
        }
    }
}
