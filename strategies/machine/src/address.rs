//! Guest addresses, selectors and vectors as types of their own, so that they cannot be mixed up.

use std::fmt;

/// Bytes in a small page.
pub const PAGE_SIZE: u32 = 4096;

/// An address after segmentation and before paging (Intel SDM volume 3, 3.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LinearAddress(pub u32);

/// An address after paging. IA-32 with PAE has 36 bits of it, hence 64 here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PhysicalAddress(pub u64);

/// A segment selector: index, table indicator and requested privilege level
/// (Intel SDM volume 3, 3.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Selector(pub u16);

/// An interrupt or exception vector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vector(pub u8);

impl LinearAddress {
    /// The linear page number.
    #[must_use]
    pub const fn page(self) -> u32 {
        self.0 >> 12
    }

    /// The offset within the page.
    #[must_use]
    pub const fn page_offset(self) -> u32 {
        self.0 & (PAGE_SIZE - 1)
    }
}

impl PhysicalAddress {
    /// The physical page number.
    #[must_use]
    pub const fn page(self) -> u64 {
        self.0 >> 12
    }

    /// The offset within the page.
    #[must_use]
    pub const fn page_offset(self) -> u32 {
        (self.0 as u32) & (PAGE_SIZE - 1)
    }
}

impl Selector {
    /// The requested privilege level.
    #[inline]
    #[must_use]
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Whether the selector names the local descriptor table.
    #[inline]
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// The descriptor's byte offset in its table.
    #[inline]
    #[must_use]
    pub const fn table_offset(self) -> u32 {
        (self.0 & !7) as u32
    }

    /// Whether this is a null selector (index 0 of the GDT, any RPL).
    #[inline]
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }
}

impl fmt::Display for LinearAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Display for PhysicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}
