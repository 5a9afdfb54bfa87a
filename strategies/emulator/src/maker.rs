//! The maker of the host's CPU.
//!
//! Guest code runs on that CPU, under some strategies, so where the architecture lets CPUs differ the
//! emulator does as the host does: strategies that change in flight, or are compared, agree then. Most
//! of it comes by itself, since arithmetic runs on the host's own unit; this is for the rest. What was
//! not seen on an Intel CPU is done as AMD's do it.

use std::arch::x86_64::__cpuid;
use std::sync::LazyLock;

/// The vendor's name, in EBX, EDX and ECX.
const INTEL: [u32; 3] =
    [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ineI"), u32::from_le_bytes(*b"ntel")];

static IS_INTEL: LazyLock<bool> = LazyLock::new(|| {
    let leaf = __cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx] == INTEL
});

/// Whether it is Intel.
#[inline]
pub(crate) fn is_intel() -> bool {
    *IS_INTEL
}

/// Whether a PUSH of a segment register by 32 bits leaves the upper half of its slot as it was, and
/// does not clear it (Intel SDM volume 2, PUSH).
#[must_use]
pub fn pushes_selectors_by_half() -> bool {
    is_intel()
}
