//! The x87 state in the memory formats of FNSTENV, FNSAVE, FXSAVE and back
//! (Intel SDM volume 1, 8.1.10 and 10.5).

use super::execute::{check_pending, check_x87};
use super::unit;
use crate::access;
use crate::exception::Exception;
use crate::op::Op;
use machine::Machine;
use machine::cpu::{Cr0, Fpu, MXCSR};

type Done = Result<(), Exception>;

/// What FXSAVE writes in 32-bit mode: up to XMM7.
const FXSAVE_BYTES: usize = 288;
/// What has to be accessible for that.
const FXSAVE_AREA: usize = 512;
/// The bits that MXCSR has (SSE2 with denormals-are-zero).
pub(crate) const MXCSR_BITS: u32 = 0xffff;

fn word(area: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([area[at], area[at + 1]])
}

fn set_word(area: &mut [u8], at: usize, value: u16) {
    area[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn dword(area: &[u8], at: usize) -> u32 {
    u32::from(word(area, at)) | u32::from(word(area, at + 2)) << 16
}

/// The two-bit tags, physical register by physical register, from the one-bit tags of FXSAVE and the
/// register contents.
fn full_tags(area: &[u8]) -> u16 {
    let top = u32::from(area[3] >> 3 & 7);
    let mut tags = 0;
    for physical in 0..8u32 {
        let at = 32 + 16 * ((physical + 8 - top) % 8) as usize;
        let tag = if area[4] & 1 << physical == 0 { 3 } else { tag_of(&area[at..at + 10]) };
        tags |= tag << (2 * physical);
    }
    tags
}

/// Valid, zero or special, from an 80-bit register.
fn tag_of(register: &[u8]) -> u16 {
    let exponent = word(register, 8) & 0x7fff;
    let empty_mantissa = register[..8].iter().all(|&byte| byte == 0);
    match exponent {
        0 if empty_mantissa => 1,
        0 | 0x7fff => 2,
        _ if register[7] & 0x80 == 0 => 2,
        _ => 0,
    }
}

fn one_bit_tags(tags: u16) -> u8 {
    (0..8).filter(|number| tags >> (2 * number) & 3 != 3).fold(0, |bits, number| bits | 1 << number)
}

/// The layout of the environment: operand size and mode decide.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
    protected: bool,
}

impl Layout {
    fn of(m: &Machine, op: &Op) -> Layout {
        let size = op.instruction.memory_size().size();
        Layout { wide: matches!(size, 28 | 108), protected: m.cpu.in_protected_mode() }
    }

    fn bytes(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
}

/// The environment as FNSTENV stores it (Intel SDM volume 1, figures 8-9 to 8-12).
fn environment(fpu: &Fpu, layout: Layout) -> Vec<u8> {
    let area = &fpu.area.0;
    let (ip, cs) = (dword(area, 8), u32::from(word(area, 12)));
    let (dp, ds) = (dword(area, 16), u32::from(word(area, 20)));
    let opcode = u32::from(word(area, 6) & 0x7ff);
    let control = [word(area, 0), word(area, 2), full_tags(area)].map(u32::from);
    let linear = |segment: u32, offset: u32| (segment << 4).wrapping_add(offset);
    let (fip, fdp) = (linear(cs, ip), linear(ds, dp));
    let pointers = match (layout.wide, layout.protected) {
        (_, true) => [ip, cs | if layout.wide { opcode << 16 } else { 0 }, dp, ds],
        (true, false) => [fip & 0xffff, fip >> 16 << 12 | opcode, fdp & 0xffff, fdp >> 16 << 12],
        (false, false) => [fip, (fip >> 16 & 0xf) << 12 | opcode, fdp, (fdp >> 16 & 0xf) << 12],
    };
    let mut bytes = Vec::with_capacity(28);
    for (number, value) in control.into_iter().chain(pointers).enumerate() {
        if layout.wide {
            // The unused upper halves read as ones.
            let upper =
                if number < 3 || (number == 6 && layout.protected) { 0xffff_0000 } else { 0 };
            bytes.extend((value | upper).to_le_bytes());
        } else {
            bytes.extend((value as u16).to_le_bytes());
        }
    }
    bytes
}

fn load_environment(fpu: &mut Fpu, bytes: &[u8], layout: Layout) {
    let field = |number: usize| {
        if layout.wide { dword(bytes, 4 * number) } else { u32::from(word(bytes, 2 * number)) }
    };
    let (ip, cs, dp, ds) = if layout.protected {
        (field(3), field(4) as u16, field(5), field(6) as u16)
    } else {
        let high = |value: u32| value >> 12 << 16;
        (field(3) & 0xffff | high(field(4)), 0, field(5) & 0xffff | high(field(6)), 0)
    };
    let area = &mut fpu.area.0;
    let (control, status) = (field(0) as u16 & 0x1f7f | 0x40, field(1) as u16);
    set_word(area, 0, control);
    area[4] = one_bit_tags(field(2) as u16);
    area[8..12].copy_from_slice(&ip.to_le_bytes());
    set_word(area, 12, cs);
    area[16..20].copy_from_slice(&dp.to_le_bytes());
    set_word(area, 20, ds);
    unit::set_top(fpu, (status >> 11 & 7) as u8);
    set_word(&mut fpu.area.0, 2, status);
    update_summary(fpu);
}

/// ES and B follow from flags and masks when a control or status word is loaded.
pub(crate) fn update_summary(fpu: &mut Fpu) {
    let area = &mut fpu.area.0;
    let pending = area[2] & !area[0] & 0x3f != 0;
    let status = word(area, 2) & !0x8080 | if pending { 0x8080 } else { 0 };
    set_word(area, 2, status);
}

/// FNSTENV: stores the environment, then masks all exceptions.
pub(crate) fn fnstenv(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, false)?;
    unit::leave(m);
    let bytes = environment(&m.cpu.fpu, Layout::of(m, op));
    access::write_bytes(m, op.segment, op.offset(m), &bytes)?;
    m.cpu.fpu.area.0[0] |= 0x3f;
    update_summary(&mut m.cpu.fpu);
    Ok(())
}

/// FLDENV.
pub(crate) fn fldenv(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, true)?;
    unit::leave(m);
    let layout = Layout::of(m, op);
    let mut bytes = [0; 28];
    let bytes = &mut bytes[..layout.bytes()];
    access::read_bytes(m, op.segment, op.offset(m), bytes)?;
    load_environment(&mut m.cpu.fpu, bytes, layout);
    Ok(())
}

