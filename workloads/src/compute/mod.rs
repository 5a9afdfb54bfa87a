//! User-level computation: each workload calls one inner function in ring 3 under 4 KiB paging.
//!
//! The inner function is a `Kernel`: it knows only its arguments, so that it can also be run
//! directly on the host's CPU (see [`NativeKernel`]).

mod chase;
mod crc32;
mod dispatch;
mod fib;
mod kernel;
mod matmul;
mod matmul_sse;
mod memcpy;
mod quicksort;
mod sha256;
mod sieve;

pub use kernel::NativeKernel;

use crate::{Assemble, Error, Group, Workload};
use kernel::Kernel;

/// The workloads of this group, each with its inner function.
fn table() -> [(Kernel, Assemble); 10] {
    [
        (sieve::KERNEL, |n| sieve::KERNEL.assemble(n)),
        (fib::KERNEL, |n| fib::KERNEL.assemble(n)),
        (matmul::KERNEL, |n| matmul::KERNEL.assemble(n)),
        (matmul_sse::KERNEL, |n| matmul_sse::KERNEL.assemble(n)),
        (sha256::KERNEL, |n| sha256::KERNEL.assemble(n)),
        (crc32::KERNEL, |n| crc32::KERNEL.assemble(n)),
        (quicksort::KERNEL, |n| quicksort::KERNEL.assemble(n)),
        (dispatch::KERNEL, |n| dispatch::KERNEL.assemble(n)),
        (memcpy::KERNEL, |n| memcpy::KERNEL.assemble(n)),
        (chase::KERNEL, |n| chase::KERNEL.assemble(n)),
    ]
}

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    table()
        .into_iter()
        .map(|(kernel, assemble)| Workload {
            name: kernel.name,
            group: Group::Compute,
            summary: kernel.summary,
            memory_bytes: u64::from(kernel.memory_mib()) << 20,
            first_iterations: 2,
            assemble,
        })
        .collect()
}

/// The inner function of workload `name`, assembled for address `base`.
pub(crate) fn native(name: &str, base: u32) -> Result<Option<NativeKernel>, Error> {
    let kernel = table().into_iter().map(|(kernel, _)| kernel).find(|kernel| kernel.name == name);
    kernel.map(|kernel| kernel.native(base)).transpose()
}
