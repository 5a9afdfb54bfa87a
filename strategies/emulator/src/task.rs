//! Hardware task switches with 16- and 32-bit TSSs (Intel SDM volume 3, chapter 7).
//!
//! A switch has two halves. Until everything that can be checked has been checked, nothing is
//! changed and an exception belongs to the old task. Then the new task's registers are loaded, and
//! what is wrong with its segments is raised in the new task, marked with
//! [`Exception::in_new_task`], because the instruction's EIP no longer counts.

use crate::Outcome;
use crate::access;
use crate::descriptor::{self, Found};
use crate::exception::Exception;
use crate::interrupt;
use crate::mode;
use crate::paging::{self, Access};
use crate::transfer;
use machine::cpu::{Cr0, Cr4, Dr6, Eflags, InterruptShadow, Segment, SegmentRegister};
use machine::{LinearAddress, Machine, Selector};

/// What switches tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// JMP: the old task is no longer busy.
    Jump,
    /// CALL, an interrupt or an exception: the old task stays busy, the new one links back to it.
    Nest,
    /// IRET: back to a task that is still busy.
    Return,
}

/// What of the old task is not in its registers: where it goes on and with which EFLAGS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    /// The EIP at which the old task goes on.
    pub(crate) eip: u32,
    /// Its EFLAGS.
    pub(crate) flags: u32,
}

/// The enable bits of local breakpoints in DR7, which do not outlive a task.
const LOCAL_BREAKPOINTS: u32 = 0x155;
/// The 32-bit TSS in bytes, the I/O map's base included.
const TSS_BYTES: usize = 0x68;

/// Offsets in a TSS (Intel SDM volume 3, figures 7-2 and 7-10).
struct Layout {
    wide: bool,
    eip: usize,
    flags: usize,
    /// General registers, in encoding order.
    registers: usize,
    /// Selectors, in encoding order.
    segments: usize,
    segment_count: usize,
    ldt: usize,
    bytes: usize,
}

static WIDE: Layout = Layout {
    wide: true,
    eip: 0x20,
    flags: 0x24,
    registers: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
    bytes: TSS_BYTES,
};
static NARROW: Layout = Layout {
    wide: false,
    eip: 0x0e,
    flags: 0x10,
    registers: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2a,
    bytes: 0x2c,
};
/// CR3 in a 32-bit TSS.
const CR3: usize = 0x1c;
/// The word whose lowest bit asks for a debug trap.
const TRAP: usize = 0x64;

impl Layout {
    fn of(kind: u8) -> &'static Layout {
        if kind & 8 != 0 { &WIDE } else { &NARROW }
    }

    /// Bytes from one selector to the next, and from one register to the next.
    fn slot(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    fn limit(&self) -> u32 {
        self.bytes as u32 - 1
    }
}

/// A new task's TSS as read before anything was changed.
struct Image {
    layout: &'static Layout,
    bytes: [u8; TSS_BYTES],
}

impl Image {
    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// A register: two bytes in a 16-bit TSS, the upper half then being zero.
    fn register(&self, at: usize) -> u32 {
        let high = if self.layout.wide { self.word(at + 2) } else { 0 };
        u32::from(self.word(at)) | u32::from(high) << 16
    }

    /// The selector for a segment register; a 16-bit TSS has none for FS and GS.
    fn selector(&self, register: SegmentRegister) -> Selector {
        let number = register as usize;
        if number >= self.layout.segment_count {
            return Selector(0);
        }
        Selector(self.word(self.layout.segments + number * self.layout.slot()))
    }
}

/// The TSS that a JMP, CALL or task gate names: one that is not busy.
pub(crate) fn available(m: &mut Machine, selector: Selector) -> Result<Found, Exception> {
    find(m, selector, [1, 9], Exception::protection)
}

fn find(
    m: &mut Machine,
    selector: Selector,
    types: [u8; 2],
    invalid: descriptor::Invalid,
) -> Result<Found, Exception> {
    if selector.is_local() {
        return Err(invalid(descriptor::code(selector)));
    }
    let found = descriptor::fetch(m, selector, invalid)?;
    if !found.system_type().is_some_and(|kind| types.contains(&kind)) {
        return Err(invalid(found.code()));
    }
    transfer::check_present(&found)?;
    Ok(found)
}

