//! A unit laid open: for each guest instruction the host code made from it, and why it is more than
//! one instruction.
//!
//! Nothing runs and nothing is cached: the translator is asked as for kernel code about which nothing
//! is known yet.

use crate::context::at;
use crate::mode::Mode;
use crate::sites::Sites;
use crate::stubs::Stubs;
use crate::translate::{self, OPTIONS, Request, Translation};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};

/// Where explained code would lie.
const BASE: u64 = 0x1000_0000;
const PAGE: usize = 4096;

/// A guest instruction and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// Where the guest instruction is; nothing for the unit's code off the common path.
    pub eip: Option<u32>,
    /// Its bytes.
    pub guest: Vec<u8>,
    /// The host address that the host code would have.
    pub host_address: u64,
    /// The host code.
    pub host: Vec<u8>,
    /// Why it is not one to one; empty where it is.
    pub reason: &'static str,
}

/// Translates the unit that begins with `code` at `eip`, in a flat 32-bit kernel with FPU and SSE on.
/// `code` may go on behind the unit; what lies in the next page is not looked at.
#[must_use]
pub fn explain(code: &[u8], eip: u32) -> Vec<Explained> {
    let code = &code[..code.len().min(PAGE - eip as usize % PAGE)];
    let request = Request { code, eip, physical: u64::from(eip), mode: Mode::kernel() };
    let made = translate::translate(request, &Sites::default(), &Stubs::default(), BASE);
    let mut decoder = Decoder::with_ip(32, code, u64::from(eip), OPTIONS);
    let starts = starts(&made);
    let mut explained = Vec::with_capacity(starts.len() + 1);
    for (number, &(at, offset)) in starts.iter().enumerate() {
        let from = if number == 0 { 0 } else { offset };
        let end = starts.get(number + 1).map_or(made.cold, |&(_, next)| next) as usize;
        let position = at.wrapping_sub(eip) as usize;
        if decoder.set_position(position).is_err() {
            break;
        }
        decoder.set_ip(u64::from(at));
        let instruction = decoder.decode();
        let host = made.bytes[from as usize..end].to_vec();
        explained.push(Explained {
            eip: Some(at),
            guest: code[position..decoder.position()].to_vec(),
            host_address: BASE + u64::from(from),
            reason: reason(&instruction, &host),
            host,
        });
    }
    explained.extend(cold(&made));
    explained
}

/// EIP and host offset of each instruction: polls and second parts belong to the same.
fn starts(made: &Translation) -> Vec<(u32, u32)> {
    let mut starts: Vec<_> = made.places.iter().map(|place| (place.eip, place.offset)).collect();
    starts.sort_by_key(|&(_, offset)| offset);
    starts.dedup_by_key(|&mut (eip, _)| eip);
    // A poll of a backward jump's target lies within the jump.
    let mut last = None;
    starts.retain(|&(eip, _)| {
        let goes_on = last.is_none_or(|last| eip > last);
        last = if goes_on { Some(eip) } else { last };
        goes_on
    });
    starts
}

fn cold(made: &Translation) -> Option<Explained> {
    let host = made.bytes[made.cold as usize..].to_vec();
    (!host.is_empty()).then_some(Explained {
        eip: None,
        guest: Vec::new(),
        host_address: BASE + u64::from(made.cold),
        host,
        reason: "off the common path: exits, until jumps are linked or where a lookup fails",
    })
}

fn reason(instruction: &Instruction, host: &[u8]) -> &'static str {
    let host: Vec<_> = Decoder::with_ip(64, host, BASE, DecoderOptions::NONE).into_iter().collect();
    let leaves = |i: &Instruction| i.mnemonic() == Mnemonic::Jmp && through(i, at::EXIT);
    let loads_floats =
        |i: &Instruction| i.mnemonic() == Mnemonic::Call && through(i, at::FPU_ENSURE);
    if host.iter().any(leaves) && !matches!(instruction.mnemonic(), Mnemonic::Sti) {
        "left to the emulator"
    } else if instruction.flow_control() != FlowControl::Next {
        control_flow(instruction)
    } else if matches!(instruction.mnemonic(), Mnemonic::In | Mnemonic::Out | Mnemonic::Lldt) {
        "a function of the monitor's is called, without an exit"
    } else if host.len() <= 1 {
        ""
    } else if host.iter().any(loads_floats) {
        "the guest's floating-point state is loaded first, once"
    } else if instruction.is_string_instruction() {
        "string instructions take host addresses: the window's base is added and taken off again"
    } else if instruction.is_stack_instruction() {
        "the guest's ESP is R14: RSP is the stack of host return addresses"
    } else if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
        "a segment with a base: the linear address is computed first"
    } else {
        "sensitive: emulated in the cache, on the virtual CPU's state"
    }
}

fn control_flow(instruction: &Instruction) -> &'static str {
    match instruction.flow_control() {
        FlowControl::Call => {
            "pushes the guest's return address, and is a host CALL for the predictor"
        }
        FlowControl::IndirectCall => "as a call, to a target that is looked up without an exit",
        FlowControl::IndirectBranch => "the target is looked up without an exit",
        FlowControl::Return if instruction.code() != Code::Iretd => {
            "pops the guest's address into R8, and is a host RET"
        }
        _ => "linked to the unit at its target; backward, it polls first",
    }
}

/// Whether the operand is this field of the context.
fn through(instruction: &Instruction, field: i32) -> bool {
    instruction.memory_base() == Register::R13
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() as i32 == field
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the translator's documentation.
    #[test]
    fn the_worked_example_is_true() {
        let explained = explain(&[0x8b, 0x43, 0x04, 0x01, 0xd0, 0x50, 0xfa, 0xc3], 0x10_0000);
        let of = |number: usize| &explained[number].host[..];
        assert_eq!(of(0), [0x65, 0x67, 0x8b, 0x43, 0x04]);
        assert_eq!(of(1), [0x01, 0xd0]);
        assert_eq!(of(2), [0x65, 0x67, 0x41, 0x89, 0x46, 0xfc, 0x45, 0x8d, 0x76, 0xfc]);
        assert_eq!(of(3)[..3], [0x41, 0xc7, 0x45]);
        assert_eq!(of(4), [0x65, 0x67, 0x45, 0x8b, 0x06, 0x45, 0x8d, 0x76, 0x04, 0xc3]);
        assert_eq!([explained[0].reason, explained[1].reason], ["", ""]);
        assert_eq!(explained.len(), 5);
    }

    #[test]
    fn all_guest_bytes_of_a_unit_are_explained_once() {
        let code = [
            0x49, 0xd9, 0xe8, 0x64, 0x8b, 0x00, 0xe8, 0, 0, 0, 0, 0xf3, 0xa4, 0x0f, 0x22, 0xd8,
            0x75, 0xee, 0xeb, 0xfe,
        ];
        let explained = explain(&code, 0xffff_fff0 - 0x1000);
        let guest: Vec<u8> = explained.iter().flat_map(|part| part.guest.clone()).collect();
        assert_eq!(guest, code[..0x10]);
        let explained = explain(&code, 0x8000);
        let guest: Vec<u8> = explained.iter().flat_map(|part| part.guest.clone()).collect();
        assert_eq!(guest, code);
        let ends = explained
            .windows(2)
            .all(|pair| pair[0].host_address + pair[0].host.len() as u64 == pair[1].host_address);
        assert!(ends, "{explained:x?}");
        assert_eq!(
            explained.iter().find(|part| part.guest == [0x0f, 0x22, 0xd8]).unwrap().reason,
            "left to the emulator"
        );
    }
}
