//! What operating systems do: address spaces, page faults, interrupts, devices, code that changes.

mod console;
mod context_switch;
mod demand_paging;
mod disk;
mod forkwait;
mod idle;
mod same_page;
mod self_modify;
mod timer;

use crate::runtime::layout;
use crate::{Assemble, Group, Workload};

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    let table: [(_, _, _, Assemble); 9] = [
        (
            "context-switch",
            "two ring-3 tasks in two address spaces that yield to each other; an iteration is one switch",
            20,
            context_switch::assemble,
        ),
        (
            "forkwait",
            "copy an address space, run a child in it to its exit, tear it down; an iteration is one child",
            1,
            forkwait::assemble,
        ),
        (
            "demand-paging",
            "ring 3 touches 32 pages, the kernel maps each on its page fault; an iteration is one pass",
            1,
            demand_paging::assemble,
        ),
        (
            "timer",
            "ring-3 computation under a 1 kHz timer interrupt; an iteration is 5000 steps of it",
            2,
            timer::assemble,
        ),
        (
            "self-modify",
            "generate a function, run it, change it, run it again; an iteration is both",
            20,
            self_modify::assemble,
        ),
        (
            "same-page",
            "store to the page that the code is on; an iteration is one store",
            20,
            same_page::assemble,
        ),
        (
            "console",
            "serial output by polling the line status; an iteration is one byte",
            20,
            console::assemble,
        ),
        (
            "disk",
            "ATA PIO reads with an interrupt a sector; an iteration reads 4 sectors",
            2,
            disk::assemble,
        ),
        ("idle", "HLT until the 1 kHz timer ticks; an iteration is one tick", 2, idle::assemble),
    ];
    table
        .into_iter()
        .map(|(name, summary, first_iterations, assemble)| Workload {
            name,
            group: Group::System,
            summary,
            memory_bytes: u64::from(layout::MEMORY),
            first_iterations,
            assemble,
        })
        .collect()
}
