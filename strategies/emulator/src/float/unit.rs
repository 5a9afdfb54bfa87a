//! The host's floating-point unit with the guest's state in it.
//!
//! The x87 registers stay in the host's unit from the first x87 or MMX instruction until [`leave`]:
//! nothing else on x86-64 uses them. That is done only while all x87 exceptions are masked, so that
//! no host instruction can raise one; otherwise each instruction is followed by [`leave`], whose
//! FXSAVE and FNINIT do not look at pending exceptions. XMM registers stay in the guest's FXSAVE
//! area; a stub loads and stores those that it names.

use super::arena::{Stub, address};
use machine::Machine;
use machine::cpu::{Fpu, FxArea};
use std::arch::asm;

/// The part of the FXSAVE area that is the x87 unit's: registers from here …
const REGISTERS: usize = 32;
/// … to here.
const REGISTERS_END: usize = 160;
/// MXCSR with all exceptions masked, as the monitor itself runs.
const HOST_MXCSR: u32 = 0x1f80;

/// Whether all x87 exceptions are masked.
#[inline]
pub(crate) fn all_masked(m: &Machine) -> bool {
    m.cpu.fpu.area.0[0] & 0x3f == 0x3f
}

/// Whether an unmasked x87 exception is pending (the ES bit). It is not while the state is in the
/// host's unit.
#[inline]
pub(crate) fn exception_pending(m: &Machine) -> bool {
    m.cpu.fpu.area.0[2] & 0x80 != 0
}

/// Puts the x87 state into the host's unit, if it is not there.
#[inline]
pub(crate) fn enter(m: &mut Machine) {
    if !m.cpu.fpu.resident {
        load(m);
    }
}

#[cold]
fn load(m: &mut Machine) {
    let mut area = FxArea([0; 512]);
    area.0[..REGISTERS_END].copy_from_slice(&m.cpu.fpu.area.0[..REGISTERS_END]);
    area.0[24..28].copy_from_slice(&HOST_MXCSR.to_le_bytes());
    // SAFETY: the area has the size and alignment that FXRSTOR asks for, and a valid MXCSR. The x87
    // registers that it leaves full are used by nothing but this module until `leave`.
    unsafe {
        asm!("fxrstor [{area}]", area = in(reg) &raw const area,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
            out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _, options(nostack, preserves_flags));
    }
    m.cpu.fpu.resident = true;
}

/// Takes the x87 state back from the host's unit, if it is there.
#[inline]
pub(crate) fn leave(m: &mut Machine) {
    if m.cpu.fpu.resident {
        store(m);
    }
}

#[cold]
fn store(m: &mut Machine) {
    let mut area = FxArea([0; 512]);
    // SAFETY: the area has the size and alignment that FXSAVE asks for.
    unsafe {
        asm!("fxsave [{area}]", "fninit", area = in(reg) &raw mut area,
            options(nostack, preserves_flags));
    }
    let guest = &mut m.cpu.fpu.area.0;
    // Control, status and tag words; the pointers behind them are kept by the handlers.
    guest[..5].copy_from_slice(&area.0[..5]);
    guest[REGISTERS..REGISTERS_END].copy_from_slice(&area.0[REGISTERS..REGISTERS_END]);
    m.cpu.fpu.resident = false;
}

/// Moves TOP. The FXSAVE area has the registers in stack order, so they move with it.
pub(crate) fn set_top(fpu: &mut Fpu, top: u8) {
    let area = &mut fpu.area.0;
    let distance = top.wrapping_sub(area[3] >> 3) & 7;
    area[REGISTERS..REGISTERS_END].rotate_left(16 * usize::from(distance));
    area[3] = area[3] & !0x38 | (top & 7) << 3;
}

/// What every MMX instruction does to the x87 unit: TOP 0, no register empty.
pub(crate) fn begin_mmx(fpu: &mut Fpu) {
    set_top(fpu, 0);
    fpu.area.0[4] = 0xff;
}

/// Calls a stub with RDI at `memory`, RSI at the guest's FXSAVE area, ECX holding `general`, and the
/// guest's arithmetic flags in the host's; returns ECX. The stub may change XMM registers, RDX and
/// the x87 unit, nothing else.
#[inline]
pub(crate) fn call(m: &mut Machine, stub: Stub, memory: *mut u8, general: u32) -> u32 {
    let result: u32;
    let flags = m.cpu.flags.host();
    let after: u16;
    // SAFETY: the stub is complete code made by `stub::assemble` for exactly this convention;
    // `memory` has as many bytes as its instruction touches (the caller's duty), and the area is the
    // guest's own.
    unsafe {
        asm!("add al, 0x7f", "sahf", "call {stub}", "lahf", "seto al",
            stub = in(reg) address(stub), in("rdi") memory, in("rsi") &raw mut m.cpu.fpu.area,
            inout("ecx") general => result, inout("ax") flags => after, out("rdx") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _);
    }
    m.cpu.flags.set_host(after);
    result
}
