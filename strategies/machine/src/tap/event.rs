//! What can come from outside, and what a guest does to it.

use crate::Fingerprint;
use crate::signals::Request;
use std::fmt;

/// A place in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Instructions executed by the emulator since the recording or the replay began.
    pub instructions: u64,
    /// The instruction pointer.
    pub eip: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instruction {}, EIP {:#010x}", self.instructions, self.eip)
    }
}

/// What an access to device memory moves: up to sixteen bytes.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Data {
    length: u8,
    bytes: [u8; Data::MOST],
}

impl Data {
    /// The most bytes.
    pub const MOST: usize = 16;

    /// The first sixteen of these bytes.
    #[must_use]
    pub fn new(data: &[u8]) -> Data {
        let length = data.len().min(Data::MOST);
        let mut bytes = [0; Data::MOST];
        bytes[..length].copy_from_slice(&data[..length]);
        Data { length: length as u8, bytes }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // A log that somebody made up may say anything.
        &self.bytes[..usize::from(self.length).min(Data::MOST)]
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.bytes())
    }
}

/// What a CPU did that the architecture leaves to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Choice {
    /// It set the accessed bit of what it only read ahead.
    Accessed {
        /// The physical address of the byte with the bit.
        address: u64,
        /// The byte.
        value: u8,
    },
    /// It left a value in flags that are undefined.
    Flags {
        /// EFLAGS.
        value: u32,
        /// Which of its bits.
        mask: u32,
    },
}

/// Something that passed the tap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Event {
    /// A port was read.
    PortRead {
        /// The first port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// What the guest got.
        value: u32,
    },
    /// A port was written.
    PortWrite {
        /// The first port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// What the guest wrote.
        value: u32,
    },
    /// Device memory was read.
    MmioRead {
        /// The physical address.
        address: u64,
        /// What the guest got.
        data: Data,
    },
    /// Device memory was written.
    MmioWrite {
        /// The physical address.
        address: u64,
        /// What the guest wrote.
        data: Data,
    },
    /// The time-stamp counter was read.
    TimeStamp(u64),
    /// An interrupt was acknowledged.
    Interrupt {
        /// Its vector.
        vector: u8,
        /// Before which instruction.
        at: Position,
    },
    /// The access before made a device ask for this.
    Request(Request),
    /// The CPU had done something of its own choice.
    Choice {
        /// What.
        choice: Choice,
        /// Before which instruction.
        at: Position,
    },
    /// The recording ended.
    End {
        /// Where.
        at: Position,
        /// In which state.
        fingerprint: Fingerprint,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::PortRead { port, size, value } => {
                write!(f, "a read of {size} bytes at port {port:#x} that gives {value:#x}")
            }
            Event::PortWrite { port, size, value } => {
                write!(f, "a write of {value:#x}, {size} bytes, to port {port:#x}")
            }
            Event::MmioRead { address, data } => {
                write!(f, "a read at device address {address:#x} that gives {data:?}")
            }
            Event::MmioWrite { address, data } => {
                write!(f, "a write of {data:?} to device address {address:#x}")
            }
            Event::TimeStamp(value) => write!(f, "a read of the time-stamp counter, {value}"),
            Event::Interrupt { vector, at } => write!(f, "interrupt {vector:#04x} at {at}"),
            Event::Choice { choice, at } => write!(f, "{choice:x?} at {at}"),
            Event::Request(request) => write!(f, "a request: {request:?}"),
            Event::End { at, fingerprint } => write!(f, "the end at {at}, in state {fingerprint}"),
        }
    }
}
