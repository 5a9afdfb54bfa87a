//! MOVS, CMPS, SCAS, LODS, STOS with every prefix.
//!
//! A repeated instruction runs a bounded number of iterations at a time and is then executed again,
//! so that interrupts get through. Where it pauses depends on nothing but the iterations that are
//! left, and so not on where it was begun: two CPUs that meet within one pause in the same places.
//! Runs of MOVS and STOS that lie within one page on each side and do not overlap are done at once.

use crate::access;
use crate::alu::Word;
use crate::debug;
use crate::exception::Exception;
use crate::maker;
use crate::op::Op;
use crate::paging;
use iced_x86::{Mnemonic, OpKind};
use machine::Machine;
use machine::cpu::register::{EAX, ECX, EDI, ESI};
use machine::cpu::{Eflags, Flags, Segment, SegmentRegister};
use machine::memory::PageKind;
use machine::{LinearAddress, PhysicalAddress};

type Done = Result<(), Exception>;
const ES: u8 = SegmentRegister::Es as u8;

/// Iterations of a repeated string instruction between two looks at interrupts.
const CHUNK: u32 = 4096;

/// How many of the iterations that are left are executed before a pause: those that are left then are a
/// multiple of `chunk`, or none.
pub(crate) fn until_pause(left: u32, chunk: u32) -> u32 {
    left.wrapping_sub(1) % chunk + 1
}

/// The address size of a string instruction as a mask.
pub(crate) fn address_mask(op: &Op) -> u32 {
    let wide = (0..op.instruction.op_count()).any(|number| {
        matches!(
            op.instruction.op_kind(number),
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI
        )
    });
    if wide { u32::MAX } else { 0xffff }
}

/// Moves an index register on by one element, as DF says.
#[inline(always)]
pub(crate) fn advance(m: &mut Machine, register: usize, size: u32, mask: u32) {
    let step = if m.cpu.flags.direction() { size.wrapping_neg() } else { size };
    let old = m.cpu.registers[register];
    m.cpu.registers[register] = old & !mask | old.wrapping_add(step) & mask;
}

/// One element of a string instruction.
trait Element {
    /// Whether REPE and REPNE look at ZF.
    const COMPARES: bool;
    fn execute<T: Word>(m: &mut Machine, segment: u8, mask: u32) -> Done;
    /// Does up to `count` elements at once; how many it did.
    fn bulk<T: Word>(_m: &mut Machine, _segment: u8, _mask: u32, _count: u32) -> u32 {
        0
    }
}

/// The host address of bytes within one page that the instruction may access, and the physical one
/// if writes to that page have to be noted. The two sides of a copy may have the same place in the
/// TLB, so a page that it does not hold is translated anew and not entered.
fn within_page(
    m: &mut Machine,
    linear: u32,
    bytes: u32,
    write: bool,
) -> Option<(*mut u8, Option<PhysicalAddress>)> {
    let user = m.cpu.cpl == 3;
    let cached = if write {
        m.tlb.write(user, linear, bytes)
    } else {
        m.tlb.read(user, linear, bytes).map(<*const u8>::cast_mut)
    };
    if let Some(host) = cached {
        return Some((host, None));
    }
    if debug::enabled(m) || access::alignment_checked(m) {
        return None;
    }
    let physical = paging::access(m, LinearAddress(linear), write)?.physical;
    let is_ram = matches!(m.memory.page_kind(physical), PageKind::Ram(_));
    let host = m.memory.host_page(physical).filter(|_| is_ram)?;
    if write {
        m.memory.keep_page(physical);
    }
    let host = host.wrapping_add(physical.page_offset() as usize);
    Some((host, write.then_some(physical)))
}

fn note(m: &mut Machine, written: Option<PhysicalAddress>, bytes: u32) {
    if let Some(physical) = written {
        m.memory.note_write(physical, bytes);
    }
}

struct Movs;
struct Cmps;
struct Scas;
struct Lods;
struct Stos;

impl Element for Movs {
    const COMPARES: bool = false;

