//! Nano-benchmarks after Adams & Agesen 2006 ("A Comparison of Software and Hardware Techniques for
//! x86 Virtualization"): one privileged or costly operation in a loop.

mod callret;

use crate::{Group, Workload};

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    vec![Workload {
        name: "callret",
        group: Group::Nano,
        summary: "call a function that returns at once; an iteration is one call",
        memory_bytes: 16 << 20,
        first_iterations: 1000,
        assemble: callret::assemble,
    }]
}
