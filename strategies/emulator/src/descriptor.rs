//! Descriptors by selector, and what may be loaded into which segment register
//! (Intel SDM volume 3, chapter 5).
//!
//! Nothing here changes a segment register: each function checks and returns what is to be loaded,
//! so that an instruction can finish all of its checks first. The one trace that a check leaves is
//! the descriptor's accessed bit.

use crate::access;
use crate::exception::Exception;
use machine::cpu::{Descriptor, Segment, SegmentRegister, access as rights};
use machine::{Machine, Selector};

/// Makes an exception with a selector as its error code: [`Exception::protection`] or
/// [`Exception::invalid_tss`], by the occasion of the load.
pub(crate) type Invalid = fn(u16) -> Exception;

/// A descriptor and the linear address it was read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The selector it was looked up by.
    pub(crate) selector: Selector,
    /// The descriptor.
    pub(crate) descriptor: Descriptor,
    address: u32,
}

/// A selector as an error code: without its RPL.
#[inline]
pub(crate) fn code(selector: Selector) -> u16 {
    selector.0 & !3
}

/// Looks a selector up in the GDT or LDT; nothing if it lies beyond the table's limit.
#[inline]
pub(crate) fn find(m: &mut Machine, selector: Selector) -> Result<Option<Found>, Exception> {
    let offset = selector.table_offset();
    let (base, limit) = if selector.is_local() {
        if !m.cpu.ldtr.is_usable() {
            return Ok(None);
        }
        (m.cpu.ldtr.base, m.cpu.ldtr.limit)
    } else {
        (m.cpu.gdtr.base, u32::from(m.cpu.gdtr.limit))
    };
    if offset + 7 > limit {
        return Ok(None);
    }
    let address = base.wrapping_add(offset);
    let descriptor = Descriptor(access::read_system_u64(m, address)?);
    Ok(Some(Found { selector, descriptor, address }))
}

/// Looks a selector up that has to exist and not to be null.
#[inline]
pub(crate) fn fetch(
    m: &mut Machine,
    selector: Selector,
    invalid: Invalid,
) -> Result<Found, Exception> {
    if selector.is_null() {
        return Err(invalid(0));
    }
    find(m, selector)?.ok_or_else(|| invalid(code(selector)))
}

impl Found {
    /// The selector as an error code.
    #[inline]
    pub(crate) fn code(&self) -> u16 {
        code(self.selector)
    }

    /// Whether the segment is present.
    #[inline]
    pub(crate) fn is_present(&self) -> bool {
        self.descriptor.has(rights::PRESENT)
    }

    /// Whether this is code or data, not a gate or system segment.
    #[inline]
    pub(crate) fn is_segment(&self) -> bool {
        self.descriptor.has(rights::NOT_SYSTEM)
    }

    /// Whether this is code.
    pub(crate) fn is_code(&self) -> bool {
        self.descriptor.has(rights::NOT_SYSTEM | rights::CODE)
    }

    /// Whether this is conforming code.
    pub(crate) fn is_conforming(&self) -> bool {
        self.is_code() && self.descriptor.has(rights::CONFORMING)
    }

    /// Whether this is data that may be written.
    pub(crate) fn is_writable_data(&self) -> bool {
        !self.is_code() && self.descriptor.has(rights::NOT_SYSTEM | rights::WRITABLE)
    }

    /// Whether this is data, or code that may be read.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_segment() && (!self.is_code() || self.descriptor.has(rights::READABLE))
    }

    /// The type of a gate or system segment, or `None` for code and data.
    #[inline]
    pub(crate) fn system_type(&self) -> Option<u8> {
        (!self.is_segment()).then(|| self.descriptor.kind())
    }

    /// Whether CPL and RPL may name this segment or gate: neither is above its DPL.
    pub(crate) fn is_reachable(&self, m: &Machine) -> bool {
        self.descriptor.dpl() >= m.cpu.cpl.max(self.selector.rpl())
    }

    /// What loading this into CS at privilege level `cpl` gives; sets the accessed bit.
    pub(crate) fn load_code(&self, m: &mut Machine, cpl: u8) -> Result<Segment, Exception> {
        self.load_as(m, Selector(self.code() | u16::from(cpl)))
    }

    fn load(&self, m: &mut Machine) -> Result<Segment, Exception> {
        self.load_as(m, self.selector)
    }

    fn load_as(&self, m: &mut Machine, selector: Selector) -> Result<Segment, Exception> {
        let accessed = Descriptor(self.descriptor.0 | u64::from(rights::ACCESSED) << 40);
        if accessed != self.descriptor {
            access::write_system(m, self.type_address(), (accessed.0 >> 40) as u8)?;
        }
        Ok(accessed.to_segment(selector))
    }

    /// The linear address of the byte that holds type, DPL and P.
    pub(crate) fn type_address(&self) -> u32 {
        self.address.wrapping_add(5)
    }

    /// Sets or clears the busy bit of a TSS descriptor.
    pub(crate) fn set_busy(&self, m: &mut Machine, busy: bool) -> Result<(), Exception> {
        let kind = (self.descriptor.0 >> 40) as u8;
        let kind = if busy { kind | 2 } else { kind & !2 };
        access::write_system(m, self.type_address(), kind)
    }

    /// LDTR's or TR's contents for this descriptor.
    #[inline]
    pub(crate) fn to_system_segment(self) -> Segment {
        let descriptor = self.descriptor;
        let (base, limit) = (descriptor.base(), descriptor.limit());
        Segment::system(self.selector.0, base, limit, descriptor.attributes())
    }
}

