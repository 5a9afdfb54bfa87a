//! The 64 KiB of linear addresses in which a case lives, equal on both sides, and the segments
//! that show them.

use machine::cpu::SegmentRegister;

/// Bytes of the arena.
pub(crate) const ARENA: usize = 0x1_0000;
/// Where the arenas of all threads lie: cases that touch another's are not compared.
pub(crate) const ARENAS: std::ops::Range<u32> = 0x2000_0000..0x2400_0000;
/// From one thread's arena to the next one's: far enough that each has a page table of its own.
pub(crate) const ARENA_DISTANCE: u32 = 0x0100_0000;
/// The page with the code: read-only.
pub(crate) const CODE: u32 = 0x1000;
/// Two pages of data.
pub(crate) const DATA: u32 = 0x3000;
/// Bytes of data.
pub(crate) const DATA_BYTES: u32 = 0x2000;
/// One page of stack.
pub(crate) const STACK: u32 = 0x7000;
/// Bytes of stack.
pub(crate) const STACK_BYTES: u32 = 0x1000;
/// Bytes of a page.
pub(crate) const PAGE: u32 = 0x1000;
/// What fills the code page around the case: it ends every stay, with #GP.
pub(crate) const HLT: u8 = 0xf4;

/// The pages that exist, as (offset, length, writable).
pub(crate) const PAGES: [(u32, u32, bool); 3] =
    [(CODE, PAGE, false), (DATA, DATA_BYTES, true), (STACK, STACK_BYTES, true)];

/// Which segments a case runs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// Flat 32-bit segments; FS and GS are null.
    Flat,
    /// 32-bit segments whose base is the arena's, with limits.
    Based,
    /// The same with 16-bit code. The stack has 32 bits: the CPU does not let a world switch load
    /// the high half of ESP with a 16-bit stack segment.
    Based16,
}

/// One segment: base relative to the arena, limit, writable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentShape {
    pub(crate) base: u32,
    pub(crate) limit: u32,
    pub(crate) writable: bool,
}

impl Flavour {
    pub(crate) const ALL: [Flavour; 3] = [Flavour::Flat, Flavour::Based, Flavour::Based16];

    /// Bits of the default operand and address size.
    pub(crate) fn bits(self) -> u32 {
        if self == Flavour::Based16 { 16 } else { 32 }
    }

    /// Whether segments are flat.
    pub(crate) fn is_flat(self) -> bool {
        self == Flavour::Flat
    }

    /// What is added to an arena offset to make an offset in this flavour's segments.
    pub(crate) fn origin(self, arena: u32) -> u32 {
        if self.is_flat() { arena } else { 0 }
    }
}

/// What a register holds when segments are based; flat ones are the host's.
pub(crate) fn based_segment(register: SegmentRegister) -> SegmentShape {
    let shape = |base, limit, writable| SegmentShape { base, limit, writable };
    match register {
        SegmentRegister::Es | SegmentRegister::Ss => shape(0, 0xffff, true),
        SegmentRegister::Cs => shape(0, 0xffff, false),
        // Ends a little before the data pages do.
        SegmentRegister::Ds => shape(0, DATA + DATA_BYTES - 0x81, true),
        SegmentRegister::Fs => shape(DATA - 8, 0x0fff, true),
        SegmentRegister::Gs => shape(DATA, 0xffff, false),
    }
}
