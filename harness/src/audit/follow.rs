//! Recursive traversal: decoding follows control flow from the entry and the functions that symbols
//! name.
//!
//! It takes no data for code, but misses code that is reached through pointers only. Of those, the
//! gates of interrupt descriptor tables are followed, where LIDT names a table within the image.

use super::decode::Code;
use super::image::{CodeSize, Program, SymbolKind};
use iced_x86::{Code as Opcode, FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::collections::HashSet;

/// A gate of an interrupt descriptor table: how long, and its type bits (Intel SDM volume 3,
/// "IDT Descriptors").
const GATE: u32 = 8;
const GATES: u32 = 256;
const PRESENT: u32 = 1 << 15;

/// Decodes everything that can be seen to be reached.
pub(super) fn follow(code: &mut Code<'_>, size: CodeSize) {
    let mut traversal = Traversal { pending: Vec::new(), seen: HashSet::new() };
    let functions = code.program.symbols.iter();
    let functions = functions.filter(|symbol| symbol.kind == SymbolKind::Function);
    for address in
        functions.map(|symbol| symbol.address).chain(code.program.entries.iter().copied())
    {
        code.note_target(address);
        traversal.pending.push((address, size));
    }
    while let Some((address, size)) = traversal.pending.pop() {
        traversal.run(code, address, size);
    }
}

struct Traversal {
    /// Places still to go to.
    pending: Vec<(u32, CodeSize)>,
    /// Places where decoding has been.
    seen: HashSet<(u32, CodeSize)>,
}

impl Traversal {
    /// Decodes from `address` on until control does not go on.
    fn run(&mut self, code: &mut Code<'_>, mut address: u32, size: CodeSize) {
        while let Some((piece, offset)) = code.program.find_code(address) {
            if !self.seen.insert((address, size)) {
                return;
            }
            let Some(instruction) = code.decode((piece, offset), usize::MAX, size) else { return };
            let goes_on = self.leave(code, &instruction, size);
            match address.checked_add(instruction.len() as u32) {
                Some(next) if goes_on => address = next,
                _ => return,
            }
        }
    }

    /// Notes where else control may go. Whether it may go on behind the instruction.
    fn leave(&mut self, code: &mut Code<'_>, instruction: &Instruction, size: CodeSize) -> bool {
        if let Some(target) = branch(instruction, size) {
            self.pending.push(target);
        }
        if instruction.mnemonic() == Mnemonic::Lidt {
            for handler in handlers(code.program, instruction) {
                code.note_target(handler);
                self.pending.push((handler, size));
            }
        }
        !matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        )
    }
}

/// The target of a direct branch. Far ones change to 32-bit code if their offset has 32 bits: flat
/// segments are taken for granted in protected mode, and paragraphs in real mode.
fn branch(instruction: &Instruction, size: CodeSize) -> Option<(u32, CodeSize)> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 => {
            Some((instruction.near_branch_target() as u32, size))
        }
        OpKind::FarBranch32 => Some((instruction.far_branch32(), CodeSize::Bits32)),
        OpKind::FarBranch16 if size == CodeSize::Bits16 => {
            let segment = u32::from(instruction.far_branch_selector());
            Some(((segment << 4) + u32::from(instruction.far_branch16()), size))
        }
        _ => None,
    }
}

/// The handlers in the interrupt descriptor table that a LIDT of a constant address loads.
fn handlers(program: &Program, lidt: &Instruction) -> Vec<u32> {
    let is_constant = lidt.memory_base() == Register::None && lidt.memory_index() == Register::None;
    if lidt.code() != Opcode::Lidt_m1632 || !is_constant {
        return Vec::new();
    }
    let register = lidt.memory_displacement32();
    let read = |at: Option<u32>| program.u32_at(at?);
    let limit = read(Some(register)).map(|word| word & 0xffff);
    let (Some(limit), Some(base)) = (limit, read(register.checked_add(2))) else {
        return Vec::new();
    };
    let gate = |number: u32| {
        let at = base.checked_add(number * GATE);
        let (low, high) = (read(at)?, read(at?.checked_add(4))?);
        let is_gate = high & PRESENT != 0 && matches!(high >> 8 & 0x1f, 0x0e | 0x0f);
        is_gate.then_some(high & 0xffff_0000 | low & 0xffff)
    };
    (0..GATES.min((limit + 1) / GATE)).filter_map(gate).collect()
}
