//! Guest memory as instructions see it: segmentation, paging, devices.
//!
//! [`read`], [`write`] and [`modify`] are the ways of instructions with a segment and an offset: one
//! comparison with the segment's fast limit and one look into the TLB in the common case.
//! [`read_linear`] and [`write_linear`] have passed segmentation; the `_system` forms are the CPU's
//! own accesses to descriptor tables and task state, which have supervisor rights at any CPL.

use crate::alu::Word;
use crate::debug;
use crate::exception::Exception;
use crate::maker;
use crate::paging::{self, Access};
use machine::cpu::{Cr0, Eflags, Segment, SegmentRegister};
use machine::memory::PageKind;
use machine::{LinearAddress, Machine, PhysicalAddress};

/// Reads an operand.
#[inline(always)]
pub(crate) fn read<T: Word>(m: &mut Machine, segment: u8, offset: u32) -> Result<T, Exception> {
    let descriptor = &m.cpu.segments[usize::from(segment)];
    if descriptor.reads_freely(offset, T::SIZE) {
        let linear = descriptor.base.wrapping_add(offset);
        if let Some(host) = m.tlb.read(m.cpu.cpl == 3, linear, T::SIZE) {
            // SAFETY: the TLB holds pages of guest memory, and the access lies within one.
            return Ok(unsafe { host.cast::<T>().read_unaligned() });
        }
    }
    read_slowly(m, segment, offset)
}

/// Writes an operand.
#[inline(always)]
pub(crate) fn write<T: Word>(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    value: T,
) -> Result<(), Exception> {
    let descriptor = &m.cpu.segments[usize::from(segment)];
    if descriptor.writes_freely(offset, T::SIZE) {
        let linear = descriptor.base.wrapping_add(offset);
        if let Some(host) = m.tlb.write(m.cpu.cpl == 3, linear, T::SIZE) {
            // SAFETY: the TLB holds pages of guest memory, and the access lies within one.
            unsafe { host.cast::<T>().write_unaligned(value) };
            return Ok(());
        }
    }
    write_slowly(m, segment, offset, value)
}

/// Reads an operand, changes it, and writes it back; `change` returns what is to be written. Faults
/// that the write would raise come before `change` is called.
#[inline(always)]
pub(crate) fn modify<T: Word>(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    change: impl FnOnce(&mut Machine, T) -> T,
) -> Result<(), Exception> {
    let descriptor = &m.cpu.segments[usize::from(segment)];
    if descriptor.writes_freely(offset, T::SIZE) && descriptor.reads_freely(offset, T::SIZE) {
        let linear = descriptor.base.wrapping_add(offset);
        if let Some(host) = m.tlb.write(m.cpu.cpl == 3, linear, T::SIZE) {
            let host = host.cast::<T>();
            // SAFETY: the TLB holds pages of guest memory, and the access lies within one; `change`
            // touches registers and flags only, so that the page stays where it is.
            let old = unsafe { host.read_unaligned() };
            let new = change(m, old);
            // SAFETY: as above.
            unsafe { host.write_unaligned(new) };
            return Ok(());
        }
    }
    check_write(m, segment, offset, T::SIZE)?;
    let old = read_slowly(m, segment, offset)?;
    let new = change(m, old);
    write_slowly(m, segment, offset, new)
}

#[cold]
#[inline(never)]
fn read_slowly<T: Word>(m: &mut Machine, segment: u8, offset: u32) -> Result<T, Exception> {
    let mut bytes = [0; 4];
    read_bytes(m, segment, offset, &mut bytes[..T::SIZE as usize])?;
    Ok(T::truncate(u32::from_le_bytes(bytes)))
}

#[cold]
#[inline(never)]
fn write_slowly<T: Word>(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    value: T,
) -> Result<(), Exception> {
    write_bytes(m, segment, offset, &value.zero_extend().to_le_bytes()[..T::SIZE as usize])
}

/// Reads any number of bytes up to a page as one operand.
pub(crate) fn read_bytes(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    data: &mut [u8],
) -> Result<(), Exception> {
    let linear = linear(m, segment, offset, data.len() as u32, false)?;
    read_linear_bytes(m, linear, data, Access::data(m.cpu.cpl, false))
}

/// Writes any number of bytes up to a page as one operand: all of them or none.
pub(crate) fn write_bytes(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    data: &[u8],
) -> Result<(), Exception> {
    let linear = linear(m, segment, offset, data.len() as u32, true)?;
    write_linear_bytes(m, linear, data, Access::data(m.cpu.cpl, true))
}

