//! Decoded code: what each byte of an executable piece turned out to be, and the sites found.
//!
//! Where code ends and data begins cannot be told from IA-32 bytes alone. Two ways to go about it
//! are beside this file: [`super::sweep`] and [`super::follow`]. Both note here what they decode.

use super::classify::{Outcome, classify, outcome};
use super::image::{CodeSize, Program};
use super::kind::Kind;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

/// The longest instruction (Intel SDM volume 2, 2.3.11).
const LONGEST: usize = 15;

/// What is known of one byte.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Mark(u8);

impl Mark {
    /// An instruction begins here.
    pub(super) const START: Mark = Mark(1);
    /// It belongs to an instruction that began before.
    pub(super) const BODY: Mark = Mark(2);
    /// Control may come here from elsewhere.
    pub(super) const TARGET: Mark = Mark(4);
    /// The instruction that begins here sends control elsewhere, perhaps to come back. Conditional
    /// jumps, which may be moved, do not count.
    pub(super) const TRANSFER: Mark = Mark(8);
    /// Control never goes on behind the instruction that begins here.
    pub(super) const END: Mark = Mark(16);
    /// No instruction begins here, though one should.
    pub(super) const UNDECODABLE: Mark = Mark(32);

    pub(super) fn has(self, other: Mark) -> bool {
        self.0 & other.0 != 0
    }

    fn set(&mut self, other: Mark) {
        self.0 |= other.0;
    }

    /// Whether the byte was decoded as part of an instruction.
    pub(super) fn is_decoded(self) -> bool {
        self.has(Mark(Mark::START.0 | Mark::BODY.0))
    }
}

/// A privileged or sensitive instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The number of its piece.
    pub piece: usize,
    /// Where it is in the piece.
    pub offset: usize,
    /// Its length.
    pub length: usize,
    /// What kind of code it is in.
    pub size: CodeSize,
    /// Its kind.
    pub kind: Kind,
    /// What trap-and-emulate makes of it.
    pub outcome: Outcome,
}

/// How much of the executable bytes was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Coverage {
    /// Bytes in executable pieces.
    pub executable: u64,
    /// Instructions decoded.
    pub instructions: u64,
    /// Bytes that belong to them.
    pub decoded: u64,
    /// Bytes at which an instruction should begin, and none does.
    pub undecodable: u64,
}

impl Coverage {
    /// Bytes that were not looked at: known data, or never reached.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.executable - self.decoded - self.undecodable
    }
}

/// The decoded code of a program.
#[derive(Debug)]
pub(super) struct Code<'a> {
    pub(super) program: &'a Program,
    /// For each piece, the marks of its bytes; none for pieces that are not executable.
    pub(super) marks: Vec<Vec<Mark>>,
    /// In the order in which they were found.
    pub(super) sites: Vec<Site>,
}

impl<'a> Code<'a> {
    pub(super) fn new(program: &'a Program) -> Code<'a> {
        let marks = program.pieces.iter().map(|piece| {
            let length = if piece.is_code { piece.bytes.len() } else { 0 };
            vec![Mark::default(); length]
        });
        Code { program, marks: marks.collect(), sites: Vec::new() }
    }

    /// Decodes one instruction of the piece, which ends before `limit`, and notes it. None if there
    /// is none.
    pub(super) fn decode(
        &mut self,
        (piece, offset): (usize, usize),
        limit: usize,
        size: CodeSize,
    ) -> Option<Instruction> {
        let instruction = instruction(self.program, (piece, offset), limit, size);
        let Some(instruction) = instruction else {
            self.marks[piece][offset].set(Mark::UNDECODABLE);
            return None;
        };
        let length = instruction.len();
        self.marks[piece][offset].set(Mark::START);
        for mark in &mut self.marks[piece][offset + 1..offset + length] {
            mark.set(Mark::BODY);
        }
        self.note_flow((piece, offset), &instruction);
        if let Some(kind) = classify(&instruction) {
            let outcome = outcome(&instruction, kind);
            self.sites.push(Site { piece, offset, length, size, kind, outcome });
        }
        Some(instruction)
    }

    fn note_flow(&mut self, (piece, offset): (usize, usize), instruction: &Instruction) {
        let mark = &mut self.marks[piece][offset];
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception => mark.set(Mark(Mark::TRANSFER.0 | Mark::END.0)),
            _ => mark.set(Mark::TRANSFER),
        }
        for target in targets(instruction) {
            self.note_target(target);
        }
        let is_call =
            matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        if is_call {
            // Where the callee returns to.
            self.note_target(instruction.next_ip32());
        }
    }

    /// Notes that control may come to `address`, if there is code.
    pub(super) fn note_target(&mut self, address: u32) {
        if let Some((piece, offset)) = self.program.find_code(address) {
            self.marks[piece][offset].set(Mark::TARGET);
        }
    }

    pub(super) fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for mark in self.marks.iter().flatten() {
            coverage.executable += 1;
            coverage.instructions += u64::from(mark.has(Mark::START));
            coverage.decoded += u64::from(mark.is_decoded());
            let is_undecodable = mark.has(Mark::UNDECODABLE) && !mark.is_decoded();
            coverage.undecodable += u64::from(is_undecodable);
        }
        coverage
    }
}

/// The instruction at a place, if there is one that ends before `limit`.
pub(super) fn instruction(
    program: &Program,
    (piece, offset): (usize, usize),
    limit: usize,
    size: CodeSize,
) -> Option<Instruction> {
    let piece = &program.pieces[piece];
    let end = piece.bytes.len().min(limit).min(offset + LONGEST);
    let bytes = piece.bytes.get(offset..end)?;
    let address = u64::from(piece.address) + offset as u64;
    let mut decoder = Decoder::with_ip(size.bits(), bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Where an instruction may send control, or let it be sent: branch targets, and every constant in
/// it, because code takes the addresses of code.
pub(super) fn targets(instruction: &Instruction) -> impl Iterator<Item = u32> + '_ {
    let operands =
        (0..instruction.op_count()).filter_map(|number| match instruction.op_kind(number) {
            OpKind::NearBranch16 | OpKind::NearBranch32 => {
                Some(instruction.near_branch_target() as u32)
            }
            OpKind::FarBranch32 => Some(instruction.far_branch32()),
            OpKind::Immediate32 => Some(instruction.immediate32()),
            OpKind::Memory => Some(instruction.memory_displacement32()),
            _ => None,
        });
    operands.filter(|&target| target != 0)
}