/// FNSAVE: stores environment and registers, then initializes the unit.
pub(crate) fn fnsave(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, false)?;
    unit::leave(m);
    let mut bytes = environment(&m.cpu.fpu, Layout::of(m, op));
    for number in 0..8 {
        let at = 32 + 16 * number;
        bytes.extend(&m.cpu.fpu.area.0[at..at + 10]);
    }
    access::write_bytes(m, op.segment, op.offset(m), &bytes)?;
    initialize(&mut m.cpu.fpu);
    Ok(())
}

/// FRSTOR.
pub(crate) fn frstor(m: &mut Machine, op: &Op) -> Done {
    check_x87(m, true)?;
    unit::leave(m);
    let layout = Layout::of(m, op);
    let mut bytes = [0; 108];
    let bytes = &mut bytes[..layout.bytes() + 80];
    access::read_bytes(m, op.segment, op.offset(m), bytes)?;
    let (environment, registers) = bytes.split_at(layout.bytes());
    load_environment(&mut m.cpu.fpu, environment, layout);
    for (number, register) in registers.chunks_exact(10).enumerate() {
        let at = 32 + 16 * number;
        m.cpu.fpu.area.0[at..at + 10].copy_from_slice(register);
    }
    Ok(())
}

/// FNINIT.
pub(crate) fn fninit(m: &mut Machine, _op: &Op) -> Done {
    check_x87(m, false)?;
    unit::leave(m);
    initialize(&mut m.cpu.fpu);
    Ok(())
}

