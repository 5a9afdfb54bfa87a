//! The i8042 keyboard controller with a keyboard and no mouse.
//!
//! Offset 0 is the data port (0x60), offset 4 the status and command port (0x64). One byte stands in
//! the output buffer at a time; the interrupt line is high while a keyboard byte stands there. The
//! auxiliary port is missing as on an AT: its tests fail at once instead of after a time-out, so
//! that drivers do not wait for it.
//!
//! The A20 bit of the output port reads as on; A20 is always open, as on CPUs since Haswell, which
//! have no A20M# pin any more (Intel SDM volume 3, "External Signal Compatibility").

mod device;
mod keys;
#[cfg(test)]
mod tests;

pub use keys::{Key, KeyEvent};

use super::input::Mailbox;
use crate::bus::Device;
use crate::devices::state::{require, saved};
use crate::signals::{Interrupt, Request, Signals};
use device::Keyboard;
use std::collections::VecDeque;
use std::sync::Arc;

const DATA: u32 = 0;

/// Answers of the controller that wait for the guest.
const ANSWERS: usize = 16;

bitflags::bitflags! {
    /// The status register.
    #[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
    struct Status: u8 {
        const OUTPUT_FULL = 0x01;
        const SYSTEM = 0x04;
        const COMMAND = 0x08;
        const UNLOCKED = 0x10;
        const AUXILIARY = 0x20;
        const TIMEOUT = 0x40;
    }

    /// The command byte, which is byte 0 of the controller's memory.
    #[derive(Clone, Copy, Debug)]
    struct CommandByte: u8 {
        const KEYBOARD_INTERRUPT = 0x01;
        const SYSTEM = 0x04;
        const KEYBOARD_OFF = 0x10;
        const AUXILIARY_OFF = 0x20;
        const TRANSLATE = 0x40;
    }
}

/// A byte on its way to the output buffer.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Output {
    byte: u8,
    /// TIMEOUT and AUXILIARY, as the status register will show them.
    flags: Status,
}

/// The keyboard controller.
pub struct KeyboardController {
    signals: Arc<Signals>,
    line: Arc<dyn Interrupt>,
    events: Arc<Mailbox<KeyEvent>>,
    keyboard: Keyboard,
    memory: [u8; 32],
    /// What the controller itself answers, ahead of the keyboard.
    answers: VecDeque<Output>,
    output: Option<Output>,
    last_output: u8,
    /// The command that takes the next data byte.
    awaits: Option<u8>,
    last_was_command: bool,
    /// A set 2 release prefix was swallowed by translation.
    release: bool,
}

impl KeyboardController {
    /// A controller as a BIOS leaves it: keyboard, translation and interrupt on. `events` brings
    /// keys from the host.
    pub(super) fn new(
        signals: Arc<Signals>,
        line: Arc<dyn Interrupt>,
        events: Arc<Mailbox<KeyEvent>>,
    ) -> KeyboardController {
        let mut memory = [0; 32];
        memory[0] = (CommandByte::all() - CommandByte::KEYBOARD_OFF).bits();
        KeyboardController {
            signals,
            line,
            events,
            keyboard: Keyboard::new(),
            memory,
            answers: VecDeque::new(),
            output: None,
            last_output: 0,
            awaits: None,
            last_was_command: false,
            release: false,
        }
    }

