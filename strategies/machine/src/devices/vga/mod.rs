//! A VGA as far as text needs it: registers that read back, video memory, and what the screen shows.
//!
//! Offsets are those from port 0x3C0; the monochrome ports 0x3B4, 0x3B5 and 0x3BA are the same
//! registers. The adapter is as a BIOS leaves it in mode 3, since boot protocols skip the BIOS. It
//! has no BIOS, no fonts, no planes, and no interrupt.

mod dac;
mod memory;
mod registers;
mod screen;
#[cfg(test)]
mod tests;

pub use memory::VgaMemory;
pub use screen::{COLUMNS, Cell, ROWS, TextScreen};

use crate::bus::Device;
use crate::clock::{Clock, Nanos};
use crate::devices::state::{require, saved};
use dac::Dac;
use registers::Bank;
use std::sync::Arc;

/// A line at 31.469 kHz, and the part of it that is shown.
const LINE: Nanos = 31_778;
const LINE_SHOWN: Nanos = 25_422;
/// Lines in a frame at 70 Hz, those shown, and those of the vertical retrace pulse.
const FRAME_LINES: Nanos = 449;
const LINES_SHOWN: Nanos = 400;
const RETRACE_LINES: std::ops::Range<Nanos> = 412..414;

/// Input status 1: blanked, and in vertical retrace.
const BLANKED: u8 = 0x01;
const RETRACE: u8 = 0x08;

/// The attribute controller's index also says whether the screen is on.
const ATTRIBUTE_INDEX: u8 = 0x1f;
const SCREEN_ON: u8 = 0x20;

/// The VGA.
pub struct Vga {
    /// What lies between 0xA0000 and 0xBFFFF.
    pub memory: VgaMemory,
    clock: Arc<Clock>,
    crt_controller: Bank<25>,
    sequencer: Bank<5>,
    graphics: Bank<9>,
    attribute: Bank<21>,
    /// The next write to the attribute controller is data, not an index.
    attribute_data: bool,
    miscellaneous: u8,
    feature: u8,
    dac: Dac,
}

impl Vga {
    /// An adapter in mode 3 with a blank screen.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Vga {
        let mut attribute = Bank::new(registers::ATTRIBUTE);
        attribute.index = SCREEN_ON;
        Vga {
            memory: VgaMemory::new(),
            clock,
            crt_controller: Bank::new(registers::CRT_CONTROLLER),
            sequencer: Bank::new(registers::SEQUENCER),
            graphics: Bank::new(registers::GRAPHICS),
            attribute,
            attribute_data: false,
            miscellaneous: registers::MISCELLANEOUS,
            feature: 0,
            dac: Dac::new(),
        }
    }

    fn check(&self, state: &VgaState) -> Result<(), &'static str> {
        require(state.memory.is_plausible(), "video memory has another size")?;
        require(state.dac.is_plausible(), "a colour has more than three components")
    }

    /// The attribute controller has one port for index and data, which a flip-flop tells apart.
    fn write_attribute(&mut self, value: u8) {
        if self.attribute_data {
            let screen_on = self.attribute.index & SCREEN_ON;
            self.attribute.index &= ATTRIBUTE_INDEX;
            self.attribute.write(value);
            self.attribute.index |= screen_on;
        } else {
            self.attribute.index = value & (ATTRIBUTE_INDEX | SCREEN_ON);
        }
        self.attribute_data = !self.attribute_data;
    }

    fn read_attribute_data(&self) -> u8 {
        let index = self.attribute.index & ATTRIBUTE_INDEX;
        self.attribute.registers.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Input status 1, whose read resets the attribute controller's flip-flop.
    fn input_status(&mut self) -> u8 {
        self.attribute_data = false;
        let at = self.clock.now();
        let (line, in_line) = (at / LINE % FRAME_LINES, at % LINE);
        let blanked = line >= LINES_SHOWN || in_line >= LINE_SHOWN;
        let retrace = RETRACE_LINES.contains(&line);
        (if blanked { BLANKED } else { 0 }) | (if retrace { RETRACE } else { 0 })
    }

    fn read_register(&mut self, offset: u32) -> Option<u8> {
        Some(match offset {
            0x00 => self.attribute.index,
            0x01 => self.read_attribute_data(),
            // Input status 0: a monitor is there.
            0x02 => 0x10,
            0x04 => self.sequencer.index,
            0x05 => self.sequencer.read(),
            0x06 => self.dac.mask,
            0x07 => self.dac.state(),
            0x08 => self.dac.write_index(),
            0x09 => self.dac.read(),
            0x0a => self.feature,
            0x0c => self.miscellaneous,
            0x0e => self.graphics.index,
            0x0f => self.graphics.read(),
            0x14 => self.crt_controller.index,
            0x15 => self.crt_controller.read(),
            0x1a => self.input_status(),
            _ => return None,
        })
    }

    fn write_register(&mut self, offset: u32, value: u8) {
        match offset {
            0x00 => self.write_attribute(value),
            0x02 => self.miscellaneous = value,
            0x04 => self.sequencer.index = value,
            0x05 => self.sequencer.write(value),
            0x06 => self.dac.mask = value,
            0x07 => self.dac.begin_reading(value),
            0x08 => self.dac.begin_writing(value),
            0x09 => self.dac.write(value),
            0x0e => self.graphics.index = value,
            0x0f => self.graphics.write(value),
            0x14 => self.crt_controller.index = value,
            0x15 => self.crt_controller.write_crt(value),
            0x1a => self.feature = value,
            _ => {}
        }
    }
}

saved! {
    Vga as VgaState;
    saved {
        memory: VgaMemory,
        crt_controller: Bank<25>,
        sequencer: Bank<5>,
        graphics: Bank<9>,
        attribute: Bank<21>,
        attribute_data: bool,
        miscellaneous: u8,
        feature: u8,
        dac: Dac,
    }
    kept { clock }
    check Vga::check;
}

impl Device for Vga {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        if let Some(value) = self.read_register(offset) {
            data[0] = value;
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        self.write_register(offset, data[0]);
    }

    fn reset(&mut self) {
        *self = Vga::new(self.clock.clone());
    }
}
