//! Banks of VGA registers behind an index, and the values that a BIOS leaves for 80x25 text.
//!
//! Values from IBM's VGA technical reference, mode 3.

use crate::devices::state::array;

/// CRT controller: 80 columns, 25 rows of 16 lines, cursor in lines 13 and 14.
pub(super) const CRT_CONTROLLER: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00,
    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
/// Sequencer.
pub(super) const SEQUENCER: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
/// Graphics controller.
pub(super) const GRAPHICS: [u8; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff];
/// Attribute controller: sixteen palette entries, then control.
pub(super) const ATTRIBUTE: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
    0x0c, 0x00, 0x0f, 0x08, 0x00,
];
/// Miscellaneous output: colour addresses, 28 MHz.
pub(super) const MISCELLANEOUS: u8 = 0x67;

/// Registers behind an index register.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Bank<const COUNT: usize> {
    pub(super) index: u8,
    #[serde(with = "array")]
    pub(super) registers: [u8; COUNT],
}

impl<const COUNT: usize> Bank<COUNT> {
    pub(super) fn new(registers: [u8; COUNT]) -> Bank<COUNT> {
        Bank { index: 0, registers }
    }

    /// The selected register; 0 where there is none.
    pub(super) fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index)).copied().unwrap_or(0)
    }

    /// Writes the selected register; nothing where there is none.
    pub(super) fn write(&mut self, value: u8) {
        if let Some(register) = self.registers.get_mut(usize::from(self.index)) {
            *register = value;
        }
    }
}

/// Start address, cursor location and shape, and the lock of the CRT controller's first registers.
pub(super) mod crt {
    pub(in super::super) const CURSOR_START: usize = 0x0a;
    pub(in super::super) const START_HIGH: usize = 0x0c;
    pub(in super::super) const CURSOR_HIGH: usize = 0x0e;
    pub(in super::super) const RETRACE_END: usize = 0x11;
    pub(in super::super) const OFFSET: usize = 0x13;
    /// In the register OVERFLOW, this bit is line compare's and never locked.
    pub(in super::super) const OVERFLOW: usize = 0x07;
    pub(in super::super) const LINE_COMPARE_8: u8 = 0x10;
    pub(in super::super) const LOCK: u8 = 0x80;
    pub(in super::super) const CURSOR_OFF: u8 = 0x20;
}

impl Bank<25> {
    /// Writes a CRT controller register, unless it is locked.
    pub(super) fn write_crt(&mut self, value: u8) {
        let index = usize::from(self.index);
        let locked = self.registers[crt::RETRACE_END] & crt::LOCK != 0 && index <= crt::OVERFLOW;
        if !locked {
            self.write(value);
        } else if index == crt::OVERFLOW {
            let kept = self.read() & !crt::LINE_COMPARE_8;
            self.write(kept | value & crt::LINE_COMPARE_8);
        }
    }

    /// Two registers that make one number, high byte first.
    pub(super) fn pair(&self, high: usize) -> u16 {
        u16::from_be_bytes([self.registers[high], self.registers[high + 1]])
    }
}
