//! How long a strategy runs, and why it stopped.

use machine::signals::Request;
use std::time::Instant;

/// When a run ends at the latest. The host can end it earlier with
/// [`Signals::request`](machine::signals::Signals::request) and [`Request::Stop`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limit {
    /// About this many instructions; a strategy that cannot count instructions runs about as long
    /// as that many take. One that can count stops exactly there.
    pub instructions: Option<u64>,
    /// Not past this moment (checked at least every millisecond).
    pub deadline: Option<Instant>,
}

impl Limit {
    /// No limit: until the guest stops.
    #[must_use]
    pub fn none() -> Limit {
        Limit::default()
    }

    /// About `count` instructions.
    #[must_use]
    pub fn instructions(count: u64) -> Limit {
        Limit { instructions: Some(count), deadline: None }
    }

    /// Until `deadline`.
    #[must_use]
    pub fn until(deadline: Instant) -> Limit {
        Limit { instructions: None, deadline: Some(deadline) }
    }
}

/// Why a run ended. The machine can always be run on, except after a triple fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The limit was reached.
    Limit,
    /// The guest wrote to the exit port; the process status is `2 * value + 1`.
    Exit(u8),
    /// The guest asked for a reset.
    Reset,
    /// The guest switched itself off.
    PowerOff,
    /// The host asked for a stop.
    Requested,
    /// The guest waits in HLT with interrupts off, for ever.
    Halted,
    /// A triple fault: the CPU shut down (Intel SDM volume 3, 6.15, #DF).
    TripleFault,
}

impl From<Request> for Stop {
    fn from(request: Request) -> Stop {
        match request {
            Request::Exit(value) => Stop::Exit(value),
            Request::Reset => Stop::Reset,
            Request::PowerOff => Stop::PowerOff,
            Request::Stop => Stop::Requested,
        }
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Limit => f.write_str("limit reached"),
            Stop::Exit(value) => write!(f, "guest exit with value {value:#x}"),
            Stop::Reset => f.write_str("guest reset"),
            Stop::PowerOff => f.write_str("guest power-off"),
            Stop::Requested => f.write_str("stopped by the host"),
            Stop::Halted => f.write_str("halted with interrupts off"),
            Stop::TripleFault => f.write_str("triple fault"),
        }
    }
}