/// Raises what a write of `size` bytes would raise.
pub(crate) fn check_write(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    size: u32,
) -> Result<(), Exception> {
    let linear = linear(m, segment, offset, size, true)?;
    let pieces = pages(m, linear, size, Access::data(m.cpu.cpl, true))?;
    check_not_executing(m, &pieces, size)
}

/// Raises [`Exception::RESTART`] if any of the bytes is being executed from a decoded copy.
fn check_not_executing(m: &Machine, pieces: &Pieces, size: u32) -> Result<(), Exception> {
    let (first, left) = pieces.first;
    let in_second = |second| size > left && m.memory.is_executing(second, size - left);
    if m.memory.is_executing(first, left) || pieces.second.is_some_and(in_second) {
        return Err(Exception::RESTART);
    }
    Ok(())
}

/// The linear address of an operand, with everything that segmentation checks
/// (Intel SDM volume 3, 5.3 to 5.5), and alignment (6.15, #AC).
pub(crate) fn linear(
    m: &mut Machine,
    segment: u8,
    offset: u32,
    size: u32,
    write: bool,
) -> Result<LinearAddress, Exception> {
    let descriptor = m.cpu.segments[usize::from(segment)];
    let fault = if segment == SegmentRegister::Ss as u8 {
        Exception::stack(0)
    } else {
        Exception::PROTECTION
    };
    let allowed = if m.cpu.in_protected_mode() {
        if write { descriptor.is_writable() } else { descriptor.is_readable() }
    } else {
        true
    };
    if !allowed {
        // An unusable SS is a stack fault, a wrong type a protection fault.
        let wrong_type = descriptor.is_usable();
        return Err(if wrong_type { Exception::PROTECTION } else { fault });
    }
    if !descriptor.contains(offset, size) && !may_wrap(&descriptor, offset) {
        return Err(fault);
    }
    let address = descriptor.base.wrapping_add(offset);
    if alignment_checked(m) && address & (alignment(size) - 1) != 0 {
        return Err(Exception::ALIGNMENT);
    }
    Ok(LinearAddress(address))
}

/// Whether an operand that begins at `offset` may go on at offset 0: in a segment of 4 GiB that is the
/// CPU's choice (Intel SDM volume 3, 5.3), and Intel's check nothing there.
fn may_wrap(segment: &Segment, offset: u32) -> bool {
    maker::is_intel()
        && segment.limit == u32::MAX
        && !segment.is_expand_down()
        && segment.contains(offset, 1)
}

/// To how many bytes an operand of `size` bytes has to be aligned (Intel SDM volume 3, table 6-7).
fn alignment(size: u32) -> u32 {
    match size {
        2 | 4 | 8 => size,
        // MOVUPS and its like; the manuals leave it to the CPU, and Intel's let it be.
        16 if maker::is_intel() => 1,
        16 => 16,
        // An 80-bit number.
        10 => 8,
        // x87 environments and states of 16 and 32 bits.
        14 | 94 => 2,
        28 | 108 => 4,
        _ => 1,
    }
}

/// Raises #AC where an operand is not aligned to `size` bytes, of which its own accesses say less.
pub(crate) fn check_aligned(
    m: &Machine,
    segment: u8,
    offset: u32,
    size: u32,
) -> Result<(), Exception> {
    let segment = &m.cpu.segments[usize::from(segment)];
    let linear = segment.base.wrapping_add(offset);
    let aligned = linear & (size - 1) == 0 || !segment.contains(offset, size);
    if alignment_checked(m) && !aligned { Err(Exception::ALIGNMENT) } else { Ok(()) }
}

/// Whether unaligned accesses raise #AC now.
pub(crate) fn alignment_checked(m: &Machine) -> bool {
    m.cpu.cpl == 3 && m.cpu.cr0.contains(Cr0::AM) && m.cpu.flags.contains(Eflags::AC)
}

/// The one or two physical pieces of a linear range of up to a page.
struct Pieces {
    first: (PhysicalAddress, u32),
    second: Option<PhysicalAddress>,
}

fn pages(
    m: &mut Machine,
    linear: LinearAddress,
    size: u32,
    access: Access,
) -> Result<Pieces, Exception> {
    let left = 0x1000 - linear.page_offset();
    if size <= left {
        let first = (paging::translate(m, linear, access)?, size);
        return Ok(Pieces { first, second: None });
    }
    let next = LinearAddress(linear.0.wrapping_add(left));
    if access.is_write() {
        // No page becomes dirty for a write that the other one refuses.
        paging::check(m, linear, access)?;
        paging::check(m, next, access)?;
    }
    let first = (paging::translate(m, linear, access)?, left);
    let second = Some(paging::translate(m, next, access)?);
    Ok(Pieces { first, second })
}