fn initialize(fpu: &mut Fpu) {
    unit::set_top(fpu, 0);
    fpu.area.0[..24].fill(0);
    set_word(&mut fpu.area.0, 0, 0x37f);
}

/// FNSTSW AX.
pub(crate) fn fnstsw_ax(m: &mut Machine, _op: &Op) -> Done {
    use crate::alu::Word;
    check_x87(m, false)?;
    unit::leave(m);
    let status = word(&m.cpu.fpu.area.0, 2);
    u16::set_register(&mut m.cpu.registers, 0, status);
    Ok(())
}

/// FWAIT: #NM only when both MP and TS are set.
pub(crate) fn fwait(m: &mut Machine, _op: &Op) -> Done {
    if m.cpu.cr0.contains(Cr0::MP | Cr0::TS) {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    check_pending(m)
}

fn check_fxsave(m: &Machine, op: &Op) -> Result<u32, Exception> {
    if m.cpu.cr0.intersects(Cr0::EM | Cr0::TS) {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    let offset = op.offset(m);
    let linear = m.cpu.segments[usize::from(op.segment)].base.wrapping_add(offset);
    if linear & 15 == 0 { Ok(offset) } else { Err(Exception::PROTECTION) }
}

/// FXSAVE.
pub(crate) fn fxsave(m: &mut Machine, op: &Op) -> Done {
    let offset = check_fxsave(m, op)?;
    access::check_write(m, op.segment, offset, FXSAVE_AREA as u32)?;
    unit::leave(m);
    let mut bytes = [0; FXSAVE_BYTES];
    bytes.copy_from_slice(&m.cpu.fpu.area.0[..FXSAVE_BYTES]);
    bytes[MXCSR + 4..MXCSR + 8].copy_from_slice(&MXCSR_BITS.to_le_bytes());
    access::write_bytes(m, op.segment, offset, &bytes)
}

/// FXRSTOR.
pub(crate) fn fxrstor(m: &mut Machine, op: &Op) -> Done {
    let offset = check_fxsave(m, op)?;
    let mut bytes = [0; FXSAVE_AREA];
    access::read_bytes(m, op.segment, offset, &mut bytes)?;
    if dword(&bytes, MXCSR) & !MXCSR_BITS != 0 {
        return Err(Exception::PROTECTION);
    }
    unit::leave(m);
    m.cpu.fpu.area.0[..FXSAVE_BYTES].copy_from_slice(&bytes[..FXSAVE_BYTES]);
    set_word(&mut m.cpu.fpu.area.0, 0, word(&bytes, 0) & 0x1f7f | 0x40);
    update_summary(&mut m.cpu.fpu);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_the_registers() {
        let mut fpu = Fpu::default();
        assert_eq!(full_tags(&fpu.area.0), 0xffff);
        // TOP = 6: ST(0) is physical register 6, ST(1) is 7.
        fpu.area.0[3] = 6 << 3;
        fpu.area.0[4] = 0b1100_0000;
        set_word(&mut fpu.area.0, 32 + 8, 0x3fff);
        fpu.area.0[32 + 7] = 0x80;
        assert_eq!(full_tags(&fpu.area.0), 0b01_00_11_11_11_11_11_11);
        assert_eq!(one_bit_tags(0b01_00_11_11_11_11_11_11), 0b1100_0000);
    }

    #[test]
    fn an_environment_survives_storing_and_loading() {
        let mut fpu = Fpu::default();
        fpu.area.0[8..12].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        set_word(&mut fpu.area.0, 12, 0x1b);
        let layout = Layout { wide: true, protected: true };
        let bytes = environment(&fpu, layout);
        assert_eq!(bytes.len(), 28);
        let mut loaded = Fpu::default();
        load_environment(&mut loaded, &bytes, layout);
        assert_eq!(loaded.area.0[..24], fpu.area.0[..24]);
    }
}
