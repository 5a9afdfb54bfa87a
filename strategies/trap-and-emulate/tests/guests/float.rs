//! x87 and SSE state across exits, and the exceptions that belong to it.

use crate::guest::{CODE, DATA, Guest};
use machine::cpu::{Cr0, Cr4, register};

guest_code! {
    keeps_registers: ".code32",
        "movups xmm3, [0x18000]", "fld qword ptr [0x18010]", "cli",
        "fadd st(0), st(0)", "addps xmm3, xmm3", "cli",
        "movups [0x18020], xmm3", "fstp qword ptr [0x18030]",
        "mov al, 1", "out 0xf4, al";
    divides_by_zero: ".code32",
        "fldcw [0x18000]", "fld1", "fldz", "fdivp st(1), st(0)", "cli", "nop", "wait";
    restores_pending: ".code32",
        "fxrstor [0x18000]", "cli", "fnop", "mov al, 1", "out 0xf4, al";
    divides_packed: ".code32",
        "ldmxcsr [0x18000]", "divps xmm0, xmm1";
    uses_float: ".code32", "fld1", "mov al, 1", "out 0xf4, al";
    clears_ts: ".code32", "clts", "iretd";
}

/// A guest with SSE switched on.
fn guest(code: &[u8]) -> Guest {
    let mut guest = Guest::with(code);
    guest.cpu.cr4 |= Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    guest
}

#[test]
fn registers_are_kept_across_exits() {
    let mut guest = guest(keeps_registers());
    for lane in 0..4 {
        guest.write(DATA + lane * 4, &(lane as f32 + 0.5).to_le_bytes());
    }
    guest.write(DATA + 0x10, &1.25f64.to_le_bytes());
    assert_eq!(guest.exits(), 1);
    let lanes = [0, 1, 2, 3].map(|lane| f32::from_bits(guest.read_u32(DATA + 0x20 + lane * 4)));
    assert_eq!(lanes, [1.0, 3.0, 5.0, 7.0]);
    assert_eq!(guest.read_u32(DATA + 0x34), (2.5f64.to_bits() >> 32) as u32);
}

#[test]
fn a_pending_x87_exception_waits_for_the_next_waiting_instruction() {
    let mut guest = guest(divides_by_zero());
    guest.write(DATA, &0x0360u16.to_le_bytes());
    guest.raises(16, None, CODE + divides_by_zero().len() as u32 - 1);
}

#[test]
fn state_with_a_pending_exception_can_be_loaded() {
    let mut guest = guest(restores_pending());
    guest.write(DATA, &0x037bu16.to_le_bytes());
    // ES, B and ZE: division by zero, which the control word does not mask.
    guest.write(DATA + 2, &0x8084u16.to_le_bytes());
    guest.write(DATA + 24, &0x1f80u32.to_le_bytes());
    guest.raises(16, None, CODE + 8);
}

#[test]
fn sse_exceptions_are_raised() {
    let mut guest = guest(divides_packed());
    guest.write_u32(DATA, 0x1d80);
    guest.cpu.fpu.area.0[160..164].copy_from_slice(&1f32.to_le_bytes());
    guest.raises(19, None, CODE + 7);
}

#[test]
fn the_unit_can_be_taken_away() {
    for bit in [Cr0::TS, Cr0::EM] {
        let mut guest = Guest::with(uses_float());
        guest.cpu.cr0 |= bit;
        guest.raises(7, None, CODE);
    }
    let mut guest = Guest::with(uses_float());
    guest.cpu.cr0 |= Cr0::TS;
    guest.set_handler(7, clears_ts());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EAX) & 0xff, 1);
}
