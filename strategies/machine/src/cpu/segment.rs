//! Segment registers with their hidden parts, and descriptors (Intel SDM volume 3, 3.4 and 3.5).

use crate::Selector;

/// Segment registers, numbered as instructions encode them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SegmentRegister {
    /// ES
    Es = 0,
    /// CS
    Cs = 1,
    /// SS
    Ss = 2,
    /// DS
    Ds = 3,
    /// FS
    Fs = 4,
    /// GS
    Gs = 5,
}

impl SegmentRegister {
    /// All six, in encoding order.
    pub const ALL: [SegmentRegister; 6] =
        [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs];
}

/// Access rights: the descriptor's second doubleword shifted right by 8 and masked with 0xF0FF,
/// as LAR shows them: type and S, DPL, P in the low byte; AVL, L, D/B, G in bits 12 to 15.
pub mod access {
    /// The type's lowest bit of a code or data segment.
    pub const ACCESSED: u16 = 1 << 0;
    /// A data segment that may be written.
    pub const WRITABLE: u16 = 1 << 1;
    /// A code segment that may be read.
    pub const READABLE: u16 = 1 << 1;
    /// A data segment that expands down.
    pub const EXPAND_DOWN: u16 = 1 << 2;
    /// A conforming code segment.
    pub const CONFORMING: u16 = 1 << 2;
    /// Code, not data.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system segment.
    pub const NOT_SYSTEM: u16 = 1 << 4;
    /// Present.
    pub const PRESENT: u16 = 1 << 7;
    /// 32-bit code, stack or upper bound.
    pub const DEFAULT_BIG: u16 = 1 << 14;
    /// The limit counts pages.
    pub const GRANULARITY: u16 = 1 << 15;
    /// A present LDT.
    pub const LDT: u16 = PRESENT | 2;
    /// A present, busy 32-bit TSS.
    pub const TSS32_BUSY: u16 = PRESENT | 11;
}

/// A segment register (or LDTR, TR) with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Segment {
    /// The linear address of its first byte.
    pub base: u32,
    /// The last valid offset in bytes (the first invalid one from below for expand-down).
    pub limit: u32,
    /// Offsets below this may be read without a closer look; 0 where a closer look is due.
    read_end: u64,
    /// Offsets below this may be written without a closer look; 0 where a closer look is due.
    write_end: u64,
    /// The visible selector.
    pub selector: u16,
    /// Access rights, see [`access`]; without [`access::PRESENT`] the register is unusable.
    attributes: u16,
}

impl Segment {
    /// A segment with the given parts. `limit` is in bytes.
    #[inline]
    #[must_use]
    pub fn new(selector: u16, base: u32, limit: u32, attributes: u16) -> Segment {
        let mut segment = Segment { base, limit, read_end: 0, write_end: 0, selector, attributes };
        segment.update_fast_ends();
        segment
    }

    /// What real and virtual-8086 mode load: base from the selector, 64 KiB, writable. Real-mode
    /// code loads keep the limit the register had; this is its value after reset.
    #[must_use]
    pub fn real_mode(selector: u16) -> Segment {
        let rights = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE | access::ACCESSED;
        Segment::new(selector, u32::from(selector) << 4, 0xffff, rights)
    }

    /// A flat 4 GiB segment of 32 bits.
    #[must_use]
    pub fn flat(selector: u16, code: bool, dpl: u8) -> Segment {
        let kind = if code { access::CODE | access::READABLE } else { access::WRITABLE };
        let rights = kind | access::ACCESSED | access::NOT_SYSTEM | access::PRESENT;
        let size = access::DEFAULT_BIG | access::GRANULARITY;
        Segment::new(selector, 0, u32::MAX, rights | size | u16::from(dpl) << 5)
    }

    /// A system segment: LDT or TSS.
    #[inline]
    #[must_use]
    pub fn system(selector: u16, base: u32, limit: u32, attributes: u16) -> Segment {
        Segment::new(selector, base, limit, attributes & !access::NOT_SYSTEM)
    }

    /// A register that holds a null selector: unusable.
    #[inline]
    #[must_use]
    pub fn null(selector: u16) -> Segment {
        Segment::new(selector, 0, 0, 0)
    }

    /// Access rights, see [`access`].
    #[inline]
    #[must_use]
    pub fn attributes(&self) -> u16 {
        self.attributes
    }

    /// Changes the access rights.
    pub fn set_attributes(&mut self, attributes: u16) {
        self.attributes = attributes;
        self.update_fast_ends();
    }

