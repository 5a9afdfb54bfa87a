//! The keyboard at the end of the cable: its commands and the bytes that it sends, in set 2.

use super::keys::KeyEvent;
use std::collections::VecDeque;

/// Bytes that the keyboard holds while the controller does not take them.
const BUFFER: usize = 16;
const ACKNOWLEDGE: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const ECHO: u8 = 0xee;
const SELF_TEST_PASSED: u8 = 0xaa;
/// The identity of an MF2 keyboard.
const IDENTITY: [u8; 2] = [0xab, 0x83];

/// A command whose parameter is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
enum Awaits {
    Leds,
    ScancodeSet,
    TypematicRate,
}

/// An MF2 keyboard.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Keyboard {
    buffer: VecDeque<u8>,
    awaits: Option<Awaits>,
    scanning: bool,
    leds: u8,
    last: u8,
}

impl Keyboard {
    /// A keyboard after its self-test, with scanning on.
    pub(super) fn new() -> Keyboard {
        Keyboard { buffer: VecDeque::new(), awaits: None, scanning: true, leds: 0, last: 0 }
    }

    /// Whether a keyboard can be in this state.
    pub(super) fn is_plausible(&self) -> bool {
        self.buffer.len() <= 2 * BUFFER
    }

    /// Whether there is room for a whole key event.
    pub(super) fn takes_events(&self) -> bool {
        self.buffer.len() + 3 <= BUFFER
    }

    /// A key goes down or up. With scanning off the keyboard does not notice.
    pub(super) fn key(&mut self, event: KeyEvent) {
        if self.scanning {
            self.buffer.extend(event.set_2());
        }
    }

    /// The byte that the keyboard sends next.
    pub(super) fn send(&mut self) -> Option<u8> {
        let byte = self.buffer.pop_front()?;
        self.last = byte;
        Some(byte)
    }

    /// The LEDs: Scroll Lock, Num Lock and Caps Lock from bit 0 on.
    pub(super) fn leds(&self) -> u8 {
        self.leds
    }

    /// A byte from the system: a command, or the parameter of one.
    pub(super) fn receive(&mut self, value: u8) {
        match self.awaits.take() {
            // A command in place of a parameter ends the wait.
            Some(awaits) if value < 0x80 => self.parameter(awaits, value),
            _ => self.command(value),
        }
    }

    /// Answers come behind what was typed. A guest that never reads keeps the latest only.
    fn answer(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
        let excess = self.buffer.len().saturating_sub(2 * BUFFER);
        self.buffer.drain(..excess);
    }

    fn parameter(&mut self, awaits: Awaits, value: u8) {
        match (awaits, value) {
            (Awaits::Leds, _) => self.leds = value & 7,
            (Awaits::TypematicRate, _) | (Awaits::ScancodeSet, 2) => {}
            (Awaits::ScancodeSet, 0) => return self.answer(&[ACKNOWLEDGE, 2]),
            // Only set 2 is there.
            (Awaits::ScancodeSet, _) => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    fn command(&mut self, value: u8) {
        match value {
            0xed => self.awaits = Some(Awaits::Leds),
            0xf0 => self.awaits = Some(Awaits::ScancodeSet),
            0xf3 => self.awaits = Some(Awaits::TypematicRate),
            0xee => return self.answer(&[ECHO]),
            0xf2 => return self.answer(&[ACKNOWLEDGE, IDENTITY[0], IDENTITY[1]]),
            0xf4 => self.restart(true),
            0xf5 => self.restart(false),
            0xf6 => self.restart(self.scanning),
            0xfe => return self.answer(&[self.last]),
            0xff => {
                *self = Keyboard::new();
                return self.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED]);
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    /// Defaults; what was typed before is forgotten.
    fn restart(&mut self, scanning: bool) {
        self.buffer.clear();
        self.scanning = scanning;
    }
}
