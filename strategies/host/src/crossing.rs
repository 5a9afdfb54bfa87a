//! Crossings: a way from 32-bit code back into the monitor without a signal.
//!
//! Code that knows of the monitor (a stub that a strategy put there) makes a far jump through the
//! host's 64-bit code selector to a *pad*, a few bytes of 64-bit code below 4 GiB:
//!
//! ```text
//! guest:  ea 00 50 00 f0 33 00    ljmp 0x33:0xf0005000
//! pad:    41 b9 07 00 00 00       mov r9d, 7        the crossing's number
//!         41 ff e6                jmp r14
//! ```
//!
//! R14 and R15 hold the address of the routine that goes on (`ways_out`) and its
//! thread's area since the guest was entered: 32-bit code cannot change them (Intel SDM volume 1,
//! 3.4.1.1), and so a pad holds no address of the host's.

/// The selector for the far jump to a pad (Linux: `__USER_CS`).
pub const CODE_SELECTOR: u16 = crate::world_switch::HOST_CODE;
/// Bytes of a pad.
pub const PAD_BYTES: usize = 9;

/// The pad of the crossing with a number. It may lie anywhere below 4 GiB, in a page that need not be
/// readable; [`allow_crossings`](crate::compatibility::CompatibilityMode::allow_crossings) must know.
#[must_use]
pub const fn pad(number: u32) -> [u8; PAD_BYTES] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x41, 0xb9, a, b, c, d, 0x41, 0xff, 0xe6]
}