    /// Changes the limit, in bytes.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.update_fast_ends();
    }

    /// Whether all of `bits` are set in the access rights.
    #[inline]
    #[must_use]
    pub fn has(&self, bits: u16) -> bool {
        self.attributes & bits == bits
    }

    /// Whether the register holds a present segment.
    #[inline]
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.has(access::PRESENT)
    }

    /// The four type bits.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> u8 {
        (self.attributes & 15) as u8
    }

    /// The descriptor privilege level.
    #[inline]
    #[must_use]
    pub fn dpl(&self) -> u8 {
        ((self.attributes >> 5) & 3) as u8
    }

    /// Whether this is code.
    #[inline]
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.has(access::NOT_SYSTEM | access::CODE)
    }

    /// The D/B bit: 32-bit code, stack or upper bound.
    #[inline]
    #[must_use]
    pub fn is_32bit(&self) -> bool {
        self.has(access::DEFAULT_BIG)
    }

    /// Whether `size` bytes at `offset` can be read without a closer look.
    #[inline(always)]
    #[must_use]
    pub fn reads_freely(&self, offset: u32, size: u32) -> bool {
        u64::from(offset) + u64::from(size) <= self.read_end
    }

    /// Whether `size` bytes at `offset` can be written without a closer look.
    #[inline(always)]
    #[must_use]
    pub fn writes_freely(&self, offset: u32, size: u32) -> bool {
        u64::from(offset) + u64::from(size) <= self.write_end
    }

    /// Whether the rights allow a read, the offset aside (Intel SDM volume 3, 5.5).
    #[inline]
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.has(access::PRESENT | access::NOT_SYSTEM)
            && (!self.has(access::CODE) || self.has(access::READABLE))
    }

    /// Whether the rights allow a write, the offset aside.
    #[inline]
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.has(access::PRESENT | access::NOT_SYSTEM | access::WRITABLE) && !self.has(access::CODE)
    }

    /// Whether `size` bytes at `offset` lie within the limit (Intel SDM volume 3, 5.3).
    #[must_use]
    pub fn contains(&self, offset: u32, size: u32) -> bool {
        let last = u64::from(offset) + u64::from(size) - 1;
        if self.is_expand_down() {
            let top = if self.is_32bit() { u64::from(u32::MAX) } else { 0xffff };
            offset > self.limit && last <= top
        } else {
            last <= u64::from(self.limit)
        }
    }

    /// Whether this is an expand-down data segment.
    #[inline]
    #[must_use]
    pub fn is_expand_down(&self) -> bool {
        !self.has(access::CODE) && self.has(access::NOT_SYSTEM | access::EXPAND_DOWN)
    }

    /// Whether base is 0 and the limit 4 GiB.
    #[inline]
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.base == 0 && self.limit == u32::MAX && self.is_usable() && !self.is_expand_down()
    }

    #[inline]
    fn update_fast_ends(&mut self) {
        let end = if self.is_expand_down() { 0 } else { u64::from(self.limit) + 1 };
        self.read_end = if self.is_readable() { end } else { 0 };
        self.write_end = if self.is_writable() { end } else { 0 };
    }
}

/// An eight-byte descriptor as it lies in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// The segment base, or for a TSS or LDT its base.
    #[inline]
    #[must_use]
    pub fn base(self) -> u32 {
        ((self.0 >> 16) & 0x00ff_ffff) as u32 | ((self.0 >> 56) as u32) << 24
    }

    /// The limit in bytes, granularity applied.
    #[inline]
    #[must_use]
    pub fn limit(self) -> u32 {
        let raw = (self.0 & 0xffff) as u32 | ((self.0 >> 32) & 0xf_0000) as u32;
        if self.attributes() & access::GRANULARITY != 0 { raw << 12 | 0xfff } else { raw }
    }

    /// Access rights, see [`access`].
    #[inline]
    #[must_use]
    pub fn attributes(self) -> u16 {
        ((self.0 >> 40) & 0xf0ff) as u16
    }

    /// Whether all of `bits` are set in the access rights.
    #[inline]
    #[must_use]
    pub fn has(self, bits: u16) -> bool {
        self.attributes() & bits == bits
    }

    /// The descriptor privilege level.
    #[inline]
    #[must_use]
    pub fn dpl(self) -> u8 {
        ((self.0 >> 45) & 3) as u8
    }

    /// The four type bits.
    #[inline]
    #[must_use]
    pub fn kind(self) -> u8 {
        ((self.0 >> 40) & 15) as u8
    }

    /// The segment register contents that loading this descriptor gives.
    #[must_use]
    pub fn to_segment(self, selector: Selector) -> Segment {
        Segment::new(selector.0, self.base(), self.limit(), self.attributes())
    }

    /// Gate: the target selector.
    #[inline]
    #[must_use]
    pub fn gate_selector(self) -> Selector {
        Selector((self.0 >> 16) as u16)
    }

    /// Gate: the target offset, all 32 bits.
    #[inline]
    #[must_use]
    pub fn gate_offset(self) -> u32 {
        (self.0 & 0xffff) as u32 | ((self.0 >> 32) as u32 & 0xffff_0000)
    }

    /// Call gate: the number of parameters to copy.
    #[must_use]
    pub fn gate_parameters(self) -> u8 {
        ((self.0 >> 32) & 31) as u8
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[repr(C)]
pub struct TableRegister {
    /// The table's linear address.
    pub base: u32,
    /// The last valid offset.
    pub limit: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_descriptor_is_read_as_such() {
        let descriptor = Descriptor(0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor.base(), 0);
        assert_eq!(descriptor.limit(), u32::MAX);
        assert_eq!(descriptor.to_segment(Selector(8)), Segment::flat(8, true, 0));
    }

    #[test]
    fn expand_down_segments_hold_what_is_above_the_limit() {
        let rights = access::PRESENT | access::NOT_SYSTEM | access::WRITABLE | access::EXPAND_DOWN;
        let segment = Segment::new(8, 0, 0xfff, rights);
        assert!(!segment.contains(0xfff, 1));
        assert!(segment.contains(0x1000, 4));
        assert!(!segment.contains(0xfffe, 4));
        assert!(!segment.reads_freely(0x1000, 1));
    }

    #[test]
    fn the_fast_check_agrees_with_the_slow_one_at_the_top() {
        let segment = Segment::flat(8, false, 0);
        assert!(segment.reads_freely(0xffff_fffc, 4) && segment.contains(0xffff_fffc, 4));
        assert!(!segment.reads_freely(0xffff_fffd, 4) && !segment.contains(0xffff_fffd, 4));
    }
}