    #[inline(always)]
    fn execute<T: Word>(m: &mut Machine, segment: u8, mask: u32) -> Done {
        let value = access::read::<T>(m, segment, m.cpu.registers[ESI] & mask)?;
        access::write::<T>(m, ES, m.cpu.registers[EDI] & mask, value)?;
        advance(m, ESI, T::SIZE, mask);
        advance(m, EDI, T::SIZE, mask);
        Ok(())
    }

    fn bulk<T: Word>(m: &mut Machine, segment: u8, mask: u32, count: u32) -> u32 {
        let (from, to) = (m.cpu.registers[ESI] & mask, m.cpu.registers[EDI] & mask);
        let room =
            |offset: u32, s: &Segment| (0x1000 - (s.base.wrapping_add(offset) & 0xfff)) / T::SIZE;
        let (source, target) =
            (m.cpu.segments[usize::from(segment)], m.cpu.segments[usize::from(ES)]);
        let count = count.min(room(from, &source)).min(room(to, &target));
        let bytes = count * T::SIZE;
        if m.cpu.flags.direction() || count < 2 || from > mask - bytes || to > mask - bytes {
            return 0;
        }
        if !source.reads_freely(from, bytes) || !target.writes_freely(to, bytes) {
            return 0;
        }
        let (from, to) = (source.base.wrapping_add(from), target.base.wrapping_add(to));
        let Some((from, _)) = within_page(m, from, bytes, false) else { return 0 };
        let Some((to, written)) = within_page(m, to, bytes, true) else { return 0 };
        let distance = (to as usize).wrapping_sub(from as usize);
        if distance != 0 && distance < bytes as usize {
            // A forward copy onto itself repeats a pattern: element by element.
            return 0;
        }
        // SAFETY: both ranges lie within pages of guest memory.
        unsafe { std::ptr::copy(from, to, bytes as usize) };
        note(m, written, bytes);
        for register in [ESI, EDI] {
            let old = m.cpu.registers[register];
            m.cpu.registers[register] = old & !mask | old.wrapping_add(bytes) & mask;
        }
        count
    }
}

impl Element for Stos {
    const COMPARES: bool = false;

    #[inline(always)]
    fn execute<T: Word>(m: &mut Machine, _segment: u8, mask: u32) -> Done {
        let value = T::register(&m.cpu.registers, EAX as u8);
        access::write(m, ES, m.cpu.registers[EDI] & mask, value)?;
        advance(m, EDI, T::SIZE, mask);
        Ok(())
    }

    fn bulk<T: Word>(m: &mut Machine, _segment: u8, mask: u32, count: u32) -> u32 {
        let offset = m.cpu.registers[EDI] & mask;
        let target = m.cpu.segments[usize::from(ES)];
        let room = (0x1000 - (target.base.wrapping_add(offset) & 0xfff)) / T::SIZE;
        let count = count.min(room);
        let bytes = count * T::SIZE;
        if m.cpu.flags.direction() || count < 2 || offset > mask - bytes {
            return 0;
        }
        if !target.writes_freely(offset, bytes) {
            return 0;
        }
        let address = target.base.wrapping_add(offset);
        let Some((to, written)) = within_page(m, address, bytes, true) else { return 0 };
        let value = T::register(&m.cpu.registers, EAX as u8);
        for number in 0..count as usize {
            // SAFETY: the range lies within a page of guest memory.
            unsafe { to.cast::<T>().add(number).write_unaligned(value) };
        }
        note(m, written, bytes);
        let old = m.cpu.registers[EDI];
        m.cpu.registers[EDI] = old & !mask | old.wrapping_add(bytes) & mask;
        count
    }
}

impl Element for Cmps {
    const COMPARES: bool = true;

    #[inline(always)]
    fn execute<T: Word>(m: &mut Machine, segment: u8, mask: u32) -> Done {
        let a = access::read::<T>(m, segment, m.cpu.registers[ESI] & mask)?;
        let b = access::read::<T>(m, ES, m.cpu.registers[EDI] & mask)?;
        m.cpu.flags.set_host(a.sub(b).1);
        advance(m, ESI, T::SIZE, mask);
        advance(m, EDI, T::SIZE, mask);
        Ok(())
    }
}

impl Element for Scas {
    const COMPARES: bool = true;

