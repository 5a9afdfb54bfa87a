//! Fetching instructions: the bytes at EIP, and one instruction decoded from them.

use crate::access;
use crate::decode::{Decoded, LONGEST, decode};
use crate::exception::Exception;
use crate::lower::Flow;
use crate::op::Op;
use crate::paging::{self, Access};
use machine::cpu::SegmentRegister;
use machine::{LinearAddress, Machine, PhysicalAddress};

/// The physical address of the byte at `linear`, for execution.
pub(crate) fn physical(
    m: &mut Machine,
    linear: LinearAddress,
) -> Result<PhysicalAddress, Exception> {
    let access = Access::fetch(m.cpu.cpl);
    paging::translate(m, linear, access)
}

/// Decodes the one instruction at EIP, with exactly the faults that fetching it byte by byte raises.
pub(crate) fn instruction(m: &mut Machine) -> Result<(Op, Flow), Exception> {
    let linear = m.cpu.instruction_address();
    let is_32bit = m.cpu.segment(SegmentRegister::Cs).is_32bit();
    let mut bytes = [0; LONGEST];
    // Up to the end of the page first: what lies behind it may not be there, nor be needed.
    let in_page = ((0x1000 - linear.page_offset()) as usize).min(LONGEST);
    let readable = in_limit(m, in_page)?;
    let first = physical(m, linear)?;
    access::read_physical(m, first, &mut bytes[..readable]);
    if let Decoded::Op(op, flow) = decode(&bytes[..readable], 0, is_32bit) {
        return Ok((op, flow));
    }
    if readable < in_page {
        return Err(Exception::PROTECTION);
    }
    let whole = in_limit(m, LONGEST)?;
    if whole > in_page {
        let next = physical(m, LinearAddress(linear.0.wrapping_add(in_page as u32)))?;
        access::read_physical(m, next, &mut bytes[in_page..whole]);
    }
    match decode(&bytes[..whole], 0, is_32bit) {
        Decoded::Op(op, flow) => Ok((op, flow)),
        Decoded::Incomplete => Err(Exception::PROTECTION),
    }
}

/// How many of `wanted` bytes at EIP lie within the code segment: #GP if none does.
fn in_limit(m: &Machine, wanted: usize) -> Result<usize, Exception> {
    let limit = u64::from(m.cpu.segment(SegmentRegister::Cs).limit);
    let left = (limit + 1).saturating_sub(u64::from(m.cpu.eip));
    if left == 0 { Err(Exception::PROTECTION) } else { Ok(wanted.min(left as usize)) }
}
