//! SSE and MMX instructions that are not arithmetic: MXCSR, masked stores, fences.

use super::execute::{check_mmx, check_sse};
use super::image::MXCSR_BITS;
use super::unit;
use crate::access;
use crate::exception::Exception;
use crate::handlers::strings;
use crate::op::Op;
use iced_x86::{Instruction, Mnemonic};
use machine::Machine;
use machine::cpu::register::EDI;
use machine::cpu::{Fpu, XMM0};

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
    // First, since with TOP 0 the MMX registers are in order; the CPU does so even if it faults.
    unit::begin_mmx(&mut m.cpu.fpu);
    store_masked(m, op, register(1), register(2), 8)
}

/// MASKMOVDQU: the same for an XMM register.
pub(crate) fn maskmovdqu(m: &mut Machine, op: &Op) -> Done {
    check_sse(m)?;
    let register = |number: u32| XMM0 + 16 * (op.instruction.op_register(number).number() & 7);
    access::check_aligned(m, op.segment, m.cpu.registers[EDI] & strings::address_mask(op), 16)?;
    store_masked(m, op, register(1), register(2), 16)
}

fn store_masked(m: &mut Machine, op: &Op, data: usize, mask: usize, bytes: usize) -> Done {
    let address_mask = strings::address_mask(op);
    let base = m.cpu.registers[EDI];
    let chosen = |m: &Machine, at: usize| m.cpu.fpu.area.0[mask + at] & 0x80 != 0;
    let offset = |at: usize| base.wrapping_add(at as u32) & address_mask;
    // Faults are those of a store of all bytes, whatever the mask says.
    access::check_write(m, op.segment, offset(0), bytes as u32)?;
    for at in 0..bytes {
        if chosen(m, at) {
            let byte = m.cpu.fpu.area.0[data + at];
            access::write::<u8>(m, op.segment, offset(at), byte)?;
        }
    }
    Ok(())
}

/// Whether an instruction that computes floating-point numbers has left a denormal one.
pub(crate) fn result_is_denormal(fpu: &Fpu, instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let at = XMM0 + 16 * (instruction.op0_register().number() & 7);
    let result = &fpu.area.0[at..at + 16];
    let (single, bytes) = match instruction.mnemonic() {
        Addss | Subss | Mulss | Divss | Cvtsd2ss => (true, 4),
        Addps | Subps | Mulps | Divps => (true, 16),
        Cvtpd2ps => (true, 8),
        Addsd | Subsd | Mulsd | Divsd => (false, 8),
        Addpd | Subpd | Mulpd | Divpd => (false, 16),
        _ => return false,
    };
    if single {
        let (numbers, _) = result[..bytes].as_chunks();
        numbers.iter().any(|&number| f32::from_le_bytes(number).is_subnormal())
    } else {
        let (numbers, _) = result[..bytes].as_chunks();
        numbers.iter().any(|&number| f64::from_le_bytes(number).is_subnormal())
    }
}

/// Fences order nothing more than one CPU does by itself.
pub(crate) fn fence(_m: &mut Machine, _op: &Op) -> Done {
    Ok(())
}

/// CLFLUSH: a read as far as faults go.
pub(crate) fn clflush(m: &mut Machine, op: &Op) -> Done {
    access::read::<u8>(m, op.segment, op.offset(m)).map(|_| ())
}
