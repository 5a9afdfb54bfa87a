//! From the emulator's counters to exit kinds.

use crate::{ExitCounts, ExitKind};
use machine::counters::Counters;

type Counter = fn(&Counters) -> u64;

/// What each kind counts of the emulator's work.
const KINDS: [(ExitKind, Counter); 13] = [
    (ExitKind::PortIo, |c| c.port_io),
    (ExitKind::Mmio, |c| c.mmio),
    (ExitKind::Privileged, |c| c.privileged),
    (ExitKind::Sensitive, |c| c.sensitive),
    (ExitKind::GuestPageFault, |c| c.guest_page_faults),
    (ExitKind::Exception, |c| c.exceptions),
    (ExitKind::ControlRegisterWrite, |c| c.control_register_writes),
    (ExitKind::TlbFlush, |c| c.tlb_flushes),
    (ExitKind::TlbInvalidation, |c| c.tlb_invalidations),
    (ExitKind::Interrupt, |c| c.interrupts),
    (ExitKind::Halt, |c| c.halts),
    (ExitKind::CodeWrite, |c| c.code_writes),
    (ExitKind::Translation, |c| c.blocks_decoded),
];

impl ExitCounts {
    /// Adds what the emulator did between two states of its counters.
    pub fn add_counters(&mut self, before: &Counters, after: &Counters) {
        for (kind, count) in KINDS {
            self.add(kind, count(after) - count(before));
        }
    }

    /// Whether the emulator did something between two states of its counters that has a kind.
    #[must_use]
    pub fn have_kind(before: &Counters, after: &Counters) -> bool {
        KINDS.iter().any(|(_, count)| count(after) != count(before))
    }
}
