//! The ports by which guests without ACPI tables switch a virtual PC off.
//!
//! Offset 0 takes the ACPI command "sleep" (bit 13 of PM1a control) where other virtual PCs have it:
//! ports 0xB004 on Bochs and old QEMU, 0x4004 on VirtualBox; QEMU's 0x604 is this machine's own
//! ([`PowerManagement`](super::PowerManagement)). Offset 2 (port 0x8900) takes the word `Shutdown`
//! byte by byte, as Bochs does.

use crate::bus::Device;
use crate::devices::state::{require, saved};
use crate::signals::{Request, Signals};
use std::sync::Arc;

const SLEEP_ENABLE: u16 = 1 << 13;
const WORD: &[u8] = b"Shutdown";
const WORD_PORT: u32 = 2;

/// The power switch.
pub struct PowerOff {
    signals: Arc<Signals>,
    /// Letters of the word that have come.
    matched: usize,
}

impl PowerOff {
    /// A switch that asks through `signals`.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> PowerOff {
        PowerOff { signals, matched: 0 }
    }

    fn check(&self, state: &PowerOffState) -> Result<(), &'static str> {
        require(state.matched < WORD.len(), "more letters matched than the word has")
    }

    fn letter(&mut self, letter: u8) {
        self.matched = if letter == WORD[self.matched] {
            self.matched + 1
        } else {
            usize::from(letter == WORD[0])
        };
        if self.matched == WORD.len() {
            self.matched = 0;
            self.signals.request(Request::PowerOff);
        }
    }
}

saved! {
    PowerOff as PowerOffState;
    saved { matched: usize, }
    kept { signals }
    check PowerOff::check;
}

impl Device for PowerOff {
    fn read(&mut self, _offset: u32, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        match (offset, data) {
            (WORD_PORT, letters) => letters.iter().for_each(|&letter| self.letter(letter)),
            (0, &[low, high]) if u16::from_le_bytes([low, high]) & SLEEP_ENABLE != 0 => {
                self.signals.request(Request::PowerOff);
            }
            _ => {}
        }
    }

    fn width(&self) -> usize {
        2
    }

    fn reset(&mut self) {
        self.matched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch() -> (PowerOff, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        (PowerOff::new(signals.clone()), signals)
    }

    #[test]
    fn sleep_enable_switches_off() {
        let (mut switch, signals) = switch();
        switch.write(0, &[0x01, 0x00]);
        switch.write(0, &[0x20]);
        assert_eq!(signals.take_request(), None);
        switch.write(0, &[0x00, 0x20]);
        assert_eq!(signals.take_request(), Some(Request::PowerOff));
    }

    #[test]
    fn the_word_switches_off_when_it_is_whole() {
        let (mut switch, signals) = switch();
        for letter in b"ShutShutdow" {
            switch.write(WORD_PORT, &[*letter]);
        }
        assert_eq!(signals.take_request(), None);
        switch.write(WORD_PORT, b"n");
        assert_eq!(signals.take_request(), Some(Request::PowerOff));
    }
}
