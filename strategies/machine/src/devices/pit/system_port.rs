//! Port 0x61, the PC's system control port B: speaker, gate and output of timer channel 2, and the
//! refresh toggle, which old software uses as a clock.

use crate::clock::Nanos;

/// The refresh request toggles at each DRAM refresh, about every 15 µs.
const REFRESH: Nanos = 15_085;

/// Gate, speaker and the two parity-check enables: what reads back as written.
const WRITABLE: u8 = 0x0f;

/// The bits of port 0x61 that are not the timer's own.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct SystemPort {
    written: u8,
}

impl SystemPort {
    /// The port at a moment, with the output of timer channel 2.
    pub(super) fn read(&self, at: Nanos, output: bool) -> u8 {
        let refresh = u8::from(at / REFRESH % 2 == 1);
        self.written | refresh << 4 | u8::from(output) << 5
    }

    /// Takes a write and returns the gate of timer channel 2.
    pub(super) fn write(&mut self, value: u8) -> bool {
        self.written = value & WRITABLE;
        value & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refresh_bit_toggles_with_time() {
        let port = SystemPort::default();
        assert_eq!(port.read(0, false), 0);
        assert_eq!(port.read(REFRESH, false), 0x10);
        assert_eq!(port.read(2 * REFRESH, false), 0);
    }

    #[test]
    fn only_the_four_writable_bits_read_back() {
        let mut port = SystemPort::default();
        assert!(port.write(0xff));
        assert_eq!(port.read(0, true), 0x2f);
        assert!(!port.write(0xf2));
        assert_eq!(port.read(0, false), 0x02);
    }
}
