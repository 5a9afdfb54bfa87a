//! The way that almost every interrupt and every return takes, in one piece: between flat 32-bit code
//! segments whose descriptors the CPU has used before, on flat stacks, within pages that the TLB
//! knows.
//!
//! Whatever differs is left to the general way (`interrupt`, `handlers::interrupts`) before anything
//! has changed: nothing here raises an exception. Where both could go, both come to the same.

use crate::exception::Exception;
use crate::transfer;
use machine::cpu::{
    Cr0, Descriptor, Eflags, Segment, SegmentRegister, TableRegister, access as rights, register,
};
use machine::{Machine, Selector};

/// All of a descriptor but its DPL, the right to read code or write data, and the two bits that mean
/// nothing here (available, long).
const FLAT_MASK: u64 = !(3 << 45 | 1 << 41 | 1 << 52 | 1 << 53);
/// Base 0, 4 GiB, present, accessed, 32 bits; not conforming.
const FLAT_CODE: u64 = 0x00cf_9900_0000_ffff;
/// The same, expanding up.
const FLAT_DATA: u64 = 0x00cf_9100_0000_ffff;
/// P, S and the type but for its lowest bit, by which interrupt gates differ from trap gates.
const GATE_MASK: u64 = 0x9e << 40;
const GATE: u64 = 0x8e << 40;
/// Of the type: a trap gate; a TSS of 32 bits.
const TRAP: u8 = 1;
const WIDE: u8 = 8;

/// Delivers an event by a gate of 32 bits; false if it has to go the general way.
#[inline]
pub(crate) fn deliver(m: &mut Machine, event: Exception, return_eip: u32, flags: u32) -> bool {
    try_deliver(m, event, return_eip, flags).is_some()
}

fn try_deliver(m: &mut Machine, event: Exception, return_eip: u32, flags: u32) -> Option<()> {
    is_usual(m)?;
    let gate = entry(m, m.cpu.idtr, u32::from(event.vector()) * 8)?;
    let from = m.cpu.cpl;
    if gate.0 & GATE_MASK != GATE || event.is_software() && gate.dpl() < from {
        return None;
    }
    let code = flat(m, gate.gate_selector(), FLAT_CODE)?;
    let cpl = code.dpl();
    if cpl > from {
        return None;
    }
    let stack = if cpl < from { Some(inner_stack(m, cpl)?) } else { None };
    let top = match stack {
        Some((_, pointer)) => pointer,
        None => current_stack(m)?,
    };

    let code_size = if event.error_code().is_some() { 4 } else { 0 };
    let size = code_size + if stack.is_some() { 20 } else { 12 };
    let bottom = top.checked_sub(size)?;
    let host = m.tlb.write(cpl == 3, bottom, size)?;
    let selector = |register| u32::from(m.cpu.segment(register).selector);
    let (cs, ss) = (selector(SegmentRegister::Cs), selector(SegmentRegister::Ss));
    let esp = m.cpu.registers[register::ESP];
    // SAFETY: the TLB holds pages of guest memory, and the whole frame lies within one.
    unsafe {
        if let Some(error) = event.error_code() {
            host.cast::<u32>().write_unaligned(u32::from(error));
        }
        let frame = host.add(code_size as usize);
        frame.cast::<[u32; 3]>().write_unaligned([return_eip, cs, flags]);
        if stack.is_some() {
            frame.add(12).cast::<[u32; 2]>().write_unaligned([esp, ss]);
        }
    }

    let masks = if gate.kind() & TRAP == 0 { Eflags::IF } else { Eflags::empty() };
    m.cpu.flags.set(Eflags::TF | Eflags::NT | Eflags::RF | masks, false);
    let selector = Selector(gate.gate_selector().0 & !3 | u16::from(cpl));
    *m.cpu.segment_mut(SegmentRegister::Cs) = segment(code, selector);
    m.cpu.eip = gate.gate_offset();
    m.cpu.cpl = cpl;
    if let Some((inner, _)) = stack {
        *m.cpu.segment_mut(SegmentRegister::Ss) = inner;
    }
    m.cpu.registers[register::ESP] = bottom;
    Some(())
}

/// IRETD to the same or an outer privilege level; false if it has to go the general way. `mask` are
/// the flags that it takes from its image.
#[inline]
pub(crate) fn iret(m: &mut Machine, mask: Eflags) -> bool {
    try_iret(m, mask).is_some()
}

