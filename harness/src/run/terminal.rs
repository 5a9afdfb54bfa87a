//! The terminal of a virtual machine: raw while the guest has it, restored whatever happens.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::sync::{Mutex, PoisonError};

/// How to leave, for people.
pub(super) const LEAVE: &str = "leave with Ctrl-] or Ctrl-A x";

/// Ctrl-] leaves.
const LEAVE_KEY: u8 = 0x1d;
/// Ctrl-A, then x, leaves; Ctrl-A twice sends one Ctrl-A.
const PREFIX_KEY: u8 = 0x01;

/// What the terminal was like before.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode, until this is dropped.
pub(super) struct RawTerminal(());

impl RawTerminal {
    /// Makes the standard input raw. Nothing if that is no terminal.
    pub(super) fn enter() -> std::io::Result<Option<RawTerminal>> {
        let input = std::io::stdin();
        if !isatty(&input) {
            return Ok(None);
        }
        let before = tcgetattr(&input)?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
        let guard = RawTerminal(());
        let mut raw = before;
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Flush, &raw)?;
        Ok(Some(guard))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, if it is raw.
pub(super) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Finds the keys that leave in what is typed.
#[derive(Default, Debug)]
pub(super) struct EscapeFilter {
    after_prefix: bool,
}

impl EscapeFilter {
    /// What of `typed` goes to the guest, and whether the user wants to leave after that.
    pub(super) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &key in typed {
            match (std::mem::take(&mut self.after_prefix), key) {
                (_, LEAVE_KEY) | (true, b'x') => return (passed, true),
                (true, PREFIX_KEY) => passed.push(PREFIX_KEY),
                (true, _) => passed.extend([PREFIX_KEY, key]),
                (false, PREFIX_KEY) => self.after_prefix = true,
                (false, _) => passed.push(key),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut filter = EscapeFilter::default();
        let mut all = Vec::new();
        for part in parts {
            let (passed, leave) = filter.pass(part);
            all.extend(passed);
            if leave {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn ordinary_keys_pass() {
        assert_eq!(pass(&[b"ls -x\r", b"\x03"]), (b"ls -x\r\x03".to_vec(), false));
    }

    #[test]
    fn the_leaving_keys_leave() {
        assert_eq!(pass(&[b"ab\x1dcd"]), (b"ab".to_vec(), true));
        assert_eq!(pass(&[b"ab\x01x"]), (b"ab".to_vec(), true));
        assert_eq!(pass(&[b"ab\x01", b"x"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn the_prefix_can_be_sent() {
        assert_eq!(pass(&[b"\x01\x01x"]), (b"\x01x".to_vec(), false));
        assert_eq!(pass(&[b"\x01e"]), (b"\x01e".to_vec(), false));
    }
}
