//! Port 0x92, system control port A: the fast A20 gate and the fast reset.
//!
//! The A20 bit reads back as written, so that guests which wait for it go on, but A20 is always
//! open, as on CPUs since Haswell, which have no A20M# pin any more (Intel SDM volume 3, "External Signal Compatibility").

use crate::bus::Device;
use crate::devices::state::saved;
use crate::signals::{Request, Signals};
use std::sync::Arc;

const RESET: u8 = 0x01;
const A20: u8 = 0x02;

/// System control port A.
pub struct FastGate {
    signals: Arc<Signals>,
    written: u8,
}

impl FastGate {
    /// A gate that shows A20 as open.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> FastGate {
        FastGate { signals, written: A20 }
    }
}

saved! {
    FastGate as FastGateState;
    saved { written: u8, }
    kept { signals }
}

impl Device for FastGate {
    fn read(&mut self, _offset: u32, data: &mut [u8]) {
        data[0] = self.written;
    }

    fn write(&mut self, _offset: u32, data: &[u8]) {
        let rises = data[0] & !self.written & RESET != 0;
        self.written = data[0] & (A20 | RESET);
        if rises {
            self.signals.request(Request::Reset);
        }
    }

    fn reset(&mut self) {
        self.written = A20;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::read;

    #[test]
    fn the_a20_bit_reads_back_and_a_rise_of_bit_0_resets() {
        let signals = Arc::new(Signals::default());
        let mut gate = FastGate::new(signals.clone());
        assert_eq!(read(&mut gate, 0), 2);
        gate.write(0, &[0]);
        assert_eq!(read(&mut gate, 0), 0);
        assert_eq!(signals.take_request(), None);
        gate.write(0, &[3]);
        assert_eq!(signals.take_request(), Some(Request::Reset));
        gate.write(0, &[3]);
        assert_eq!(signals.take_request(), None, "it did not rise again");
    }
}
