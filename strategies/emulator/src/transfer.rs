//! What far transfers and interrupt delivery share: stacks that are not current yet, code segments
//! to enter, returns to outer privilege levels (Intel SDM volume 3, 5.8).

use crate::access;
use crate::descriptor::{self, Found};
use crate::exception::Exception;
use crate::mode;
use machine::cpu::{Segment, SegmentRegister, access as rights, register};
use machine::{LinearAddress, Machine, Selector};

/// The most values in one frame: a call gate's 31 parameters and SS, ESP, CS, EIP.
const FRAME: usize = 35;

/// Values to be pushed together, the first one highest.
pub(crate) struct Frame {
    values: [u32; FRAME],
    count: usize,
}

impl Frame {
    /// An empty frame.
    pub(crate) fn new() -> Frame {
        Frame { values: [0; FRAME], count: 0 }
    }

    /// Adds a value below the others.
    pub(crate) fn add(&mut self, value: u32) {
        self.values[self.count] = value;
        self.count += 1;
    }

    /// Adds several values, the first one highest.
    pub(crate) fn add_all(&mut self, values: &[u32]) {
        for &value in values {
            self.add(value);
        }
    }

    /// Writes the frame in slots of four bytes.
    ///
    /// # Safety
    /// All of it can be written at `host`.
    unsafe fn write(&self, host: *mut u8) {
        let slots = host.cast::<u32>();
        for (index, &value) in self.values[..self.count].iter().rev().enumerate() {
            // SAFETY: within the frame, as promised.
            unsafe { slots.add(index).write_unaligned(value) };
        }
    }

    /// The frame as it lies in memory, in slots of `size` bytes; `bytes` has room for all of it.
    fn lay_out<'a>(&self, size: usize, bytes: &'a mut [u8; FRAME * 4]) -> &'a [u8] {
        let total = size * self.count;
        for (index, value) in self.values[..self.count].iter().enumerate() {
            let at = total - size * (index + 1);
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        &bytes[..total]
    }
}

/// A stack that may not be in SS:ESP yet.
pub(crate) struct Stack {
    segment: Segment,
    pointer: u32,
    cpl: u8,
    /// What is raised when it has no room.
    overflow: Exception,
}

impl Stack {
    /// The stack in SS:ESP.
    pub(crate) fn current(m: &Machine) -> Stack {
        Stack {
            segment: *m.cpu.segment(SegmentRegister::Ss),
            pointer: m.cpu.registers[register::ESP],
            cpl: m.cpu.cpl,
            overflow: Exception::stack(0),
        }
    }

    /// The stack that the TSS names for an inner privilege level (Intel SDM volume 3, 5.8.5).
    pub(crate) fn inner(m: &mut Machine, cpl: u8) -> Result<Stack, Exception> {
        let (selector, pointer) = stack_in_tss(m, cpl)?;
        let segment = descriptor::stack(m, selector, cpl, Exception::invalid_tss)?;
        let overflow = Exception::stack(descriptor::code(selector));
        Ok(Stack { segment, pointer, cpl, overflow })
    }

    /// Which bits of the pointer count.
    fn mask(&self) -> u32 {
        if self.segment.is_32bit() { u32::MAX } else { 0xffff }
    }

    /// Pushes a frame in slots of 4 (`wide`) or 2 bytes: all of it, or an exception.
    pub(crate) fn push(
        &mut self,
        m: &mut Machine,
        frame: &Frame,
        wide: bool,
    ) -> Result<(), Exception> {
        let size = if wide { 4 } else { 2 };
        let total = (size * frame.count) as u32;
        let top = self.pointer & self.mask();
        let bottom = top.wrapping_sub(total) & self.mask();
        if top == 0 || top >= total {
            let linear = self.linear(m, bottom, total, size as u32)?;
            match m.tlb.write(self.cpl == 3, linear.0, total) {
                // SAFETY: the TLB holds pages of guest memory, and the whole frame lies within one.
                Some(host) if wide => unsafe { frame.write(host) },
                _ => {
                    let mut bytes = [0; FRAME * 4];
                    let bytes = frame.lay_out(size, &mut bytes);
                    access::write_frame(m, linear, bytes, size, self.cpl)?;
                }
            }
        } else {
            let mut bytes = [0; FRAME * 4];
            let bytes = frame.lay_out(size, &mut bytes);
            self.push_around(m, bottom, bytes, size)?;
        }
        self.pointer = self.pointer & !self.mask() | bottom;
        Ok(())
    }

    /// Writes a frame that wraps around at the end of a 16-bit (or 4 GiB) stack, slot by slot.
    fn push_around(
        &self,
        m: &mut Machine,
        bottom: u32,
        bytes: &[u8],
        size: usize,
    ) -> Result<(), Exception> {
        let access = crate::paging::Access::data(self.cpl, true);
        let offset = |slot: usize| bottom.wrapping_add((slot * size) as u32) & self.mask();
        for slot in (0..bytes.len() / size).rev() {
            let linear = self.linear(m, offset(slot), size as u32, size as u32)?;
            access::check_linear(m, linear, size as u32, access)?;
        }
        for (slot, value) in bytes.chunks(size).enumerate() {
            let linear = LinearAddress(self.segment.base.wrapping_add(offset(slot)));
            access::write_frame(m, linear, value, size, self.cpl)?;
        }
        Ok(())
    }