/// What MOV, POP, LDS and their like load into `register` (not CS) in the current mode.
pub(crate) fn load(
    m: &mut Machine,
    register: SegmentRegister,
    selector: Selector,
) -> Result<Segment, Exception> {
    if !m.cpu.in_protected_mode() {
        return Ok(unprotected(m, register, selector));
    }
    if register == SegmentRegister::Ss {
        stack(m, selector, m.cpu.cpl, Exception::protection)
    } else {
        data(m, selector, Exception::protection)
    }
}

/// What real and virtual-8086 mode load. Real mode changes the base alone, which is how a limit of
/// 4 GiB outlives protected mode; CS becomes writable data (Intel SDM volume 3, 9.9.2 and 20.1).
pub(crate) fn unprotected(m: &Machine, register: SegmentRegister, selector: Selector) -> Segment {
    let mut segment = Segment::real_mode(selector.0);
    if m.cpu.in_virtual_8086_mode() {
        segment.set_attributes(segment.attributes() | 3 << 5);
        return segment;
    }
    let old = m.cpu.segment(register);
    if old.is_usable() {
        let kept = if register == SegmentRegister::Cs {
            old.attributes() & 0xff00 | segment.attributes()
        } else {
            old.attributes()
        };
        segment = Segment::new(selector.0, segment.base, old.limit, kept);
    }
    segment
}

/// A stack segment for privilege level `cpl`.
pub(crate) fn stack(
    m: &mut Machine,
    selector: Selector,
    cpl: u8,
    invalid: Invalid,
) -> Result<Segment, Exception> {
    let found = fetch(m, selector, invalid)?;
    let fits = selector.rpl() == cpl && found.descriptor.dpl() == cpl;
    if !fits || !found.is_writable_data() {
        return Err(invalid(found.code()));
    }
    if !found.is_present() {
        return Err(Exception::stack(found.code()));
    }
    found.load(m)
}

/// A segment for DS, ES, FS or GS; a null selector is allowed.
pub(crate) fn data(
    m: &mut Machine,
    selector: Selector,
    invalid: Invalid,
) -> Result<Segment, Exception> {
    if selector.is_null() {
        return Ok(Segment::null(selector.0));
    }
    let found = fetch(m, selector, invalid)?;
    if !found.is_readable() || !(found.is_conforming() || found.is_reachable(m)) {
        return Err(invalid(found.code()));
    }
    if !found.is_present() {
        return Err(Exception::not_present(found.code()));
    }
    found.load(m)
}

/// A code segment that runs at its selector's RPL: what returns and task switches load.
pub(crate) fn code_at_rpl(
    m: &mut Machine,
    selector: Selector,
    invalid: Invalid,
) -> Result<Segment, Exception> {
    let found = fetch(m, selector, invalid)?;
    let (dpl, rpl) = (found.descriptor.dpl(), selector.rpl());
    let fits = if found.is_conforming() { dpl <= rpl } else { dpl == rpl };
    if !found.is_code() || !fits {
        return Err(invalid(found.code()));
    }
    if !found.is_present() {
        return Err(Exception::not_present(found.code()));
    }
    found.load(m)
}

/// LDTR's contents for `selector`; a null selector is allowed and leaves no LDT. `absent` is what an
/// LDT that is not present raises.
#[inline]
pub(crate) fn local_table(
    m: &mut Machine,
    selector: Selector,
    invalid: Invalid,
    absent: Invalid,
) -> Result<Segment, Exception> {
    if selector.is_null() {
        return Ok(Segment::null(selector.0));
    }
    if selector.is_local() {
        return Err(invalid(code(selector)));
    }
    let found = fetch(m, selector, invalid)?;
    if found.system_type() != Some(2) {
        return Err(invalid(found.code()));
    }
    if !found.is_present() {
        return Err(absent(found.code()));
    }
    Ok(found.to_system_segment())
}
