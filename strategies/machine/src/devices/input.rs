//! Input from the host: bounded mailboxes that any thread may fill while a strategy runs the guest.

use super::keyboard::{Key, KeyEvent};
use super::state::require;
use crate::signals::Signals;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded queue between a host thread and a device.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    capacity: usize,
}

impl<T: Copy> Mailbox<T> {
    pub(super) fn new(capacity: usize) -> Mailbox<T> {
        Mailbox { queue: Mutex::new(VecDeque::new()), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // The queue is whole after every operation, so a panic elsewhere spoils nothing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes as many items as there is room for, from the front, and returns their number.
    pub(super) fn push(&self, items: &[T]) -> usize {
        let mut queue = self.lock();
        let room = self.capacity.saturating_sub(queue.len()).min(items.len());
        queue.extend(&items[..room]);
        room
    }

    fn contents(&self) -> Vec<T> {
        self.lock().iter().copied().collect()
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.lock().pop_front()
    }
}

/// Bytes for the serial port that can wait: a long paste.
const SERIAL_CAPACITY: usize = 64 << 10;
/// Key events that can wait.
const KEY_CAPACITY: usize = 1024;

/// The sending end, for a terminal or a window. Clones go to the same machine.
#[derive(Clone, Debug)]
pub struct HostInput {
    pub(super) serial: Arc<Mailbox<u8>>,
    pub(super) keys: Arc<Mailbox<KeyEvent>>,
    signals: Arc<Signals>,
}

/// What the host sent and the guest did not get yet.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct InputState {
    serial: Vec<u8>,
    keys: Vec<KeyEvent>,
}

impl HostInput {
    /// What still waits.
    pub(super) fn state(&self) -> InputState {
        InputState { serial: self.serial.contents(), keys: self.keys.contents() }
    }

    /// Sends again what waited.
    pub(super) fn restore(&self, state: &InputState) -> Result<(), &'static str> {
        let fits = state.serial.len() <= SERIAL_CAPACITY && state.keys.len() <= KEY_CAPACITY;
        require(fits, "more waits than there is room for")?;
        self.serial.push(&state.serial);
        self.keys.push(&state.keys);
        Ok(())
    }

    pub(super) fn new(signals: Arc<Signals>) -> HostInput {
        HostInput {
            serial: Arc::new(Mailbox::new(SERIAL_CAPACITY)),
            keys: Arc::new(Mailbox::new(KEY_CAPACITY)),
            signals,
        }
    }

    /// Sends bytes to the guest's serial port. Returns how many were taken: fewer than given when
    /// the guest does not keep up, and then the caller tries the rest later.
    pub fn send_serial(&self, bytes: &[u8]) -> usize {
        let taken = self.serial.push(bytes);
        self.signals.raise_attention();
        taken
    }

    /// Presses and releases keys of the guest's keyboard. Returns how many events were taken.
    pub fn send_keys(&self, events: &[KeyEvent]) -> usize {
        let taken = self.keys.push(events);
        self.signals.raise_attention();
        taken
    }

    /// Types text on the guest's keyboard, which has the US layout. Characters that are not on it
    /// are left out. Returns how many characters were dealt with.
    pub fn send_text(&self, text: &str) -> usize {
        let mut typed = 0;
        for character in text.chars() {
            let events = Key::strokes(character);
            if self.room_for_keys() < events.len() {
                break;
            }
            self.send_keys(&events);
            typed += 1;
        }
        typed
    }

    fn room_for_keys(&self) -> usize {
        KEY_CAPACITY.saturating_sub(self.keys.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_takes_no_more() {
        let mailbox = Mailbox::new(3);
        assert_eq!(mailbox.push(&[1, 2]), 2);
        assert_eq!(mailbox.push(&[3, 4]), 1);
        assert_eq!(mailbox.pop(), Some(1));
        assert_eq!(mailbox.push(&[5]), 1);
        assert_eq!([mailbox.pop(), mailbox.pop(), mailbox.pop()], [Some(2), Some(3), Some(5)]);
        assert_eq!(mailbox.pop(), None);
    }

    #[test]
    fn input_from_another_thread_raises_attention() {
        let signals = Arc::new(Signals::default());
        let input = HostInput::new(signals.clone());
        let sender = input.clone();
        std::thread::spawn(move || sender.send_serial(b"hello")).join().unwrap();
        assert!(signals.take_attention());
        assert_eq!(input.serial.pop(), Some(b'h'));
    }

    #[test]
    fn text_stops_at_a_whole_character_when_there_is_no_room() {
        let input = HostInput::new(Arc::default());
        let typed = input.send_text(&"x".repeat(KEY_CAPACITY));
        assert_eq!(typed, KEY_CAPACITY / 2);
        assert_eq!(input.send_text("y"), 0);
    }
}
