//! The serial port COM1: a 16550A with its FIFOs, interrupts, modem lines and loopback.
//!
//! `vm_superio::Serial` would be the natural choice, but it raises its interrupt as single events
//! and never takes it back, clears all causes when IIR is read (so a receive interrupt is lost when
//! a transmit interrupt stood too), and has no FCR, no modem status interrupt and no OUT2. Guests
//! with an edge-triggered 8259 need the line. The tests hold this device against `vm_superio`'s
//! where both must agree.
//!
//! Bytes are sent the moment they are written, whatever the divisor says. Received bytes wait in a
//! bounded mailbox and enter the FIFO as the guest reads it, so nothing is overrun.
//!
//! Registers follow the data sheet of the PC16550D (National Semiconductor, 1995).

mod registers;
#[cfg(test)]
mod tests;

use super::input::Mailbox;
use crate::bus::Device;
use crate::devices::state::{require, saved};
use crate::signals::Interrupt;
use registers::{FifoControl, Identification, InterruptEnable, LineStatus, ModemControl};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

/// LCR: the first two registers are the divisor.
const DIVISOR_ACCESS: u8 = 0x80;
/// MSR without a peer that would ever hang up: carrier, data set ready, clear to send.
const CONNECTED: u8 = 0xb0;
const FIFO_BYTES: usize = 16;

/// The serial port.
pub struct Serial {
    line: Arc<dyn Interrupt>,
    output: Option<Box<dyn Write + Send>>,
    input: Arc<Mailbox<u8>>,
    received: VecDeque<u8>,
    divisor: [u8; 2],
    enable: InterruptEnable,
    fifo: FifoControl,
    line_control: u8,
    modem_control: ModemControl,
    overrun: bool,
    modem_status: u8,
    modem_changes: u8,
    scratch: u8,
    /// The transmitter became empty and the guest was not told yet.
    transmitter_pending: bool,
}

impl Serial {
    /// A port after power-up, which takes its bytes from `input`.
    pub(super) fn new(line: Arc<dyn Interrupt>, input: Arc<Mailbox<u8>>) -> Serial {
        Serial {
            line,
            output: None,
            input,
            received: VecDeque::with_capacity(FIFO_BYTES),
            // 9600 baud.
            divisor: [12, 0],
            enable: InterruptEnable::empty(),
            fifo: FifoControl::empty(),
            line_control: 3,
            modem_control: ModemControl::empty(),
            overrun: false,
            modem_status: CONNECTED,
            modem_changes: 0,
            scratch: 0,
            transmitter_pending: false,
        }
    }

