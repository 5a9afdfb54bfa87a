//! Counters of how often stubs ran, in a run that is looked at.
//!
//! They lie behind the virtual CPU's page. A stub adds to its site's without touching the flags:
//!
//! ```text
//! 36 89 0d 04 00 80 ff      mov ss:[ECX's word], ecx
//! 36 8b 0d 00 10 80 ff      mov ecx, ss:[counter]
//! 8d 49 01                  lea ecx, [ecx + 1]
//! 36 89 0d 00 10 80 ff      mov ss:[counter], ecx
//! 36 8b 0d 04 00 80 ff      mov ecx, ss:[ECX's word]
//! ```
//!
//! A signal in there has the instruction begun again, and counted twice if it comes late.

use crate::view::PAGE;

/// The most counters. Sites beyond that are not counted.
pub(crate) const COUNTERS: usize = 1 << 16;
/// Bytes of them, behind the virtual CPU's page.
pub(crate) const BYTES: usize = COUNTERS * 4;

/// Where a site's counter lies, as seen from the virtual CPU's page.
pub(crate) fn offset(site: usize) -> u32 {
    (PAGE + site * 4) as u32
}

/// The three instructions in the middle, for the counter at an address.
pub(crate) fn increment(counter: u32) -> Vec<u8> {
    let [a, b, c, d] = counter.to_le_bytes();
    vec![0x36, 0x8b, 0x0d, a, b, c, d, 0x8d, 0x49, 1, 0x36, 0x89, 0x0d, a, b, c, d]
}