    /// The linear address of `length` bytes to be written in slots of `size`.
    fn linear(
        &self,
        m: &Machine,
        offset: u32,
        length: u32,
        size: u32,
    ) -> Result<LinearAddress, Exception> {
        if !self.segment.contains(offset, length) {
            return Err(self.overflow);
        }
        let linear = self.segment.base.wrapping_add(offset);
        let misaligned = linear & (size - 1) != 0;
        if misaligned && self.cpl == 3 && access::alignment_checked(m) {
            return Err(Exception::ALIGNMENT);
        }
        Ok(LinearAddress(linear))
    }

    /// Makes this the stack in SS:ESP.
    pub(crate) fn install(&self, m: &mut Machine) {
        *m.cpu.segment_mut(SegmentRegister::Ss) = self.segment;
        m.cpu.registers[register::ESP] = self.pointer;
    }
}

/// SS and ESP for privilege level `cpl` from the current TSS (Intel SDM volume 3, 7.2).
fn stack_in_tss(m: &mut Machine, cpl: u8) -> Result<(Selector, u32), Exception> {
    let tss = m.cpu.tr;
    let wide = tss.kind() & 8 != 0;
    let (at, last) = if wide {
        let at = u32::from(cpl) * 8 + 4;
        (at, at + 5)
    } else {
        let at = u32::from(cpl) * 4 + 2;
        (at, at + 3)
    };
    if last > tss.limit {
        return Err(Exception::invalid_tss(tss.selector & !3));
    }
    let address = tss.base.wrapping_add(at);
    let (pointer, selector) = if wide {
        (access::read_system(m, address)?, access::read_system(m, address.wrapping_add(4))?)
    } else {
        let pointer: u16 = access::read_system(m, address)?;
        (u32::from(pointer), access::read_system(m, address.wrapping_add(2))?)
    };
    Ok((Selector(selector), pointer))
}

/// Raises #GP(0) if `eip` lies beyond the limit of the code segment to be entered.
pub(crate) fn check_eip(segment: &Segment, eip: u32) -> Result<(), Exception> {
    if eip <= segment.limit { Ok(()) } else { Err(Exception::PROTECTION) }
}

/// Enters a code segment whose checks are done.
pub(crate) fn enter(m: &mut Machine, segment: Segment, eip: u32, cpl: u8) {
    *m.cpu.segment_mut(SegmentRegister::Cs) = segment;
    m.cpu.eip = eip;
    if m.cpu.cpl != cpl {
        mode::set_cpl(m, cpl);
    }
}

/// Enters CS:EIP as real and virtual-8086 mode do.
pub(crate) fn enter_unprotected(
    m: &mut Machine,
    selector: Selector,
    eip: u32,
) -> Result<(), Exception> {
    let segment = descriptor::unprotected(m, SegmentRegister::Cs, selector);
    check_eip(&segment, eip)?;
    enter(m, segment, eip, m.cpu.cpl);
    Ok(())
}

/// Raises #NP unless a segment, gate or TSS is present.
pub(crate) fn check_present(found: &Found) -> Result<(), Exception> {
    if found.is_present() { Ok(()) } else { Err(Exception::not_present(found.code())) }
}

/// The code segment that a far return or IRET goes back to, at the privilege of its RPL.
pub(crate) fn returned_code(m: &mut Machine, selector: Selector) -> Result<Segment, Exception> {
    if !selector.is_null() && selector.rpl() < m.cpu.cpl {
        return Err(Exception::protection(descriptor::code(selector)));
    }
    descriptor::code_at_rpl(m, selector, Exception::protection)
}

/// Where a return to an outer privilege level goes.
pub(crate) struct Outer {
    /// The code segment; its RPL is the new CPL.
    pub(crate) code: Segment,
    /// EIP.
    pub(crate) eip: u32,
    /// The stack's selector.
    pub(crate) stack: Selector,
    /// ESP.
    pub(crate) esp: u32,
}

/// Returns to an outer privilege level. Of a 16-bit stack's pointer only the low half is loaded, and
/// data segments that the outer level may not use become null.
pub(crate) fn return_outward(m: &mut Machine, outer: &Outer) -> Result<(), Exception> {
    let cpl = (outer.code.selector & 3) as u8;
    let stack = descriptor::stack(m, outer.stack, cpl, Exception::protection)?;
    check_eip(&outer.code, outer.eip)?;
    enter(m, outer.code, outer.eip, cpl);
    let esp = &mut m.cpu.registers[register::ESP];
    *esp = if stack.is_32bit() { outer.esp } else { *esp & !0xffff | outer.esp & 0xffff };
    *m.cpu.segment_mut(SegmentRegister::Ss) = stack;
    forget_inner_data(m, cpl);
    Ok(())
}

/// Makes the data segments null that an outer privilege level may not use.
#[inline]
pub(crate) fn forget_inner_data(m: &mut Machine, cpl: u8) {
    for register in
        [SegmentRegister::Es, SegmentRegister::Ds, SegmentRegister::Fs, SegmentRegister::Gs]
    {
        let segment = m.cpu.segment_mut(register);
        let conforming = segment.is_code() && segment.has(rights::CONFORMING);
        if segment.is_usable() && segment.dpl() < cpl && !conforming {
            *segment = Segment::null(0);
        }
    }
}