fn try_iret(m: &mut Machine, mask: Eflags) -> Option<()> {
    is_usual(m)?;
    let from = m.cpu.cpl;
    let esp = current_stack(m)?;
    let host = m.tlb.read(from == 3, esp, 12)?;
    // SAFETY: the TLB holds pages of guest memory, and the whole frame lies within one.
    let [eip, cs, flags] = unsafe { host.cast::<[u32; 3]>().read_unaligned() };
    let selector = Selector(cs as u16);
    let cpl = selector.rpl();
    if flags & Eflags::VM.bits() != 0 || m.cpu.flags.contains(Eflags::NT) || cpl < from {
        return None;
    }
    let code = flat(m, selector, FLAT_CODE)?;
    if code.dpl() != cpl {
        return None;
    }
    if cpl == from {
        m.cpu.registers[register::ESP] = esp.wrapping_add(12);
    } else {
        let host = m.tlb.read(from == 3, esp.checked_add(12)?, 8)?;
        // SAFETY: as above.
        let [esp, ss] = unsafe { host.cast::<[u32; 2]>().read_unaligned() };
        let stack = stack_segment(m, Selector(ss as u16), cpl)?;
        *m.cpu.segment_mut(SegmentRegister::Ss) = stack;
        m.cpu.registers[register::ESP] = esp;
        transfer::forget_inner_data(m, cpl);
    }
    *m.cpu.segment_mut(SegmentRegister::Cs) = segment(code, selector);
    m.cpu.eip = eip;
    m.cpu.cpl = cpl;
    m.cpu.flags.merge(flags, mask);
    Some(())
}

/// Protected mode, not virtual-8086 mode, and no alignment checks that a change of privilege could
/// switch on. While there are data breakpoints the TLB knows nothing.
#[inline]
fn is_usual(m: &Machine) -> Option<()> {
    let control = m.cpu.cr0 & (Cr0::PE | Cr0::AM);
    (control == Cr0::PE && !m.cpu.flags.contains(Eflags::VM)).then_some(())
}

/// An entry of the GDT or IDT.
#[inline]
fn entry(m: &Machine, table: TableRegister, offset: u32) -> Option<Descriptor> {
    if offset + 7 > u32::from(table.limit) {
        return None;
    }
    let host = m.tlb.read(false, table.base.wrapping_add(offset), 8)?;
    // SAFETY: the TLB holds pages of guest memory, and the entry lies within one.
    Some(Descriptor(unsafe { host.cast::<u64>().read_unaligned() }))
}

/// The descriptor of a selector in the GDT, if it is of this flat kind.
#[inline]
fn flat(m: &Machine, selector: Selector, kind: u64) -> Option<Descriptor> {
    if selector.is_local() || selector.is_null() {
        return None;
    }
    let descriptor = entry(m, m.cpu.gdtr, selector.table_offset())?;
    (descriptor.0 & FLAT_MASK == kind).then_some(descriptor)
}

/// What loading a flat descriptor gives.
#[inline]
fn segment(descriptor: Descriptor, selector: Selector) -> Segment {
    Segment::new(selector.0, 0, u32::MAX, descriptor.attributes())
}

#[inline]
fn stack_segment(m: &Machine, selector: Selector, cpl: u8) -> Option<Segment> {
    let descriptor = flat(m, selector, FLAT_DATA)?;
    let fits = selector.rpl() == cpl && descriptor.dpl() == cpl;
    (fits && descriptor.has(rights::WRITABLE)).then(|| segment(descriptor, selector))
}

/// The stack that a 32-bit TSS names for an inner privilege level.
#[inline]
fn inner_stack(m: &Machine, cpl: u8) -> Option<(Segment, u32)> {
    let tss = &m.cpu.tr;
    let at = u32::from(cpl) * 8 + 4;
    if tss.kind() & WIDE == 0 || at + 5 > tss.limit {
        return None;
    }
    let host = m.tlb.read(false, tss.base.wrapping_add(at), 6)?;
    // SAFETY: the TLB holds pages of guest memory, and both lie within one.
    let (pointer, selector) = unsafe {
        (host.cast::<u32>().read_unaligned(), host.add(4).cast::<u16>().read_unaligned())
    };
    Some((stack_segment(m, Selector(selector), cpl)?, pointer))
}

/// ESP, where SS is flat.
#[inline]
fn current_stack(m: &Machine) -> Option<u32> {
    let stack = m.cpu.segment(SegmentRegister::Ss);
    let is_flat = stack.base == 0 && stack.is_32bit() && stack.writes_freely(u32::MAX, 1);
    is_flat.then(|| m.cpu.registers[register::ESP])
}