/// IRET with NT set: goes back to the task that the current TSS links to.
pub(crate) fn return_to_previous(m: &mut Machine, eip: u32) -> Result<(), Exception> {
    let link = Selector(access::read_system(m, m.cpu.tr.base)?);
    let found = find(m, link, [3, 11], Exception::invalid_tss)?;
    let flags = m.cpu.flags.bits() & !Eflags::NT.bits();
    let switched = switch(m, found, Reason::Return, Saved { eip, flags });
    settle(m, switched)
}

/// Ends an instruction that may have switched tasks: an exception of the new task is raised there.
pub(crate) fn settle(m: &mut Machine, result: Result<(), Exception>) -> Result<(), Exception> {
    match result {
        Err(exception) if exception.is_in_new_task() => match interrupt::raise(m, exception) {
            // What could not deliver a double fault will not deliver the next one.
            Outcome::Shutdown => Err(Exception::DOUBLE_FAULT.in_new_task()),
            Outcome::Continue | Outcome::Halted => Ok(()),
        },
        other => other,
    }
}

/// Switches to the task of a TSS whose descriptor was checked.
pub(crate) fn switch(
    m: &mut Machine,
    found: Found,
    reason: Reason,
    saved: Saved,
) -> Result<(), Exception> {
    let image = read_image(m, &found)?;
    let old = check_old(m, &found)?;
    // From here on nothing is undone, and the block that is being executed is left.
    m.memory.set_executing(0..0);
    commit(m, &found, old, reason, saved, &image).map_err(Exception::in_new_task)
}

/// Reads the new task's TSS.
fn read_image(m: &mut Machine, found: &Found) -> Result<Image, Exception> {
    let layout = Layout::of(found.descriptor.kind());
    if found.descriptor.limit() < layout.limit() {
        return Err(Exception::invalid_tss(found.code()));
    }
    let mut image = Image { layout, bytes: [0; TSS_BYTES] };
    let base = LinearAddress(found.descriptor.base());
    let part = &mut image.bytes[..layout.bytes];
    access::read_linear_bytes(m, base, part, Access::system(false))?;
    access::check_linear(m, base, 2, Access::system(true))?;
    let busy = LinearAddress(found.type_address());
    access::check_linear(m, busy, 1, Access::system(true))?;
    Ok(image)
}

/// Checks that the old task can be saved; returns its descriptor, if TR names one.
fn check_old(m: &mut Machine, new: &Found) -> Result<Option<Found>, Exception> {
    let tr = m.cpu.tr;
    let layout = Layout::of(tr.kind());
    if tr.limit < layout.limit() {
        return Err(Exception::invalid_tss(tr.selector & !3));
    }
    let first = LinearAddress(tr.base.wrapping_add(layout.eip as u32));
    let length = (layout.ldt - layout.eip) as u32;
    access::check_linear(m, first, length, Access::system(true))?;
    if Selector(tr.selector).is_null() || tr.selector == new.selector.0 {
        return Ok(None);
    }
    let old = descriptor::find(m, Selector(tr.selector))?;
    if let Some(found) = &old {
        let busy = LinearAddress(found.type_address());
        access::check_linear(m, busy, 1, Access::system(true))?;
    }
    Ok(old)
}

/// Steps 6 to 14 of Intel SDM volume 3, 7.3.
fn commit(
    m: &mut Machine,
    new: &Found,
    old: Option<Found>,
    reason: Reason,
    saved: Saved,
    image: &Image,
) -> Result<(), Exception> {
    save_old(m, saved)?;
    if let (Some(old), Reason::Jump | Reason::Return) = (old, reason) {
        old.set_busy(m, false)?;
    }
    if reason != Reason::Return {
        new.set_busy(m, true)?;
    }
    if reason == Reason::Nest {
        access::write_system(m, new.descriptor.base(), m.cpu.tr.selector)?;
    }
    m.cpu.tr = new.to_system_segment();
    m.cpu.tr.set_attributes(m.cpu.tr.attributes() | 2);
    m.cpu.cr0 |= Cr0::TS;
    load_registers(m, image, reason);
    load_cr3(m, image)?;
    load_segments(m, image)?;
    transfer::check_eip(m.cpu.segment(SegmentRegister::Cs), m.cpu.eip)?;
    if image.layout.wide && image.word(TRAP) & 1 != 0 {
        m.cpu.pending_debug |= Dr6::BT;
    }
    Ok(())
}

