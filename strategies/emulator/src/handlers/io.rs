//! IN, OUT, INS, OUTS and the right to use them (Intel SDM volume 1, 16.5).

use crate::access;
use crate::alu::Word;
use crate::debug;
use crate::exception::Exception;
use crate::handlers::strings::until_pause;
use crate::op::Op;
use iced_x86::OpKind;
use machine::Machine;
use machine::cpu::{Cr0, Eflags, SegmentRegister, register};

/// Iterations of a repeated INS or OUTS before it is interruptible again.
const CHUNK: u32 = 256;
/// Where a 32-bit TSS has the offset of its I/O permission bitmap.
const BITMAP_BASE: u32 = 0x66;

/// Raises #GP unless `size` bytes at `port` may be used: by IOPL, or by the TSS's bitmap, which
/// alone counts in virtual-8086 mode.
fn permit(m: &mut Machine, port: u16, size: u32) -> Result<(), Exception> {
    let by_privilege = !m.cpu.in_virtual_8086_mode() && m.cpu.cpl <= m.cpu.flags.iopl();
    if !m.cpu.cr0.contains(Cr0::PE) || by_privilege {
        return Ok(());
    }
    let tss = m.cpu.tr;
    if tss.kind() & 8 == 0 || tss.limit < BITMAP_BASE + 1 {
        return Err(Exception::PROTECTION);
    }
    let base: u16 = access::read_system(m, tss.base.wrapping_add(BITMAP_BASE))?;
    // The CPU always reads two bytes, which is why the bitmap ends in a byte of ones.
    let at = u32::from(base) + u32::from(port / 8);
    if at + 1 > tss.limit {
        return Err(Exception::PROTECTION);
    }
    let bits: u16 = access::read_system(m, tss.base.wrapping_add(at))?;
    let mask = (1 << size) - 1;
    if bits >> (port % 8) & mask != 0 { Err(Exception::PROTECTION) } else { Ok(()) }
}

fn input<T: Word>(m: &mut Machine, port: u16) -> T {
    m.counters.port_io += 1;
    debug::port_access(m, port, T::SIZE);
    T::truncate(m.bus.port_read(port, T::SIZE as usize))
}

fn output<T: Word>(m: &mut Machine, port: u16, value: T) {
    m.counters.port_io += 1;
    debug::port_access(m, port, T::SIZE);
    m.bus.port_write(port, T::SIZE as usize, value.zero_extend());
}

/// The port that operand `number` names: an immediate byte or DX.
fn port(m: &Machine, op: &Op, number: u32) -> u16 {
    if op.instruction.op_kind(number) == OpKind::Immediate8 {
        u16::from(op.instruction.immediate8())
    } else {
        m.cpu.registers[register::EDX] as u16
    }
}

/// IN.
pub(crate) fn read<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let port = port(m, op, 1);
    permit(m, port, T::SIZE)?;
    let value: T = input(m, port);
    T::set_register(&mut m.cpu.registers, register::EAX as u8, value);
    Ok(())
}

/// OUT.
pub(crate) fn write<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let port = port(m, op, 0);
    permit(m, port, T::SIZE)?;
    output(m, port, T::register(&m.cpu.registers, register::EAX as u8));
    Ok(())
}

/// INS, repeated or not.
pub(crate) fn read_string<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    // It ends its block, so its data may lie over the block; and once the port was read there is no
    // going back.
    m.memory.set_executing(0..0);
    let narrow = op.instruction.op0_kind() == OpKind::MemoryESDI;
    let port = m.cpu.registers[register::EDX] as u16;
    // Checked even when nothing is to be repeated.
    permit(m, port, T::SIZE)?;
    repeat(m, op, narrow, |m, mask| {
        let offset = m.cpu.registers[register::EDI] & mask;
        access::check_write(m, SegmentRegister::Es as u8, offset, T::SIZE)?;
        let value: T = input(m, port);
        access::write(m, SegmentRegister::Es as u8, offset, value)?;
        advance::<T>(m, register::EDI, mask);
        Ok(())
    })
}

/// OUTS, repeated or not.
pub(crate) fn write_string<T: Word>(m: &mut Machine, op: &Op) -> Result<(), Exception> {
    let segment = op.instruction.memory_segment().number() as u8;
    let narrow = op.instruction.op1_kind() == OpKind::MemorySegSI;
    let port = m.cpu.registers[register::EDX] as u16;
    // Checked even when nothing is to be repeated.
    permit(m, port, T::SIZE)?;
    repeat(m, op, narrow, |m, mask| {
        let value: T = access::read(m, segment, m.cpu.registers[register::ESI] & mask)?;
        output(m, port, value);
        advance::<T>(m, register::ESI, mask);
        Ok(())
    })
}

/// Moves an index register by one element in the direction of DF.
fn advance<T: Word>(m: &mut Machine, index: usize, mask: u32) {
    let step = if m.cpu.flags.direction() { T::SIZE.wrapping_neg() } else { T::SIZE };
    step_register(m, index, mask, step);
}

fn step_register(m: &mut Machine, index: usize, mask: u32, step: u32) {
    let value = &mut m.cpu.registers[index];
    *value = *value & !mask | value.wrapping_add(step) & mask;
}

/// Executes once, or as often as the repeat count says. A long repetition stops in between, with EIP
/// on the instruction itself, so that interrupts get in; each iteration is complete in itself.
fn repeat(
    m: &mut Machine,
    op: &Op,
    narrow: bool,
    once: impl Fn(&mut Machine, u32) -> Result<(), Exception>,
) -> Result<(), Exception> {
    let mask = if narrow { 0xffff } else { u32::MAX };
    if !op.instruction.has_rep_prefix() && !op.instruction.has_repne_prefix() {
        once(m, mask)?;
        m.cpu.eip = op.next_eip(m);
        return Ok(());
    }
    let stepped = m.cpu.flags.contains(Eflags::TF) || debug::enabled(m);
    let count = m.cpu.registers[register::ECX] & mask;
    let most = if stepped { 1 } else { until_pause(count, CHUNK) };
    for _ in 0..most {
        if m.cpu.registers[register::ECX] & mask == 0 {
            break;
        }
        once(m, mask)?;
        step_register(m, register::ECX, mask, u32::MAX);
        // How far a recorded repetition comes must not depend on what the host does meanwhile.
        if m.bus.tap.is_off() && m.signals().attention() {
            break;
        }
    }
    let done = m.cpu.registers[register::ECX] & mask == 0;
    if !done && debug::enabled(m) {
        // Its own breakpoint has been seen to (Intel SDM volume 3, 17.3.1.1).
        m.cpu.flags.set(Eflags::RF, true);
    }
    m.cpu.eip = if done { op.next_eip(m) } else { op.eip(m) };
    Ok(())
}
