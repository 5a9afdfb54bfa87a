//! SSE and MMX instructions that are not arithmetic: MXCSR, masked stores, fences.

use super::execute::{check_mmx, check_sse};
use super::image::MXCSR_BITS;
use super::unit;
use crate::access;
use crate::exception::Exception;
use crate::handlers::strings;
use crate::op::Op;
use machine::Machine;
use machine::cpu::XMM0;
use machine::cpu::register::EDI;

type Done = Result<(), Exception>;

/// LDMXCSR.
pub(crate) fn ldmxcsr(m: &mut Machine, op: &Op) -> Done {
    check_sse(m)?;
    let value = access::read::<u32>(m, op.segment, op.offset(m))?;
    if value & !MXCSR_BITS != 0 {
        return Err(Exception::PROTECTION);
    }
    m.cpu.fpu.set_mxcsr(value);
    Ok(())
}

/// STMXCSR.
pub(crate) fn stmxcsr(m: &mut Machine, op: &Op) -> Done {
    check_sse(m)?;
    let value = m.cpu.fpu.mxcsr();
    access::write(m, op.segment, op.offset(m), value)
}

/// MASKMOVQ: bytes of an MMX register whose mask byte has its top bit set go to DS:EDI.
pub(crate) fn maskmovq(m: &mut Machine, op: &Op) -> Done {
    check_mmx(m)?;
    unit::leave(m);
    let register = |number: u32| 32 + 16 * (op.instruction.op_register(number).number() & 7);
    store_masked(m, op, register(1), register(2), 8)?;
    // As every MMX instruction: all tags valid, TOP 0.
    let area = &mut m.cpu.fpu.area.0;
    let top = usize::from(area[3] >> 3 & 7);
    area[32..160].rotate_right(16 * top);
    area[3] &= !0x38;
    area[4] = 0xff;
    Ok(())
}

/// MASKMOVDQU: the same for an XMM register.
pub(crate) fn maskmovdqu(m: &mut Machine, op: &Op) -> Done {
    check_sse(m)?;
    let register = |number: u32| XMM0 + 16 * (op.instruction.op_register(number).number() & 7);
    store_masked(m, op, register(1), register(2), 16)
}

fn store_masked(m: &mut Machine, op: &Op, data: usize, mask: usize, bytes: usize) -> Done {
    let address_mask = strings::address_mask(op);
    let base = m.cpu.registers[EDI];
    let chosen = |m: &Machine, at: usize| m.cpu.fpu.area.0[mask + at] & 0x80 != 0;
    let offset = |at: usize| base.wrapping_add(at as u32) & address_mask;
    for at in 0..bytes {
        if chosen(m, at) {
            access::check_write(m, op.segment, offset(at), 1)?;
        }
    }
    for at in 0..bytes {
        if chosen(m, at) {
            let byte = m.cpu.fpu.area.0[data + at];
            access::write::<u8>(m, op.segment, offset(at), byte)?;
        }
    }
    Ok(())
}

/// Fences order nothing more than one CPU does by itself.
pub(crate) fn fence(_m: &mut Machine, _op: &Op) -> Done {
    Ok(())
}

/// CLFLUSH: a read as far as faults go.
pub(crate) fn clflush(m: &mut Machine, op: &Op) -> Done {
    access::read::<u8>(m, op.segment, op.offset(m)).map(|_| ())
}