    fn check(&self, state: &KeyboardControllerState) -> Result<(), &'static str> {
        require(state.answers.len() <= ANSWERS, "the controller holds too many answers")?;
        require(state.keyboard.is_plausible(), "the keyboard holds too many bytes")
    }

    /// The keyboard's LEDs: Scroll Lock, Num Lock and Caps Lock from bit 0 on.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// Presses or releases a key; see also [`HostInput::send_keys`](super::HostInput::send_keys).
    pub fn push_key(&mut self, event: KeyEvent) {
        self.events.push(&[event]);
        self.take_input();
    }

    /// Moves keys from the mailbox towards the guest.
    pub(super) fn take_input(&mut self) {
        while self.keyboard.takes_events() {
            let Some(event) = self.events.pop() else { break };
            self.keyboard.key(event);
        }
        self.fill_output();
    }

    fn command_byte(&self) -> CommandByte {
        CommandByte::from_bits_truncate(self.memory[0])
    }

    fn set_command_byte(&mut self, value: u8) {
        // There is no auxiliary port to switch on.
        self.memory[0] = value | CommandByte::AUXILIARY_OFF.bits();
    }

    fn answer(&mut self, byte: u8) {
        self.answer_flagged(byte, Status::empty());
    }

    fn answer_flagged(&mut self, byte: u8, flags: Status) {
        // A guest that never reads keeps the latest only.
        if self.answers.len() >= ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(Output { byte, flags });
    }

    /// Puts the next byte into the output buffer if that is empty, and drives the line.
    fn fill_output(&mut self) {
        if self.output.is_none() {
            self.output = self.answers.pop_front().or_else(|| self.next_keyboard_byte());
        }
        let auxiliary = |output: Output| output.flags.contains(Status::AUXILIARY);
        let keyboard_byte = self.output.is_some_and(|output| !auxiliary(output));
        let enabled = self.command_byte().contains(CommandByte::KEYBOARD_INTERRUPT);
        self.line.set(keyboard_byte && enabled);
    }

    fn next_keyboard_byte(&mut self) -> Option<Output> {
        if self.command_byte().contains(CommandByte::KEYBOARD_OFF) {
            return None;
        }
        loop {
            let byte = self.keyboard.send()?;
            if let Some(byte) = self.translate(byte) {
                return Some(Output { byte, flags: Status::empty() });
            }
        }
    }

    /// Set 2 to set 1, where the guest wants it: the release prefix becomes bit 7.
    fn translate(&mut self, byte: u8) -> Option<u8> {
        if !self.command_byte().contains(CommandByte::TRANSLATE) {
            return Some(byte);
        }
        if byte == 0xf0 {
            self.release = true;
            return None;
        }
        let code = keys::translate(byte);
        Some(if std::mem::take(&mut self.release) { code | 0x80 } else { code })
    }

    fn read_data(&mut self) -> u8 {
        if let Some(output) = self.output.take() {
            self.last_output = output.byte;
            // The line falls, so that what comes next is an edge.
            self.line.set(false);
            self.take_input();
        }
        self.last_output
    }

    fn read_status(&self) -> u8 {
        let mut status = Status::UNLOCKED;
        if let Some(output) = self.output {
            status |= Status::OUTPUT_FULL | output.flags;
        }
        status.set(Status::SYSTEM, self.command_byte().contains(CommandByte::SYSTEM));
        status.set(Status::COMMAND, self.last_was_command);
        status.bits()
    }

    fn write_data(&mut self, value: u8) {
        match self.awaits.take() {
            Some(0x60) => self.set_command_byte(value),
            Some(command @ 0x61..=0x7f) => self.memory[usize::from(command & 0x1f)] = value,
            Some(0xd1) => self.write_output_port(value),
            // Without an auxiliary port, its loopback comes back as a keyboard byte.
            Some(0xd2 | 0xd3) => self.answer(value),
            Some(0xd4) => self.answer_flagged(0xfe, Status::TIMEOUT | Status::AUXILIARY),
            _ => {
                // A byte for the keyboard switches its clock on.
                self.memory[0] &= !CommandByte::KEYBOARD_OFF.bits();
                self.keyboard.receive(value);
            }
        }
    }

    fn command(&mut self, value: u8) {
        self.awaits = None;
        match value {
            0x20..=0x3f => self.answer(self.memory[usize::from(value & 0x1f)]),
            0x60..=0x7f | 0xd1..=0xd4 => self.awaits = Some(value),
            // The auxiliary port's clock line is stuck high.
            0xa9 => self.answer(0x02),
            0xaa => {
                self.memory[0] |= CommandByte::SYSTEM.bits();
                self.answer(0x55);
            }
            0xab => self.answer(0),
            0xad => self.memory[0] |= CommandByte::KEYBOARD_OFF.bits(),
            0xae => self.memory[0] &= !CommandByte::KEYBOARD_OFF.bits(),
            // The input port: not locked, colour display.
            0xc0 => self.answer(0x80),
            0xd0 => self.answer(self.output_port()),
            0xf0..=0xff if value & 1 == 0 => self.signals.request(Request::Reset),
            // 0xA7 and 0xA8 switch a port that is not there; 0xDD and 0xDF move A20.
            _ => {}
        }
    }

    /// Reset line high, A20 open, and the output buffer's interrupt.
    fn output_port(&self) -> u8 {
        0x03 | u8::from(self.output.is_some()) << 4
    }

    fn write_output_port(&mut self, value: u8) {
        if value & 1 == 0 {
            self.signals.request(Request::Reset);
        }
    }
}

saved! {
    KeyboardController as KeyboardControllerState;
    saved {
        keyboard: Keyboard,
        memory: [u8; 32],
        answers: VecDeque<Output>,
        output: Option<Output>,
        last_output: u8,
        awaits: Option<u8>,
        last_was_command: bool,
        release: bool,
    }
    kept { signals, line, events }
    check KeyboardController::check;
}

impl Device for KeyboardController {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        data[0] = if offset == DATA { self.read_data() } else { self.read_status() };
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        self.last_was_command = offset != DATA;
        if offset == DATA {
            self.write_data(data[0]);
        } else {
            self.command(data[0]);
        }
        self.fill_output();
    }

    fn reset(&mut self) {
        self.line.set(false);
        *self =
            KeyboardController::new(self.signals.clone(), self.line.clone(), self.events.clone());
    }
}
