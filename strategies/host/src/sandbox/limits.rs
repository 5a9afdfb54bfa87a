//! Resource limits. What a hostile guest can use up is then its own process's.

use super::{Descriptor, Error, Policy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PAGE: u64 = 4096;

/// What the process has, to which limits are relative.
#[derive(Clone, Copy, Debug)]
pub(super) struct InUse {
    /// Bytes of address space.
    address_space: u64,
    /// Bytes of private writable memory, the stack included.
    private_memory: u64,
    /// The number of the last descriptor, and one.
    descriptors: u64,
}

impl InUse {
    pub(super) fn now(descriptors: &[Descriptor]) -> Result<InUse, Error> {
        let text =
            std::fs::read_to_string("/proc/self/statm").map_err(Error::host("/proc/self/statm"))?;
        // proc(5): the first field is the size, the sixth data and stack, in pages.
        let pages: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
        let bytes = |field: usize| pages.get(field).map_or(0, |count| count * PAGE);
        Ok(InUse {
            address_space: bytes(0),
            private_memory: bytes(5),
            descriptors: descriptors.last().map_or(0, |&(number, _)| number as u64 + 1),
        })
    }
}

/// Sets what can be set before the last threads are started.
pub(super) fn set(policy: &Policy, in_use: &InUse) -> Result<(), Error> {
    lower(Resource::Core, 0)?;
    lower(Resource::Msgqueue, 0)?;
    lower(Resource::Nofile, in_use.descriptors + policy.new_descriptors())?;
    if let Some(bytes) = policy.file_bytes {
        lower(Resource::Fsize, bytes)?;
    }
    lower(Resource::Data, in_use.private_memory.saturating_add(policy.private_memory))?;
    lower(Resource::As, in_use.address_space.saturating_add(policy.address_space))
}

/// No more processes and threads. Root is exempt from this limit; the filter forbids them to all.
pub(super) fn forbid_processes() -> Result<(), Error> {
    lower(Resource::Nproc, 0)
}

/// Lowers a limit, the hard one too, unless it is lower already.
fn lower(resource: Resource, value: u64) -> Result<(), Error> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = value.min(hard);
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(Error::host("setrlimit"))
}
