//! What devices and the host tell the running strategy: interrupt lines, requests, attention.
//!
//! All of it is atomic, so that another host thread (a terminal reader, a Ctrl-C handler) may use
//! it while a strategy runs the guest. A strategy polls [`Signals::attention`], one load, and calls
//! [`Machine::service`](crate::Machine::service) when it is set.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the guest wants, or is made, to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Request {
    /// The guest wrote this value to the exit port; the process status is `2 * value + 1`.
    Exit(u8),
    /// The guest asked for a reset (keyboard controller, port 0x92, or 0xCF9).
    Reset,
    /// The guest asked to be switched off.
    PowerOff,
    /// The host asked for a stop.
    Stop,
}

impl Request {
    fn code(self) -> u32 {
        match self {
            Request::Exit(value) => 0x100 | u32::from(value),
            Request::Reset => 0x200,
            Request::PowerOff => 0x300,
            Request::Stop => 0x400,
        }
    }

    fn from_code(code: u32) -> Option<Request> {
        match code {
            0 => None,
            0x100..=0x1ff => Some(Request::Exit((code & 0xff) as u8)),
            0x200 => Some(Request::Reset),
            0x300 => Some(Request::PowerOff),
            _ => Some(Request::Stop),
        }
    }
}

/// The lines between devices, host and strategy.
#[derive(Debug, Default)]
pub struct Signals {
    levels: AtomicU16,
    edges: AtomicU16,
    request: AtomicU32,
    attention: AtomicBool,
    sleeping: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
}

/// What is saved of the lines: all but what the host asked for.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SignalsState {
    levels: u16,
    edges: u16,
    request: Option<Request>,
    attention: bool,
}

impl Signals {
    /// Whether something happened that the strategy has to look at. One relaxed load.
    #[inline]
    #[must_use]
    pub fn attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed)
    }

    /// Makes the running strategy look at the machine soon.
    pub fn raise_attention(&self) {
        // Sequentially consistent with `wait`: either the sleeper sees the attention, or this the sleeper.
        if !self.attention.swap(true, Ordering::SeqCst) && self.sleeping.load(Ordering::SeqCst) {
            // Taken so that a sleeper that has just found no attention is waiting when this wakes.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// Sleeps until attention is raised, at most for `limit`.
    pub fn wait(&self, limit: Duration) {
        let guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.store(true, Ordering::SeqCst);
        let asleep = |_: &mut ()| !self.attention.load(Ordering::SeqCst);
        let _ = self.wake.wait_timeout_while(guard, limit, asleep);
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Clears and returns the attention flag.
    pub fn take_attention(&self) -> bool {
        self.attention.swap(false, Ordering::Acquire)
    }

    /// Asks the strategy to stop; the first request stands until it is taken.
    pub fn request(&self, request: Request) {
        let code = request.code();
        let _ = self.request.compare_exchange(0, code, Ordering::AcqRel, Ordering::Relaxed);
        self.raise_attention();
    }

    /// Takes the pending request, if any.
    pub fn take_request(&self) -> Option<Request> {
        Request::from_code(self.request.swap(0, Ordering::AcqRel))
    }

    /// What the guest asked for, if that still stands.
    pub(crate) fn guest_request(&self) -> Option<Request> {
        let request = Request::from_code(self.request.load(Ordering::Acquire));
        request.filter(|&request| request != Request::Stop)
    }

    /// What is saved of the lines.
    pub(crate) fn state(&self) -> SignalsState {
        SignalsState {
            levels: self.levels(),
            edges: self.edges.load(Ordering::Acquire),
            request: self.guest_request(),
            attention: self.attention(),
        }
    }

    /// Lines in a saved state.
    pub(crate) fn from_state(state: &SignalsState) -> Signals {
        Signals {
            levels: AtomicU16::new(state.levels),
            edges: AtomicU16::new(state.edges),
            request: AtomicU32::new(state.request.map_or(0, Request::code)),
            attention: AtomicBool::new(state.attention),
            ..Signals::default()
        }
    }

    /// The levels of the sixteen interrupt lines, a bit each.
    #[must_use]
    pub fn levels(&self) -> u16 {
        self.levels.load(Ordering::Acquire)
    }

    /// Takes the lines that rose since the last call, a bit each.
    pub fn take_edges(&self) -> u16 {
        self.edges.swap(0, Ordering::AcqRel)
    }

    fn set_line(&self, irq: u8, level: bool) {
        let bit = 1u16 << (irq & 15);
        // Nobody else drives this line: what it has already costs no exclusive access.
        if (self.levels.load(Ordering::Acquire) & bit != 0) == level {
            return;
        }
        if level {
            if self.levels.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
                self.edges.fetch_or(bit, Ordering::AcqRel);
                self.raise_attention();
            }
        } else if self.levels.fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
            self.raise_attention();
        }
    }
}

/// How a device raises its interrupt. It knows neither the number of its line nor the controller.
pub trait Interrupt: Send + Sync {
    /// Drives the line high or low.
    fn set(&self, level: bool);
}

/// One of the sixteen ISA interrupt lines.
#[derive(Clone, Debug)]
pub struct InterruptLine {
    signals: Arc<Signals>,
    irq: u8,
}

impl InterruptLine {
    /// Line `irq` (0 to 15).
    #[must_use]
    pub fn new(signals: Arc<Signals>, irq: u8) -> InterruptLine {
        InterruptLine { signals, irq }
    }
}

impl Interrupt for InterruptLine {
    fn set(&self, level: bool) {
        self.signals.set_line(self.irq, level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reports_its_edge_once() {
        let signals = Arc::new(Signals::default());
        let line = InterruptLine::new(signals.clone(), 3);
        line.set(true);
        line.set(true);
        assert_eq!(signals.levels(), 8);
        assert_eq!(signals.take_edges(), 8);
        assert_eq!(signals.take_edges(), 0);
        line.set(false);
        line.set(true);
        assert_eq!(signals.take_edges(), 8);
        assert!(signals.take_attention());
    }

    #[test]
    fn the_first_request_stands() {
        let signals = Signals::default();
        signals.request(Request::Exit(0x31));
        signals.request(Request::Reset);
        assert_eq!(signals.take_request(), Some(Request::Exit(0x31)));
        assert_eq!(signals.take_request(), None);
    }
}