    #[inline(always)]
    fn execute<T: Word>(m: &mut Machine, _segment: u8, mask: u32) -> Done {
        let value = access::read::<T>(m, ES, m.cpu.registers[EDI] & mask)?;
        let accumulator = T::register(&m.cpu.registers, EAX as u8);
        m.cpu.flags.set_host(accumulator.sub(value).1);
        advance(m, EDI, T::SIZE, mask);
        Ok(())
    }
}

impl Element for Lods {
    const COMPARES: bool = false;

    #[inline(always)]
    fn execute<T: Word>(m: &mut Machine, segment: u8, mask: u32) -> Done {
        let value = access::read::<T>(m, segment, m.cpu.registers[ESI] & mask)?;
        T::set_register(&mut m.cpu.registers, EAX as u8, value);
        advance(m, ESI, T::SIZE, mask);
        Ok(())
    }
}

fn restore_flags(m: &mut Machine, before: Option<Flags>) {
    if let Some(flags) = before {
        m.cpu.flags = flags;
    }
}

/// Runs the instruction once, or as often as its prefix says. It ends its block and sets EIP: to
/// itself when iterations are left.
fn run<E: Element, T: Word>(m: &mut Machine, op: &Op) -> Done {
    let mask = address_mask(op);
    let (repe, repne) = (op.instruction.has_repe_prefix(), op.instruction.has_repne_prefix());
    // It ends its block, which it may therefore write over.
    m.memory.set_executing(0..0);
    if !repe && !repne {
        E::execute::<T>(m, op.segment, mask)?;
        m.cpu.eip = op.next_eip(m);
        return Ok(());
    }
    // A repetition traps after each iteration, for single-stepping and for data breakpoints
    // (Intel SDM volume 3, 17.3.1.4 and 17.3.1.2).
    // CMPS and SCAS that are interrupted, by a fault or by a trap, leave the flags as they were: so the
    // manual and Intel's CPUs (Intel SDM volume 2, REP); AMD's show those of the last iteration.
    let before = (E::COMPARES && maker::is_intel()).then_some(m.cpu.flags);
    let stepped = m.cpu.flags.contains(Eflags::TF) || debug::enabled(m);
    let count = m.cpu.registers[ECX] & mask;
    let mut left = if stepped { 1 } else { until_pause(count, CHUNK) };
    loop {
        let count = m.cpu.registers[ECX] & mask;
        if count == 0 {
            m.cpu.eip = op.next_eip(m);
            return Ok(());
        }
        if left == 0 {
            restore_flags(m, before);
            // Its own breakpoint has been seen to (Intel SDM volume 3, 17.3.1.1).
            m.cpu.flags.set(Eflags::RF, debug::enabled(m));
            m.cpu.eip = op.eip(m);
            return Ok(());
        }
        let mut done = E::bulk::<T>(m, op.segment, mask, count.min(left));
        if done == 0 {
            E::execute::<T>(m, op.segment, mask).inspect_err(|_| restore_flags(m, before))?;
            done = 1;
        }
        left = left.saturating_sub(done);
        let ecx = m.cpu.registers[ECX];
        m.cpu.registers[ECX] = ecx & !mask | ecx.wrapping_sub(done) & mask;
        if E::COMPARES && m.cpu.flags.zero() != repe {
            m.cpu.eip = op.next_eip(m);
            return Ok(());
        }
    }
}

/// The handler for a string instruction with elements of `size` bytes.
pub(crate) fn handler(mnemonic: Mnemonic) -> Option<crate::op::Handler> {
    use Mnemonic::*;
    Some(match mnemonic {
        Movsb => run::<Movs, u8>,
        Movsw => run::<Movs, u16>,
        Movsd => run::<Movs, u32>,
        Cmpsb => run::<Cmps, u8>,
        Cmpsw => run::<Cmps, u16>,
        Cmpsd => run::<Cmps, u32>,
        Scasb => run::<Scas, u8>,
        Scasw => run::<Scas, u16>,
        Scasd => run::<Scas, u32>,
        Lodsb => run::<Lods, u8>,
        Lodsw => run::<Lods, u16>,
        Lodsd => run::<Lods, u32>,
        Stosb => run::<Stos, u8>,
        Stosw => run::<Stos, u16>,
        Stosd => run::<Stos, u32>,
        _ => return None,
    })
}
