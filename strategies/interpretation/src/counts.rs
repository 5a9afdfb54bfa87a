//! From the emulator's counters to exit kinds.

use machine::counters::Counters;
use strategy::{ExitCounts, ExitKind};

/// Adds what happened between two states of the counters.
pub(crate) fn exits_since(before: &Counters, after: &Counters, exits: &mut ExitCounts) {
    let kinds: [(ExitKind, fn(&Counters) -> u64); 13] = [
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
    for (kind, count) in kinds {
        exits.add(kind, count(after) - count(before));
    }
}
