//! String instructions: the host's own, on host addresses.
//!
//! ES:EDI cannot be overridden, so the window's base is added to the pointers before and taken off
//! after: it is a multiple of 4 GiB, and a 32-bit copy of a register onto itself takes it off. A
//! fault in between leaves pointers and counter as far as the instruction came, which is what the
//! architecture says.

use super::Translator;
use crate::context::at;
use crate::emit::{Address, R8, RDI, RSI, context};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

impl Translator<'_> {
    /// Translates MOVS, STOS, LODS, SCAS and CMPS; false for others, and with other segments than
    /// flat ones or 16-bit pointers.
    pub(super) fn string(&mut self, i: &Instruction) -> bool {
        let Some((opcode, source, destination)) = shape(i.mnemonic()) else { return false };
        let size = i.memory_size().size();
        let short = (0..i.op_count())
            .any(|n| matches!(i.op_kind(n), OpKind::MemorySegSI | OpKind::MemoryESDI));
        let segment = if source { i.memory_segment() } else { Register::DS };
        let flat = matches!(segment, Register::DS | Register::ES | Register::SS);
        if short || !flat || !matches!(size, 1 | 2 | 4) || self.is_soft(i) {
            return false;
        }
        // A 16-bit counter comes with 16-bit pointers.
        self.e.load64(R8, context(at::WINDOW));
        if source {
            self.e.lea64(RSI, Address::indexed(RSI, R8, 1, 0));
        }
        if destination {
            self.e.lea64(RDI, Address::indexed(RDI, R8, 1, 0));
        }
        if i.has_repne_prefix() {
            self.e.raw(&[0xf2]);
        } else if i.has_rep_prefix() {
            self.e.raw(&[0xf3]);
        }
        if size == 2 {
            self.e.raw(&[0x66]);
        }
        self.e.raw(&[opcode | u8::from(size != 1)]);
        if source {
            self.e.copy(RSI, RSI);
        }
        if destination {
            self.e.copy(RDI, RDI);
        }
        true
    }
}

/// Opcode of the byte form, and whether ESI and EDI are used.
fn shape(mnemonic: Mnemonic) -> Option<(u8, bool, bool)> {
    use Mnemonic::*;
    Some(match mnemonic {
        Movsb | Movsw | Movsd => (0xa4, true, true),
        Cmpsb | Cmpsw | Cmpsd => (0xa6, true, true),
        Stosb | Stosw | Stosd => (0xaa, false, true),
        Lodsb | Lodsw | Lodsd => (0xac, true, false),
        Scasb | Scasw | Scasd => (0xae, false, true),
        _ => return None,
    })
}
