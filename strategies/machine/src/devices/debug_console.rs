//! Port 0xE9: a debug console whose bytes are kept with the host time of their arrival.
//!
//! Workloads write their begin and end marks and their result here; the harness reads the time
//! between marks. A read gives 0xE9, as on Bochs and QEMU, so that guests can find the port.

use crate::bus::Device;
use crate::devices::state::saved;
use crate::host_time;
use std::io::Write;
use std::time::Instant;

/// Bytes kept; a hostile guest cannot make the host run out of memory. Further ones only go to the
/// sink.
const KEPT: usize = 1 << 20;

/// One byte that the guest wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The byte.
    pub byte: u8,
    /// When it arrived.
    pub at: Instant,
}

/// The debug console.
#[derive(Default)]
pub struct DebugConsole {
    marks: Vec<Mark>,
    sink: Option<Box<dyn Write + Send>>,
}

impl DebugConsole {
    /// Where the bytes go as well.
    pub fn set_output(&mut self, sink: Box<dyn Write + Send>) {
        self.sink = Some(sink);
    }

    /// The bytes written since the last [`DebugConsole::take_marks`], oldest first.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Takes the bytes written.
    pub fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }
}

// What the guest wrote is the host's; the guest cannot tell.
saved! {
    DebugConsole as DebugConsoleState;
    saved {}
    kept { marks, sink }
}

impl Device for DebugConsole {
    fn read(&mut self, _offset: u32, data: &mut [u8]) {
        data[0] = 0xe9;
    }

    fn write(&mut self, _offset: u32, data: &[u8]) {
        if self.marks.len() < KEPT {
            self.marks.push(Mark { byte: data[0], at: host_time::instant() });
        }
        if let Some(sink) = &mut self.sink {
            // A console that is gone (a closed pipe) does not stop the guest.
            let _ = sink.write_all(data).and_then(|()| sink.flush());
        }
    }
}
