//! Random instructions: opcode bytes as they come, with operands that mostly lead somewhere.

use super::layout::{self, PAGE};
use super::{Item, Link, LinkKind, Mode, Random};
use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

/// Which instructions programs are made of.
#[derive(Clone, Copy)]
pub struct Repertoire<'a> {
    /// Whether programs may contain an instruction on purpose. What they come to by jumping into the
    /// middle of one, or by changing their own code, nobody can say.
    pub allows: &'a dyn Fn(&Instruction) -> bool,
    /// What programs keep away from.
    pub kept_out: KeptOut,
}

/// States that programs keep away from, on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeptOut {
    /// What ring 3 of the host cannot be put into: null selectors with an RPL, SSE without
    /// CR4.OSFXSR.
    pub beyond_ring_3: bool,
    /// What monitors that emulate guest kernels in software care little about: 16-bit code, EFLAGS.AC,
    /// device memory, paging that is off.
    pub rare: bool,
}

impl std::fmt::Debug for Repertoire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repertoire").finish_non_exhaustive()
    }
}

impl Repertoire<'_> {
    /// Whether all instructions of an item are allowed. Bytes that decode to nothing are #UD.
    pub(super) fn allows_item(&self, bits: u32, item: &Item) -> bool {
        let decoder = Decoder::new(bits, &item.bytes, DecoderOptions::NONE);
        decoder.into_iter().all(|instruction| self.allows_one(&instruction))
    }

    fn allows_one(&self, instruction: &Instruction) -> bool {
        instruction.is_invalid() || (self.allows)(instruction)
    }
}

/// Makes the instructions of one block.
pub(super) struct Generator<'a> {
    pub(super) repertoire: &'a Repertoire<'a>,
    pub(super) random: &'a mut Random,
    pub(super) mode: Mode,
    /// Whether this block is about x87, MMX and SSE too.
    pub(super) floating: bool,
    pub(super) info: InstructionInfoFactory,
}

/// Attempts at an instruction before NOP is taken.
const MOST_ATTEMPTS: usize = 64;

