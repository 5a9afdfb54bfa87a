//! Port 0xF4: a write of `v` ends the run with process status `2 * v + 1`, as QEMU's
//! isa-debug-exit does.

use crate::bus::Device;
use crate::devices::state::saved;
use crate::signals::{Request, Signals};
use std::sync::Arc;

/// The exit port.
pub struct ExitPort {
    signals: Arc<Signals>,
}

impl ExitPort {
    /// An exit port that asks through `signals`.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> ExitPort {
        ExitPort { signals }
    }
}

saved! {
    ExitPort as ExitPortState;
    saved {}
    kept { signals }
}

impl Device for ExitPort {
    fn read(&mut self, _offset: u32, data: &mut [u8]) {
        data[0] = 0;
    }

    fn write(&mut self, _offset: u32, data: &[u8]) {
        self.signals.request(Request::Exit(data[0]));
    }

    fn width(&self) -> usize {
        4
    }
}
