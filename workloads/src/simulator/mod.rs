//! What translators and interpreters pay, one mechanism a workload, after SimBench (Wagstaff and
//! others 2017, "SimBench: A Portable Benchmarking Methodology for Full-System Simulators").

mod blocks;
mod branches;
mod faults;
mod memory;
mod privileged;
mod tlb;

use crate::runtime::layout;
use crate::{Assemble, Group, Workload};

/// Name, summary, iterations to begin with, function.
const TABLE: [(&str, &str, u32, Assemble); 16] = [
    (
        "small-blocks",
        "256 functions of two instructions, rewritten and run; an iteration is all of them",
        2,
        blocks::small,
    ),
    (
        "large-blocks",
        "4 functions of 680 instructions, rewritten and run; an iteration is all of them",
        2,
        blocks::large,
    ),
    (
        "branch-same-page",
        "direct jumps within a page; an iteration is 16 and the loop's two",
        50,
        branches::same_page,
    ),
    (
        "branch-same-page-indirect",
        "indirect jumps within a page, two targets each; an iteration is 16 and the loop's two",
        50,
        branches::same_page_indirect,
    ),
    (
        "branch-other-page",
        "direct jumps between pages; an iteration is 16 and the loop's two",
        50,
        branches::other_page,
    ),
    (
        "branch-other-page-indirect",
        "indirect jumps between pages, two targets each; an iteration is 16 and the loop's two",
        50,
        branches::other_page_indirect,
    ),
    (
        "data-fault",
        "read of a page that is not present, stepped over; an iteration is one fault",
        50,
        faults::data,
    ),
    (
        "instruction-fault",
        "jump to a page that is not present, and out of it; an iteration is one fault",
        50,
        faults::instruction,
    ),
    (
        "undefined-instruction",
        "UD2, stepped over; an iteration is one fault",
        50,
        faults::undefined,
    ),
    (
        "control-register",
        "reads of CR0 and CR3; an iteration is both",
        50,
        privileged::control_register,
    ),
    (
        "device-access",
        "a cell of the text screen, written and read; an iteration is both",
        50,
        privileged::device_access,
    ),
    (
        "memory-hot",
        "load and store of 8 words in 8 lines, in ring 0; an iteration is all of them",
        100,
        memory::hot,
    ),
    ("memory-cold", "reads of pages far apart in 32 MiB; an iteration is 64", 10, memory::cold),
    (
        "memory-user",
        "load and store of 8 words in 8 lines, in ring 3; an iteration is all of them",
        100,
        memory::user,
    ),
    ("tlb-evict", "INVLPG and a read, of 16 pages; an iteration is all of them", 20, tlb::evict),
    ("tlb-flush", "a load of CR3 and reads of 16 pages; an iteration is both", 20, tlb::flush),
];

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    TABLE
        .into_iter()
        .map(|(name, summary, first_iterations, assemble)| Workload {
            name,
            group: Group::Simulator,
            summary,
            memory_bytes: match name {
                "memory-cold" => u64::from(memory::COLD_MIB) << 20,
                _ => u64::from(layout::MEMORY),
            },
            first_iterations,
            assemble,
        })
        .collect()
}
