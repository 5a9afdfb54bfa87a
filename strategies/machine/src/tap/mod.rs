//! A tap on everything that a guest gets from outside, so that a run can be repeated.
//!
//! Between two events from outside a CPU does the same from the same state. The tap sits where all
//! strategies pass: at the bus (ports, device memory), at [`Machine::read_tsc`], and where an
//! interrupt is acknowledged. It is off, and then costs a branch; or it records; or it replays: then
//! no device is touched, reads come from the log, and what the guest writes is compared with what it
//! wrote when it was recorded.
//!
//! ```text
//! recorded                                     replayed
//! in al, 0x60     PortRead 0x60, 1, 0x1c       in al, 0x60     0x1c from the log
//! out 0xf4, al    PortWrite 0xf4, 1, 0x1c      out 0xf4, al    the same: on
//!                 Request Exit(0x1c)                           the run is asked to end
//! (interrupt)     Interrupt 0x20 at 9001       after 9001 instructions an interrupt is requested
//! ```
//!
//! Interrupts have a place: how many instructions were executed since the recording began, and EIP.
//! A strategy that replays counts instructions as the emulator does and calls
//! [`Machine::service`] when [`Machine::replay_distance`] says so.
//!
//! What the architecture leaves to the CPU can be in a log as well ([`Choice`]), of a strategy that has
//! made it otherwise than the emulator.
//!
//! The first thing that is not as recorded is kept ([`Machine::divergence`]) and ends the run with
//! [`Request::Stop`]. After a replay the devices are as before it, so
//! the machine cannot be run on without the log.
//!
//! [`Machine::service`]: crate::Machine::service
//! [`Machine::read_tsc`]: crate::Machine::read_tsc
//! [`Machine::replay_distance`]: crate::Machine::replay_distance
//! [`Machine::divergence`]: crate::Machine::divergence

mod bus;
mod divergence;
mod event;
mod file;
mod machine;
mod player;
mod recorder;

pub use divergence::{Divergence, Expected, Found};
pub use event::{Choice, Data, Event, Position};
pub use file::LogWriter;

use crate::signals::{Request, Signals};
use player::Player;
use recorder::Recorder;
use std::sync::Arc;

/// The tap of a machine.
#[derive(Debug)]
pub struct Tap {
    signals: Arc<Signals>,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Off,
    Record(Box<Recorder>),
    Replay(Box<Player>),
}

impl Tap {
    /// A tap that is off.
    pub(crate) fn new(signals: Arc<Signals>) -> Tap {
        Tap { signals, mode: Mode::Off }
    }

    /// Whether nothing is recorded or replayed.
    #[inline(always)]
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.mode, Mode::Off)
    }

    /// Whether what comes from outside comes from a log.
    #[inline]
    #[must_use]
    pub fn replays(&self) -> bool {
        matches!(self.mode, Mode::Replay(_))
    }

    /// Ends a recording or a replay, whatever is left.
    pub fn switch_off(&mut self) {
        self.mode = Mode::Off;
    }

    fn player(&self) -> Option<&Player> {
        match &self.mode {
            Mode::Replay(player) => Some(player),
            _ => None,
        }
    }

    fn player_mut(&mut self) -> Option<&mut Player> {
        match &mut self.mode {
            Mode::Replay(player) => Some(player),
            _ => None,
        }
    }

    /// Keeps an event, if this is a recording.
    fn record(&mut self, event: Event) {
        if let Mode::Record(recorder) = &mut self.mode
            && (!recorder.push(event) || recorder.has_enough())
        {
            // What goes on for long now could not be repeated, or not in a time that somebody has.
            self.signals.request(Request::Stop);
        }
    }
}