fn save_old(m: &mut Machine, saved: Saved) -> Result<(), Exception> {
    let layout = Layout::of(m.cpu.tr.kind());
    save(m, layout, layout.eip, saved.eip)?;
    save(m, layout, layout.flags, saved.flags)?;
    for number in 0..8 {
        let value = m.cpu.registers[number];
        save(m, layout, layout.registers + number * layout.slot(), value)?;
    }
    for number in 0..layout.segment_count {
        let at = layout.segments + number * layout.slot();
        let selector = m.cpu.segments[number].selector;
        access::write_system(m, m.cpu.tr.base.wrapping_add(at as u32), selector)?;
    }
    Ok(())
}

fn save(m: &mut Machine, layout: &Layout, at: usize, value: u32) -> Result<(), Exception> {
    let address = m.cpu.tr.base.wrapping_add(at as u32);
    if layout.wide {
        access::write_system(m, address, value)
    } else {
        access::write_system(m, address, value as u16)
    }
}

/// Loads everything that needs no check. Segment registers get their selectors without descriptors,
/// so that an exception from here on shows the new task's.
fn load_registers(m: &mut Machine, image: &Image, reason: Reason) {
    let layout = image.layout;
    m.cpu.eip = image.register(layout.eip);
    for number in 0..8 {
        m.cpu.registers[number] = image.register(layout.registers + number * layout.slot());
    }
    m.cpu.flags.set_bits(image.register(layout.flags));
    if reason == Reason::Nest {
        m.cpu.flags.set(Eflags::NT, true);
    }
    for register in SegmentRegister::ALL {
        *m.cpu.segment_mut(register) = Segment::null(image.selector(register).0);
    }
    m.cpu.ldtr = Segment::null(image.word(layout.ldt));
    m.cpu.interrupt_shadow = InterruptShadow::None;
    m.cpu.debug[7] &= !LOCAL_BREAKPOINTS;
    let virtual_8086 = m.cpu.in_virtual_8086_mode();
    let cpl = if virtual_8086 { 3 } else { image.selector(SegmentRegister::Cs).rpl() };
    mode::set_cpl(m, cpl);
}

fn load_cr3(m: &mut Machine, image: &Image) -> Result<(), Exception> {
    if !image.layout.wide || !m.cpu.paging() {
        return Ok(());
    }
    let cr3 = image.register(CR3);
    if m.cpu.cr4.contains(Cr4::PAE) {
        m.cpu.pdptes = paging::load_pdptes(m, cr3)?;
    }
    m.cpu.cr3 = cr3;
    mode::flush_tlb(m);
    Ok(())
}

/// Loads LDTR and the segment registers (Intel SDM volume 3, table 7-1).
fn load_segments(m: &mut Machine, image: &Image) -> Result<(), Exception> {
    let invalid = Exception::invalid_tss;
    let ldt = Selector(image.word(image.layout.ldt));
    m.cpu.ldtr = descriptor::local_table(m, ldt, invalid, invalid)?;
    if m.cpu.in_virtual_8086_mode() {
        for register in SegmentRegister::ALL {
            let segment = descriptor::unprotected(m, register, image.selector(register));
            *m.cpu.segment_mut(register) = segment;
        }
        return Ok(());
    }
    let code = descriptor::code_at_rpl(m, image.selector(SegmentRegister::Cs), invalid)?;
    *m.cpu.segment_mut(SegmentRegister::Cs) = code;
    let cpl = m.cpu.cpl;
    let stack = descriptor::stack(m, image.selector(SegmentRegister::Ss), cpl, invalid)?;
    *m.cpu.segment_mut(SegmentRegister::Ss) = stack;
    for register in
        [SegmentRegister::Ds, SegmentRegister::Es, SegmentRegister::Fs, SegmentRegister::Gs]
    {
        let data = descriptor::data(m, image.selector(register), invalid)?;
        *m.cpu.segment_mut(register) = data;
    }
    Ok(())
}