impl Generator<'_> {
    /// One instruction. Where it branches, its target is still to be chosen.
    pub(super) fn instruction(&mut self) -> Item {
        for _ in 0..MOST_ATTEMPTS {
            let bytes = self.candidate();
            if let Some(item) = self.accept(bytes) {
                return item;
            }
        }
        Item::new(vec![0x90])
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.random.number() as u8
    }

    /// Opcode bytes and more operand bytes than any instruction has.
    fn candidate(&mut self) -> Vec<u8> {
        let mut bytes = self.prefixes();
        match self.random.below(if self.floating { 100 } else { 50 }) {
            0..=34 => bytes.push(self.byte()),
            35..=49 => bytes.extend([0x0f, self.byte()]),
            50..=69 => bytes.push(0xd8 | self.byte() & 7),
            _ => {
                bytes.extend(*self.random.pick(&[&[][..], &[0x66], &[0xf2], &[0xf3]]));
                bytes.extend([0x0f, self.vector_opcode()]);
            }
        }
        let opcode = bytes[bytes.len() - 1];
        let is_wide = (self.mode.bits() == 32) != bytes[..bytes.len() - 1].contains(&0x67);
        self.operands(&mut bytes, opcode, is_wide);
        bytes
    }

    fn prefixes(&mut self) -> Vec<u8> {
        const COMMON: [(u8, u64); 5] = [(0x66, 15), (0x67, 6), (0xf0, 3), (0xf2, 2), (0xf3, 3)];
        const SEGMENTS: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
        let mut prefixes = Vec::new();
        for (prefix, percent) in COMMON {
            if self.random.chance(percent) {
                prefixes.push(prefix);
            }
        }
        if self.random.chance(10) {
            prefixes.push(*self.random.pick(&SEGMENTS));
        }
        if self.random.below(400) == 0 {
            // Up to and past the limit of 15 bytes.
            let count = 8 + self.random.below(8) as usize;
            prefixes.extend(std::iter::repeat_n(*self.random.pick(&SEGMENTS[..4]), count));
        }
        prefixes
    }

    fn vector_opcode(&mut self) -> u8 {
        match self.random.below(10) {
            0 => 0x10 + self.byte() % 8,
            1 => 0x28 + self.byte() % 8,
            2..=5 => 0x50 + self.byte() % 0x30,
            6 => *self.random.pick(&[0xae, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6]),
            _ => 0xd0 + self.byte() % 0x30,
        }
    }

    fn operands(&mut self, bytes: &mut Vec<u8>, opcode: u8, is_wide: bool) {
        if (0xa0..=0xa3).contains(&opcode) && self.random.chance(90) {
            bytes.extend(self.data_address().to_le_bytes());
        } else if self.random.chance(40) {
            bytes.push(0xc0 | self.byte());
        } else if is_wide {
            self.memory_operand(bytes);
        } else {
            self.memory_operand_16(bytes);
        }
        for _ in 0..4 {
            let number = self.number();
            bytes.extend(number.to_le_bytes());
        }
    }

    fn memory_operand(&mut self, bytes: &mut Vec<u8>) {
        let register = self.byte() & 0x38;
        let pointer = *self.random.pick(&[3u8, 5, 6, 7]);
        match self.random.below(100) {
            0..=34 => {
                bytes.push(register | 5);
                bytes.extend(self.data_address().to_le_bytes());
            }
            35..=69 => bytes.extend([0x40 | register | pointer, self.displacement()]),
            70..=79 => bytes.push(register | *self.random.pick(&[3, 6, 7])),
            // Relative to ESP.
            80..=87 => bytes.extend([0x44 | register, 0x24, self.byte() & 0x7c]),
            88..=94 => {
                let scaled_index = self.byte() & 0xf8;
                bytes.extend([0x44 | register, scaled_index | pointer, self.displacement()]);
            }
            _ => bytes.push(self.byte()),
        }
    }

    fn memory_operand_16(&mut self, bytes: &mut Vec<u8>) {
        let register = self.byte() & 0x38;
        match self.random.below(10) {
            0..=4 => {
                bytes.push(register | 6);
                bytes.extend((self.data_address() as u16).to_le_bytes());
            }
            // SI, DI, BP or BX alone.
            5..=8 => bytes.extend([0x44 | register | self.byte() & 3, self.displacement()]),
            _ => bytes.push(self.byte()),
        }
    }

    fn displacement(&mut self) -> u8 {
        if self.random.chance(70) { self.byte() & 0xf0 } else { self.byte() }
    }

    /// An offset that mostly leads to data.
    pub(super) fn data_address(&mut self) -> u32 {
        data_address(self.random, self.mode)
    }

    /// A number of the kinds that programs use.
    pub(super) fn number(&mut self) -> u32 {
        let any = self.random.number() as u32;
        match self.random.below(5) {
            0 => any % 16,
            1 => any % 0x100,
            2 => 1 << (any % 32),
            3 => self.data_address(),
            _ => any,
        }
    }

    /// The item that `bytes` begin with, unless it is not to be used.
    fn accept(&mut self, mut bytes: Vec<u8>) -> Option<Item> {
        let mut decoder = Decoder::new(self.mode.bits(), &bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let constants = decoder.get_constant_offsets(&instruction);
        if !self.repertoire.allows_one(&instruction) || !self.is_wanted(&instruction) {
            return None;
        }
        bytes.truncate(if instruction.is_invalid() { 15 } else { instruction.len() });
        let mut item = Item::new(bytes);
        if has_near_target(&instruction) {
            item.link = Some(Link {
                at: constants.immediate_offset(),
                size: constants.immediate_size(),
                kind: LinkKind::Relative,
                target: 0,
            });
        }
        Some(item)
    }

    /// Whether an instruction that is possible is likely enough to lead on.
    fn is_wanted(&mut self, instruction: &Instruction) -> bool {
        use Mnemonic as M;
        let percent = match instruction.mnemonic() {
            M::INVALID | M::Ud0 | M::Ud1 | M::Ud2 => 5,
            // These wait for an interrupt, and switch the machine off or its timer.
            M::Hlt | M::Out | M::Outsb | M::Outsw | M::Outsd => 3,
            M::Jmp | M::Call | M::Ret | M::Retf | M::Iret | M::Iretd
                if !has_near_target(instruction) =>
            {
                10
            }
            M::Int | M::Int1 | M::Int3 | M::Into | M::Bound => 20,
            // Repeated with any count they take for ever: there is an idiom for them.
            _ if instruction.is_string_instruction()
                && (instruction.has_rep_prefix() || instruction.has_repne_prefix()) =>
            {
                0
            }
            _ if moves_special_register(instruction) => 5,
            _ if instruction.is_privileged() => 15,
            _ if self.loses_a_pointer(instruction) => 20,
            _ => 100,
        };
        self.random.chance(percent)
    }

    /// Whether a register that points to data or stack gets another value.
    fn loses_a_pointer(&mut self, instruction: &Instruction) -> bool {
        let implicit = instruction.is_string_instruction() || instruction.is_stack_instruction();
        self.info.info(instruction).used_registers().iter().any(|used| {
            let is_written = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            let is_pointer = matches!(
                used.register().full_register32(),
                Register::EBX | Register::ESI | Register::EDI | Register::EBP | Register::ESP
            );
            is_written && is_pointer && !implicit
        })
    }
}

/// An offset that mostly leads to data, in the segments of a mode.
pub(super) fn data_address(random: &mut Random, mode: Mode) -> u32 {
    let within = random.below(u64::from(layout::DATA_BYTES - PAGE)) as u32;
    let offset = match random.below(40) {
        0 => random.number() as u32 & 0x1_ffff,
        1..=3 => (within & !(PAGE - 1)).wrapping_sub(random.below(20) as u32),
        4..=12 => within,
        // Few places, so that they are met again.
        13..=28 => within & 0x30f0,
        _ => within & !15,
    };
    match mode {
        Mode::Kernel | Mode::User if random.below(12) == 0 => {
            layout::HIGH.wrapping_add(layout::DATA).wrapping_add(offset)
        }
        Mode::Kernel | Mode::User => layout::DATA.wrapping_add(offset),
        _ => offset,
    }
}

fn has_near_target(instruction: &Instruction) -> bool {
    instruction.op_count() > 0
        && matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32)
}

fn moves_special_register(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register && {
            let register = instruction.op_register(operand);
            register.is_cr() || register.is_dr() || register.is_tr()
        }
    })
}
