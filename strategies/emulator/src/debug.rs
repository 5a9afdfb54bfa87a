//! Debug registers: breakpoints on execution, data and ports (Intel SDM volume 3, 17.2).

use iced_x86::{Code, Instruction};
use machine::cpu::{Cr4, Dr7, Eflags};
use machine::{LinearAddress, Machine};

/// The condition in DR7's R/W fields.
const EXECUTE: u32 = 0;
const WRITE: u32 = 1;
const PORT: u32 = 2;
const READ_WRITE: u32 = 3;

/// Whether any breakpoint is enabled: instructions are then executed one by one.
#[inline]
pub(crate) fn enabled(m: &Machine) -> bool {
    m.cpu.debug[7] & Dr7::ENABLED != 0
}

/// The DR6 bits of breakpoints whose range meets `size` bytes at `address` and whose condition
/// passes `wanted`, enabled or not; and whether an enabled one is among them.
fn matching(m: &Machine, address: u32, size: u32, wanted: impl Fn(u32) -> bool) -> (u32, bool) {
    let dr7 = m.cpu.debug[7];
    let mut bits = 0;
    let mut any_enabled = false;
    for number in 0..4 {
        let control = dr7 >> (16 + 4 * number);
        if !wanted(control & 3) {
            continue;
        }
        let length = [1, 2, 8, 4][(control >> 2 & 3) as usize];
        let start = m.cpu.debug[number as usize] & !(length - 1);
        let meets = start.wrapping_sub(address) < size || address.wrapping_sub(start) < length;
        if meets {
            bits |= 1 << number;
            any_enabled |= dr7 >> (2 * number) & 3 != 0;
        }
    }
    (bits, any_enabled)
}

/// Whether an instruction breakpoint is at `address`: DR6's bits, or 0.
pub(crate) fn instruction_breakpoint(m: &Machine, address: LinearAddress) -> u32 {
    let (bits, enabled) = matching(m, address.0, 1, |kind| kind == EXECUTE);
    if enabled { bits } else { 0 }
}

/// Notes a data access; a breakpoint on it becomes a trap after the instruction.
#[inline]
pub(crate) fn data_access(m: &mut Machine, address: LinearAddress, size: u32, write: bool) {
    if enabled(m) {
        let wanted = |kind| kind == READ_WRITE || (write && kind == WRITE);
        note(m, address.0, size, wanted);
    }
}

/// Notes a port access; breakpoints on ports need CR4.DE.
#[inline]
pub(crate) fn port_access(m: &mut Machine, port: u16, size: u32) {
    if enabled(m) && m.cpu.cr4.contains(Cr4::DE) {
        note(m, u32::from(port), size, |kind| kind == PORT);
    }
}

fn note(m: &mut Machine, address: u32, size: u32, wanted: impl Fn(u32) -> bool) {
    let (bits, enabled) = matching(m, address, size, wanted);
    if enabled {
        m.cpu.pending_debug |= bits;
    }
}

/// Whether a single-step trap that was due after an instruction is lost: a software interrupt that
/// was taken has cleared TF first (Intel SDM volume 3, 17.3.1.4).
pub(crate) fn swallows_single_step(m: &Machine, instruction: &Instruction) -> bool {
    let software = [Code::Int_imm8, Code::Int3, Code::Int1, Code::Into];
    software.contains(&instruction.code()) && !m.cpu.flags.contains(Eflags::TF)
}