    fn check(&self, state: &SerialState) -> Result<(), &'static str> {
        require(state.received.len() <= FIFO_BYTES, "the FIFO holds more than it can")
    }

    /// Where the guest's output goes. Without a sink it is lost.
    pub fn set_output(&mut self, sink: Box<dyn Write + Send>) {
        self.output = Some(sink);
    }

    /// Puts bytes into the input queue and returns how many it took; see also
    /// [`HostInput::send_serial`](super::HostInput::send_serial).
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let taken = self.input.push(bytes);
        self.take_input();
        taken
    }

    /// Moves bytes from the mailbox into the receive FIFO.
    pub(super) fn take_input(&mut self) {
        self.refill();
        self.update_line();
    }

    fn refill(&mut self) {
        // In loopback the receiver is cut off from the line.
        if self.modem_control.contains(ModemControl::LOOPBACK) {
            return;
        }
        while self.received.len() < self.receive_capacity() {
            let Some(byte) = self.input.pop() else { break };
            self.received.push_back(byte);
        }
    }

    fn receive_capacity(&self) -> usize {
        if self.fifo.contains(FifoControl::ENABLE) { FIFO_BYTES } else { 1 }
    }

    /// The cause of an interrupt with the highest priority (PC16550D, table IV).
    fn cause(&self) -> Identification {
        let enabled = |cause| self.enable.contains(cause);
        if enabled(InterruptEnable::LINE_STATUS) && self.overrun {
            Identification::LineStatus
        } else if enabled(InterruptEnable::RECEIVED_DATA) && !self.received.is_empty() {
            // The time-out of four characters without a read counts as passed.
            if self.received.len() >= self.fifo.trigger_level() {
                Identification::ReceivedData
            } else {
                Identification::CharacterTimeout
            }
        } else if enabled(InterruptEnable::TRANSMITTER_EMPTY) && self.transmitter_pending {
            Identification::TransmitterEmpty
        } else if enabled(InterruptEnable::MODEM_STATUS) && self.modem_changes != 0 {
            Identification::ModemStatus
        } else {
            Identification::None
        }
    }

    /// On a PC, OUT2 connects the interrupt to the bus; loopback forces OUT2 high, that is, off.
    fn update_line(&self) {
        let connected = self.modem_control.contains(ModemControl::OUT2)
            && !self.modem_control.contains(ModemControl::LOOPBACK);
        self.line.set(connected && self.cause() != Identification::None);
    }

    fn receive(&mut self) -> u8 {
        let byte = self.received.pop_front().unwrap_or(0);
        if self.received.is_empty() {
            // The line falls, so that what comes next is an edge.
            self.update_line();
        }
        self.refill();
        byte
    }

    fn transmit(&mut self, byte: u8) {
        // The line falls as the register fills, and rises as it is empty again.
        self.transmitter_pending = false;
        self.update_line();
        if self.modem_control.contains(ModemControl::LOOPBACK) {
            self.loop_back(byte);
        } else if let Some(output) = &mut self.output {
            // A console that is gone (a closed pipe) does not stop the guest.
            let _ = output.write_all(&[byte]).and_then(|()| output.flush());
        }
        self.transmitter_pending = true;
    }

    fn loop_back(&mut self, byte: u8) {
        if self.received.len() < self.receive_capacity() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
    }

    fn identify(&mut self) -> u8 {
        let cause = self.cause();
        if cause == Identification::TransmitterEmpty {
            self.transmitter_pending = false;
        }
        let fifos = if self.fifo.contains(FifoControl::ENABLE) { 0xc0 } else { 0 };
        cause as u8 | fifos
    }

    fn write_enable(&mut self, value: u8) {
        let before = self.enable;
        self.enable = InterruptEnable::from_bits_truncate(value);
        if (self.enable - before).contains(InterruptEnable::TRANSMITTER_EMPTY) {
            // The transmitter is always empty, and enabling its interrupt reports that.
            self.transmitter_pending = true;
        }
    }

    fn write_fifo_control(&mut self, value: u8) {
        let value = FifoControl::from_bits_truncate(value);
        let switched = (value ^ self.fifo).contains(FifoControl::ENABLE);
        if switched || value.contains(FifoControl::CLEAR_RECEIVER) {
            self.received.clear();
        }
        self.fifo = value & (FifoControl::ENABLE | FifoControl::TRIGGER);
        if !value.contains(FifoControl::ENABLE) {
            self.fifo = FifoControl::empty();
        }
        self.refill();
    }

    fn write_modem_control(&mut self, value: u8) {
        self.modem_control = ModemControl::from_bits_truncate(value);
        let status = self.modem_control.looped_back().unwrap_or(CONNECTED);
        let changed = status ^ self.modem_status;
        // The ring indicator reports its end only.
        let ring_ended = changed & self.modem_status & 0x40;
        self.modem_changes |= (changed & 0xb0 | ring_ended) >> 4;
        self.modem_status = status;
        self.refill();
    }

    fn line_status(&mut self) -> u8 {
        let mut status = LineStatus::TRANSMITTER_EMPTY | LineStatus::TRANSMITTER_IDLE;
        status.set(LineStatus::DATA_READY, !self.received.is_empty());
        status.set(LineStatus::OVERRUN, std::mem::take(&mut self.overrun));
        status.bits()
    }

    fn read_register(&mut self, offset: u32) -> u8 {
        let divisor = self.line_control & DIVISOR_ACCESS != 0;
        match offset {
            0 | 1 if divisor => self.divisor[offset as usize],
            0 => self.receive(),
            1 => self.enable.bits(),
            2 => self.identify(),
            3 => self.line_control,
            4 => self.modem_control.bits(),
            5 => self.line_status(),
            6 => self.modem_status | std::mem::take(&mut self.modem_changes),
            _ => self.scratch,
        }
    }

    fn write_register(&mut self, offset: u32, value: u8) {
        let divisor = self.line_control & DIVISOR_ACCESS != 0;
        match offset {
            0 | 1 if divisor => self.divisor[offset as usize] = value,
            0 => self.transmit(value),
            1 => self.write_enable(value),
            2 => self.write_fifo_control(value),
            3 => self.line_control = value,
            4 => self.write_modem_control(value),
            7 => self.scratch = value,
            // The status registers are written in factory tests only.
            _ => {}
        }
    }
}

saved! {
    Serial as SerialState;
    saved {
        received: VecDeque<u8>,
        divisor: [u8; 2],
        enable: InterruptEnable,
        fifo: FifoControl,
        line_control: u8,
        modem_control: ModemControl,
        overrun: bool,
        modem_status: u8,
        modem_changes: u8,
        scratch: u8,
        transmitter_pending: bool,
    }
    kept { line, output, input }
    check Serial::check;
}

impl Device for Serial {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        data[0] = self.read_register(offset);
        self.update_line();
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        self.write_register(offset, data[0]);
        self.update_line();
    }

    fn reset(&mut self) {
        self.line.set(false);
        let output = self.output.take();
        *self = Serial::new(self.line.clone(), self.input.clone());
        self.output = output;
    }
}
