//! The 8254 interval timer and port 0x61, through which the PC reaches its third channel.
//!
//! Offsets 0 to 3 are the 8254 (port 0x40), offset 4 the system port. Counters are computed from
//! the clock at exactly 1193182 Hz; nothing ticks.
//!
//! Channel 0 drives IRQ 0. The line stays high from one rise of the output to the next (or to a
//! control word that lowers it), also where a square wave would be low: so a request does not get
//! lost when the host is late. For the same reason rises that were missed altogether are not made
//! up: however late the host is, one request stands, as if the guest had had interrupts off.

mod channel;
mod system_port;
#[cfg(test)]
mod tests;
mod wave;

use crate::bus::Device;
use crate::clock::{Clock, LATEST, Nanos};
use crate::devices::state::{require, saved};
use crate::signals::{Interrupt, Signals};
use channel::Channel;
use std::sync::Arc;
use system_port::SystemPort;
use wave::Ticks;

/// Input clocks a second.
pub const FREQUENCY: u64 = 1_193_182;

const NANOS: u64 = 1_000_000_000;

/// The interval timer with the system port.
pub struct Pit {
    clock: Arc<Clock>,
    /// Told when a guest write moves the next rise.
    signals: Arc<Signals>,
    line: Arc<dyn Interrupt>,
    channels: [Channel; 3],
    /// Rises of channel 0 up to here have been delivered.
    delivered: Ticks,
    system_port: SystemPort,
}

impl Pit {
    /// A timer that was not programmed. `line` is its interrupt.
    #[must_use]
    pub fn new(signals: Arc<Signals>, clock: Arc<Clock>, line: Arc<dyn Interrupt>) -> Pit {
        let delivered = ticks(clock.now());
        Pit {
            clock,
            signals,
            line,
            // The gates of the first two channels are wired high.
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            delivered,
            system_port: SystemPort::default(),
        }
    }

    fn check(&self, state: &PitState) -> Result<(), &'static str> {
        let limit = ticks(LATEST);
        let plausible = |channel: &Channel| channel.is_plausible(limit);
        require(state.channels.iter().all(plausible), "a channel counts what no channel can")?;
        require(state.delivered < limit, "a tick in the far future was delivered")
    }

    fn now(&self) -> Ticks {
        ticks(self.clock.now())
    }

    fn pulse(&self) {
        self.line.set(false);
        self.line.set(true);
    }

    /// Does something to a channel; for channel 0 the interrupt line follows its output.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Channel, Ticks)) {
        if index > 0 {
            let now = self.now();
            return change(&mut self.channels[index], now);
        }
        self.advance();
        let now = self.delivered;
        let before = self.channels[0].output(now);
        change(&mut self.channels[0], now);
        match (before, self.channels[0].output(now)) {
            (false, true) => self.pulse(),
            (_, false) => self.line.set(false),
            (true, true) => {}
        }
        self.signals.raise_attention();
    }

    fn control(&mut self, value: u8) {
        match (value >> 6, value & 0x30) {
            (3, _) => self.read_back(value),
            (index, 0) => {
                let now = self.now();
                self.channels[usize::from(index)].latch_count(now);
            }
            (index, _) => self.change(usize::from(index), |channel, _| channel.control(value)),
        }
    }

    fn read_back(&mut self, value: u8) {
        let now = self.now();
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if value & 2 << index == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                channel.latch_count(now);
            }
            if value & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }

    fn read_system_port(&mut self) -> u8 {
        let at = self.clock.now();
        let output = self.channels[2].output(ticks(at));
        self.system_port.read(at, output)
    }

    fn write_system_port(&mut self, value: u8) {
        let gate = self.system_port.write(value);
        let now = self.now();
        self.channels[2].set_gate(gate, now);
    }
}

saved! {
    Pit as PitState;
    saved { channels: [Channel; 3], delivered: Ticks, system_port: SystemPort, }
    kept { clock, signals, line }
    check Pit::check;
}

impl Device for Pit {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        let now = self.now();
        match offset {
            index @ 0..=2 => data[0] = self.channels[index as usize].read(now),
            4 => data[0] = self.read_system_port(),
            // The control word cannot be read.
            _ => {}
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        let value = data[0];
        match offset {
            index @ 0..=2 => {
                self.change(index as usize, |channel, now| channel.write(value, now));
            }
            3 => self.control(value),
            _ => self.write_system_port(value),
        }
    }

    fn next_event(&self) -> Option<Nanos> {
        self.channels[0].next_rise(self.delivered).map(nanos)
    }

    fn advance(&mut self) {
        let now = self.now();
        if self.channels[0].next_rise(self.delivered).is_some_and(|rise| rise <= now) {
            self.pulse();
        }
        self.delivered = now;
    }

    fn reset(&mut self) {
        self.line.set(false);
        self.channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        self.system_port = SystemPort::default();
        self.delivered = self.now();
    }
}

/// Input clocks that have passed at a moment.
fn ticks(at: Nanos) -> Ticks {
    (u128::from(at) * u128::from(FREQUENCY) / u128::from(NANOS)) as Ticks
}

/// The first moment at which `ticks` input clocks have passed.
fn nanos(ticks: Ticks) -> Nanos {
    (u128::from(ticks) * u128::from(NANOS)).div_ceil(u128::from(FREQUENCY)) as Nanos
}
