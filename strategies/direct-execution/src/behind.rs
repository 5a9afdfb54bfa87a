//! Where an instruction begins that the host reports the end of.
//!
//! INT1, INT3, INTO and INT 0x80 trap: EIP is behind them. The emulator executes them once more, and needs
//! their beginning, for that is what a fault pushes if the guest's gate is not for it. What stands
//! before them may be their prefixes, or the end of another instruction:
//!
//! ```text
//! 67 cc        addr16 int3
//! b0 67 cc     mov al, 67h; int3
//! ```
//!
//! Where the guest has come straight from the place at which it was entered, decoding from there
//! tells. Else all that can be prefixes is taken for prefixes. The CPU keeps no more than the end, so that a
//! guest is misled which came by a branch to the one form where the bytes look like the other, and has no
//! gate for INT3 from its ring: the EIP that this fault pushes is off by the prefixes. `ringside check`
//! takes that for stated.

use crate::exit::Trap;
use crate::peek;
use host::int1;
use iced_x86::{Decoder, DecoderOptions};
use machine::Machine;
use machine::cpu::SegmentRegister;

/// The longest instruction.
const LONGEST: u32 = 15;
/// How far behind the place of entry it is decoded from there.
const FARTHEST: u32 = 512;

/// The EIP at which the instruction begins that has trapped, with the guest entered at `entered`;
/// nothing if none such ends at EIP.
pub(crate) fn start(m: &mut Machine, trap: Trap, entered: u32) -> Option<u32> {
    if trap == Trap::Debug && int1::is_named_itself() {
        return Some(m.cpu.eip);
    }
    let length = trap.length(peek::code_before(m))?;
    let bare = m.cpu.eip.wrapping_sub(length);
    let mut prefixes = 0;
    while prefixes < LONGEST - length
        && peek::code(m, bare.wrapping_sub(prefixes + 1)).is_some_and(is_prefix)
    {
        prefixes += 1;
    }
    if prefixes == 0 {
        return Some(bare);
    }
    let first = bare.wrapping_sub(prefixes);
    Some(boundary(m, entered, first).filter(|&start| start <= bare).unwrap_or(first))
}

/// The first instruction from `eip` on that does not begin before `until`.
fn boundary(m: &mut Machine, mut eip: u32, until: u32) -> Option<u32> {
    let code = *m.cpu.segment(SegmentRegister::Cs);
    let bits = if code.is_32bit() { 32 } else { 16 };
    if until.wrapping_sub(eip) > FARTHEST {
        return (eip.wrapping_sub(until) < LONGEST).then_some(eip);
    }
    while eip < until {
        let bytes: Vec<u8> =
            (0..LONGEST).map_while(|at| peek::code(m, eip.wrapping_add(at))).collect();
        let instruction = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            return None;
        }
        eip += instruction.len() as u32;
    }
    Some(eip)
}

/// Whether a byte is a prefix that these instructions can have: a segment, a size, a repetition.
fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3)
}
