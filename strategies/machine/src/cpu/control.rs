//! Control and debug registers (Intel SDM volume 3, 2.5 and 17.2).

use bitflags::bitflags;

bitflags! {
    /// CR0.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
    pub struct Cr0: u32 {
        /// Protection enable.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// Emulation: x87 instructions raise #NM.
        const EM = 1 << 2;
        /// Task switched.
        const TS = 1 << 3;
        /// Extension type: always set.
        const ET = 1 << 4;
        /// Numeric error: #MF instead of IRQ 13.
        const NE = 1 << 5;
        /// Write protect.
        const WP = 1 << 16;
        /// Alignment mask.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR4.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
    pub struct Cr4: u32 {
        /// Virtual-8086 mode extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// Time stamp disable.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// Page size extensions: 4 MiB pages.
        const PSE = 1 << 4;
        /// Physical address extension.
        const PAE = 1 << 5;
        /// Machine-check enable.
        const MCE = 1 << 6;
        /// Page global enable.
        const PGE = 1 << 7;
        /// Performance-monitoring counter enable.
        const PCE = 1 << 8;
        /// FXSAVE, FXRSTOR and SSE may be used.
        const OSFXSR = 1 << 9;
        /// Unmasked SSE exceptions raise #XM.
        const OSXMMEXCPT = 1 << 10;
    }
}

/// Bits of DR6.
#[derive(Debug)]
pub struct Dr6;

impl Dr6 {
    /// The value after reset.
    pub const RESET: u32 = 0xffff_0ff0;
    /// Access to a debug register while DR7.GD was set.
    pub const BD: u32 = 1 << 13;
    /// Single step.
    pub const BS: u32 = 1 << 14;
    /// Task switch with the T bit set.
    pub const BT: u32 = 1 << 15;
}

/// Bits of DR7.
#[derive(Debug)]
pub struct Dr7;

impl Dr7 {
    /// The value after reset; bit 10 is always set.
    pub const RESET: u32 = 0x400;
    /// All enable bits, local and global.
    pub const ENABLED: u32 = 0xff;
    /// General detect: accesses to debug registers raise #DB.
    pub const GD: u32 = 1 << 13;
}
