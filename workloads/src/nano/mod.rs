//! Nano-benchmarks after Adams & Agesen 2006 ("A Comparison of Software and Hardware Techniques for
//! x86 Virtualization"): one privileged or costly operation in a loop.

mod callret;
mod cr3wr;
mod divzero;
mod pgfault;
mod port_in;
mod ptemod;
mod syscall;

use crate::runtime::layout;
use crate::{Assemble, Group, Workload};

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    let table: [(_, _, Assemble); 7] = [
        (
            "syscall",
            "INT 0x80 from ring 3 and IRET back; an iteration is one round trip",
            syscall::assemble,
        ),
        ("in", "read the UART's line status; an iteration is one IN", port_in::assemble),
        ("cr3wr", "reload CR3 with its own value; an iteration is one write", cr3wr::assemble),
        (
            "callret",
            "call a function that returns at once; an iteration is one call",
            callret::assemble,
        ),
        (
            "pgfault",
            "touch a page that is not present, map it in the handler, unmap it; an iteration is one fault",
            pgfault::assemble,
        ),
        (
            "divzero",
            "divide by zero, step over it in the handler; an iteration is one fault",
            divzero::assemble,
        ),
        (
            "ptemod",
            "edit a page-table entry, INVLPG, touch the page; an iteration is one edit",
            ptemod::assemble,
        ),
    ];
    table
        .into_iter()
        .map(|(name, summary, assemble)| Workload {
            name,
            group: Group::Nano,
            summary,
            memory_bytes: u64::from(layout::MEMORY),
            first_iterations: 100,
            assemble,
        })
        .collect()
}
