//! Breakpoints of whoever debugs the guest from outside.
//!
//! The emulator stops before an instruction at one of these addresses, and before any INT3 while
//! there are some: it asks for a stop ([`Request::Stop`](crate::signals::Request::Stop)) and leaves
//! EIP there. Every strategy leaves INT3 to the emulator, so an INT3 that is planted in memory is a
//! breakpoint under all of them. Which INT3 is the guest's own is for the debugger to know.

use crate::LinearAddress;

/// The breakpoints of a machine. No architectural state.
#[derive(Clone, Default, Debug)]
pub struct Breakpoints {
    /// In ascending order.
    addresses: Vec<u32>,
    hit: bool,
}

impl Breakpoints {
    /// Makes these the breakpoints.
    pub fn set(&mut self, addresses: impl IntoIterator<Item = LinearAddress>) {
        self.addresses.clear();
        self.addresses.extend(addresses.into_iter().map(|address| address.0));
        self.addresses.sort_unstable();
    }

    /// Takes all of them away.
    pub fn clear(&mut self) {
        self.addresses.clear();
    }

    /// Whether there are any.
    #[inline]
    #[must_use]
    pub fn are_set(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether one lies within `length` bytes from `first` on.
    #[must_use]
    pub fn meet(&self, first: LinearAddress, length: u32) -> bool {
        let lies_within = |from: usize| {
            self.addresses.get(from).is_some_and(|&at| at.wrapping_sub(first.0) < length)
        };
        // What wraps at 4 GiB goes on at the lowest.
        lies_within(self.addresses.partition_point(|&at| at < first.0)) || lies_within(0)
    }

    /// Notes that the guest has come to one of them, or to an INT3.
    pub fn note_hit(&mut self) {
        self.hit = true;
    }

    /// Whether the guest has come to one that nobody has taken note of.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.hit
    }

    /// Takes note of it.
    pub fn take_hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_what_lies_in_them() {
        let mut breakpoints = Breakpoints::default();
        assert!(!breakpoints.are_set() && !breakpoints.meet(LinearAddress(0), u32::MAX));
        breakpoints.set([0x2000, 0x10, 0x1000].map(LinearAddress));
        for (first, length, expected) in [
            (0x1000, 1, true),
            (0x0fff, 1, false),
            (0x0fff, 2, true),
            (0x1001, 0xfff, false),
            (0x1001, 0x1000, true),
            (0x2001, 100, false),
            (0xffff_fff8, 0x18, false),
            (0xffff_fff8, 0x19, true),
            (0x10, 0, false),
        ] {
            assert_eq!(
                breakpoints.meet(LinearAddress(first), length),
                expected,
                "{length} from {first:#x} on"
            );
        }
    }
}
