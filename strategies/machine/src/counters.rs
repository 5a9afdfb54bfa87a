//! What the emulator did on a guest's behalf, by kind; strategies turn the differences into exits.

/// Events since the machine was made. All of them only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Instructions executed by the emulator.
    pub instructions: u64,
    /// Port reads and writes, one per element of INS and OUTS.
    pub port_io: u64,
    /// Accesses to device memory.
    pub mmio: u64,
    /// Page faults raised in the guest.
    pub guest_page_faults: u64,
    /// Other exceptions and software interrupts delivered through the guest's IDT.
    pub exceptions: u64,
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Writes to control registers, CLTS and LMSW among them.
    pub control_register_writes: u64,
    /// Whole flushes of the translation look-aside buffer.
    pub tlb_flushes: u64,
    /// INVLPG.
    pub tlb_invalidations: u64,
    /// Misses of the emulator's translation look-aside buffer that a page walk filled.
    pub tlb_fills: u64,
    /// HLT.
    pub halts: u64,
    /// Instructions that trap at CPL above 0 (Intel SDM volume 3, 5.9).
    pub privileged: u64,
    /// Instructions that show or change privileged state and do not trap.
    pub sensitive: u64,
    /// Writes to memory that holds decoded code.
    pub code_writes: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
}
