//! Where a replay left its log.

use super::event::{Data, Event, Position};
use crate::Fingerprint;
use std::fmt;

/// The first thing that was not as recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The number of the event in the log, from 0.
    pub index: u64,
    /// What the log says.
    pub expected: Expected,
    /// What the guest did.
    pub found: Found,
}

/// What comes next in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// This event.
    Event(Event),
    /// Nothing: the log has come to its end.
    Nothing,
    /// Nobody knows: the log is damaged, in this way.
    Unreadable(String),
}

/// What the guest did, or did not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It read a port.
    PortRead {
        /// The first port.
        port: u16,
        /// How many bytes.
        size: u8,
    },
    /// It wrote a port.
    PortWrite {
        /// The first port.
        port: u16,
        /// How many bytes.
        size: u8,
        /// What.
        value: u32,
    },
    /// It read device memory.
    MmioRead {
        /// The physical address.
        address: u64,
        /// How many bytes.
        size: usize,
    },
    /// It wrote device memory.
    MmioWrite {
        /// The physical address.
        address: u64,
        /// What.
        data: Data,
    },
    /// It read the time-stamp counter.
    TimeStamp,
    /// It took an interrupt here.
    Interrupt(Position),
    /// It came here, past the place of what should have happened.
    Passed(Position),
    /// It came here, where an interrupt should arrive, with interrupts held off.
    Masked(Position),
    /// It waits in HLT.
    Halt(Position),
    /// The replay was ended here, in this state.
    End {
        /// Where.
        at: Position,
        /// In which state.
        fingerprint: Fingerprint,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {}: expected {}, found {}", self.index, self.expected, self.found)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Event(event) => event.fmt(f),
            Expected::Nothing => f.write_str("nothing more"),
            Expected::Unreadable(error) => write!(f, "more of a log that is damaged ({error})"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::PortRead { port, size } => write!(f, "a read of {size} bytes at port {port:#x}"),
            Found::PortWrite { port, size, value } => {
                Event::PortWrite { port: *port, size: *size, value: *value }.fmt(f)
            }
            Found::MmioRead { address, size } => {
                write!(f, "a read of {size} bytes at device address {address:#x}")
            }
            Found::MmioWrite { address, data } => {
                Event::MmioWrite { address: *address, data: *data }.fmt(f)
            }
            Found::TimeStamp => f.write_str("a read of the time-stamp counter"),
            Found::Interrupt(at) => write!(f, "an interrupt at {at}"),
            Found::Passed(at) => write!(f, "that the guest went on to {at}"),
            Found::Masked(at) => write!(f, "interrupts held off at {at}"),
            Found::Halt(at) => write!(f, "a halt at {at}"),
            Found::End { at, fingerprint } => write!(f, "the end at {at}, in state {fingerprint}"),
        }
    }
}