/// Reads bytes that passed segmentation.
pub(crate) fn read_linear_bytes(
    m: &mut Machine,
    linear: LinearAddress,
    data: &mut [u8],
    access: Access,
) -> Result<(), Exception> {
    let pieces = pages(m, linear, data.len() as u32, access)?;
    debug::data_access(m, linear, data.len() as u32, false);
    let (head, tail) = data.split_at_mut(pieces.first.1 as usize);
    read_physical(m, pieces.first.0, head);
    if let Some(second) = pieces.second {
        read_physical(m, second, tail);
    }
    Ok(())
}

/// Writes bytes that passed segmentation: all of them or none.
pub(crate) fn write_linear_bytes(
    m: &mut Machine,
    linear: LinearAddress,
    data: &[u8],
    access: Access,
) -> Result<(), Exception> {
    let pieces = pages(m, linear, data.len() as u32, access)?;
    check_not_executing(m, &pieces, data.len() as u32)?;
    let (head, tail) = data.split_at(pieces.first.1 as usize);
    debug::data_access(m, linear, data.len() as u32, true);
    write_physical(m, pieces.first.0, head);
    if let Some(second) = pieces.second {
        write_physical(m, second, tail);
    }
    Ok(())
}

/// Raises what an access to a linear range of up to a page would raise.
pub(crate) fn check_linear(
    m: &mut Machine,
    linear: LinearAddress,
    size: u32,
    access: Access,
) -> Result<(), Exception> {
    pages(m, linear, size, access).map(|_| ())
}

/// Writes a stack frame that passed segmentation with the rights of privilege level `cpl`: all of it
/// or nothing. It is pushed in slots of `slot` bytes, so a page fault is that of the highest slot.
pub(crate) fn write_frame(
    m: &mut Machine,
    linear: LinearAddress,
    frame: &[u8],
    slot: usize,
    cpl: u8,
) -> Result<(), Exception> {
    if let Some(host) = m.tlb.write(cpl == 3, linear.0, frame.len() as u32) {
        // SAFETY: the TLB holds pages of guest memory, and the whole range lies within one.
        unsafe { host.copy_from_nonoverlapping(frame.as_ptr(), frame.len()) };
        return Ok(());
    }
    let access = Access::data(cpl, true);
    for at in (0..frame.len()).step_by(slot).rev() {
        let address = LinearAddress(linear.0.wrapping_add(at as u32));
        check_linear(m, address, slot as u32, access)?;
    }
    write_linear_bytes(m, linear, frame, access)
}

/// Reads a value with supervisor rights: descriptor tables, task state.
pub(crate) fn read_system<T: Word>(m: &mut Machine, address: u32) -> Result<T, Exception> {
    if let Some(host) = m.tlb.read(false, address, T::SIZE) {
        // SAFETY: the TLB holds pages of guest memory, and the access lies within one.
        return Ok(unsafe { host.cast::<T>().read_unaligned() });
    }
    let mut bytes = [0; 4];
    let part = &mut bytes[..T::SIZE as usize];
    read_linear_bytes(m, LinearAddress(address), part, Access::system(false))?;
    Ok(T::truncate(u32::from_le_bytes(bytes)))
}

/// Reads eight bytes with supervisor rights: a descriptor.
pub(crate) fn read_system_u64(m: &mut Machine, address: u32) -> Result<u64, Exception> {
    if let Some(host) = m.tlb.read(false, address, 8) {
        // SAFETY: the TLB holds pages of guest memory, and the access lies within one.
        return Ok(unsafe { host.cast::<u64>().read_unaligned() });
    }
    let mut bytes = [0; 8];
    read_linear_bytes(m, LinearAddress(address), &mut bytes, Access::system(false))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes a value with supervisor rights.
pub(crate) fn write_system<T: Word>(
    m: &mut Machine,
    address: u32,
    value: T,
) -> Result<(), Exception> {
    let bytes = value.zero_extend().to_le_bytes();
    let part = &bytes[..T::SIZE as usize];
    write_linear_bytes(m, LinearAddress(address), part, Access::system(true))
}

/// Reads within one page, from memory or a device.
pub(crate) fn read_physical(m: &mut Machine, address: PhysicalAddress, data: &mut [u8]) {
    if data.is_empty() || m.memory.read(address, data) {
        return;
    }
    m.counters.mmio += 1;
    m.bus.mmio_read(address, data);
}

/// Writes within one page, to memory or a device; ROM keeps what it has.
pub(crate) fn write_physical(m: &mut Machine, address: PhysicalAddress, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    match m.memory.page_kind(address) {
        PageKind::Ram(_) => {
            m.memory.write(address, data);
        }
        PageKind::Rom(_) => {}
        PageKind::Device => {
            m.counters.mmio += 1;
            m.bus.mmio_write(address, data);
        }
    }
}
