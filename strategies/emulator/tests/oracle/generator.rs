//! Random cases: all user-level encodings, with operands that mostly lead somewhere.
//!
//! Instructions are not taken from a table: opcode bytes are random, a decoder tells how long the
//! result is, and [`rules`](crate::rules) whether it can be compared. So what nobody thought of is
//! generated as well. Operands are chosen: memory operands mostly lie in the data pages, branches
//! go forward, and the registers that point there are mostly left alone.

use crate::case::{Case, Item, Link};
use crate::layout::{CODE, DATA, DATA_BYTES, Flavour, PAGE, STACK, STACK_BYTES};
use crate::random::Random;
use crate::rules;
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register};
use machine::cpu::{Eflags, Fpu, XMM0, register};

/// The most instructions in a case, idioms aside.
const LONGEST: u32 = 7;

/// Which instructions cases are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mix {
    /// Integer instructions alone.
    Integer,
    /// All, with many for x87, MMX and SSE.
    All,
}

/// Makes the case that belongs to `seed`, for an arena at `arena`, with one of `flavours`.
pub(crate) fn case(flavours: &[Flavour], mix: Mix, seed: u64, arena: u32) -> Case {
    let mut random = Random::new(seed);
    let flavour = random.pick(flavours);
    let mut generator = Generator {
        mix,
        flavour,
        origin: flavour.origin(arena),
        info: InstructionInfoFactory::new(),
        items: Vec::new(),
        random,
    };
    for _ in 0..=generator.random.below(LONGEST) {
        generator.add();
    }
    generator.finish(seed)
}

struct Generator {
    mix: Mix,
    flavour: Flavour,
    origin: u32,
    info: InstructionInfoFactory,
    items: Vec<Item>,
    random: Random,
}

impl Generator {
    fn finish(mut self, seed: u64) -> Case {
        let end = self.items.len() + 1;
        for index in 0..self.items.len() {
            if let Some(link) = &mut self.items[index].link {
                // An absolute link belongs to an idiom of two instructions.
                let first = index + if link.relative { 1 } else { 2 };
                let after = end.saturating_sub(first).max(1);
                link.target = first + self.random.below(after as u32) as usize;
            }
        }
        let length: usize = self.items.iter().map(|item| item.bytes.len()).sum();
        // Now and then the code runs over the end of its page.
        let start = match self.random.below(20) {
            0 => CODE + PAGE - self.random.below(length as u32 + 1),
            _ => CODE + 0x100 + self.random.below(64),
        };
        let registers = self.registers();
        let eflags = self.eflags();
        let data = (0..DATA_BYTES / 8).flat_map(|_| self.random.quadword().to_le_bytes()).collect();
        let stack = (0..STACK_BYTES / 4).flat_map(|_| self.stacked().to_le_bytes()).collect();
        let fpu = floating_point_state(&mut self.random);
        let Generator { flavour, items, .. } = self;
        Case { seed, flavour, start, items, registers, eflags, fpu, data, stack }
    }

    // The state.

    fn registers(&mut self) -> [u32; 8] {
        let mut registers: [u32; 8] = std::array::from_fn(|_| self.random.integer());
        for pointer in [register::EBX, register::EBP, register::ESI, register::EDI] {
            if self.random.chance(90) {
                registers[pointer] = self.data_address();
            }
        }
        for (number, end) in [(register::ECX, 24), (register::EDX, 2)] {
            if self.random.chance(40) {
                registers[number] = self.random.below(end);
            }
        }
        let middle = STACK + STACK_BYTES / 4 + 4 * self.random.below(STACK_BYTES / 8);
        let stack = match self.random.below(20) {
            0 => STACK + self.random.below(24),
            1 => STACK + STACK_BYTES - self.random.below(24),
            2 => middle + self.random.below(4),
            _ => middle,
        };
        registers[register::ESP] = self.origin.wrapping_add(stack);
        registers
    }

    fn eflags(&mut self) -> u32 {
        let mut flags = self.random.next() as u32 & Eflags::ARITHMETIC.bits();
        for (flag, percent) in
            [(Eflags::DF, 15), (Eflags::NT, 2), (Eflags::AC, 2), (Eflags::ID, 5), (Eflags::TF, 1)]
        {
            if self.random.chance(percent) {
                flags |= flag.bits();
            }
        }
        flags
    }

    /// What lies on the stack: small numbers and pointers, so that most POPFs are harmless.
    fn stacked(&mut self) -> u32 {
        match self.random.below(4) {
            0 => self.data_address(),
            1 => self.random.integer(),
            _ => self.random.next() as u32 & 0xed7,
        }
    }

    /// An offset that mostly leads to the data.
    fn data_address(&mut self) -> u32 {
        let offset = match self.random.below(40) {
            0 => DATA + DATA_BYTES - self.random.below(32),
            1 => DATA + PAGE - self.random.below(20),
            2 => DATA - 16 + self.random.below(32),
            3 => self.random.below(0x1_0000),
            4..=13 => DATA + 64 + self.random.below(DATA_BYTES - 0x200),
            _ => DATA + 64 + (self.random.below(DATA_BYTES - 0x200) & !15),
        };
        self.origin.wrapping_add(offset)
    }

    // The code.

    fn add(&mut self) {
        if self.random.chance(10) {
            self.add_idiom();
        } else {
            let item = loop {
                let bytes = self.candidate();
                if let Some(item) = self.accept(bytes) {
                    break item;
                }
            };
            self.items.push(item);
        }
    }

    /// Opcode bytes and more operand bytes than any instruction has.
    fn candidate(&mut self) -> Vec<u8> {
        let mut bytes = self.prefixes();
        let classes = if self.mix == Mix::Integer { 50 } else { 100 };
        match self.random.below(classes) {
            0..=34 => bytes.push(self.random.byte()),
            35..=49 => bytes.extend([0x0f, self.random.byte()]),
            50..=69 => bytes.push(0xd8 | self.random.byte() & 7),
            _ => {
                bytes.extend(self.random.pick(&[&[][..], &[0x66], &[0xf2], &[0xf3]]));
                bytes.extend([0x0f, self.vector_opcode()]);
            }
        }
        let address_is_32bit =
            (self.flavour.bits() == 32) != bytes[..bytes.len() - 1].contains(&0x67);
        let opcode = bytes[bytes.len() - 1];
        self.operands(&mut bytes, opcode, address_is_32bit);
        bytes
    }

    fn prefixes(&mut self) -> Vec<u8> {
        const COMMON: [(u8, u32); 5] = [(0x66, 18), (0x67, 10), (0xf0, 3), (0xf2, 3), (0xf3, 4)];
        const SEGMENTS: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
        let mut prefixes = Vec::new();
        for (prefix, percent) in COMMON {
            if self.random.chance(percent) {
                prefixes.push(prefix);
            }
        }
        if self.random.chance(10) {
            prefixes.push(self.random.pick(&SEGMENTS));
        }
        if self.random.below(300) == 0 {
            // Up to and past the limit of 15 bytes.
            let prefix = self.random.pick(&SEGMENTS[..4]);
            prefixes.extend(std::iter::repeat_n(prefix, 8 + self.random.below(8) as usize));
        }
        if prefixes.len() > 1 {
            let (a, b) = (self.random.below(8) as usize, self.random.below(8) as usize);
            let length = prefixes.len();
            prefixes.swap(a % length, b % length);
        }
        prefixes
    }

    fn vector_opcode(&mut self) -> u8 {
        match self.random.below(10) {
            0 => 0x10 + self.random.below(8) as u8,
            1 => 0x28 + self.random.below(8) as u8,
            2..=5 => 0x50 + self.random.below(0x30) as u8,
            6 => self.random.pick(&[0xae, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6]),
            _ => 0xd0 + self.random.below(0x30) as u8,
        }
    }

    fn operands(&mut self, bytes: &mut Vec<u8>, opcode: u8, address_is_32bit: bool) {
        if (0xa0..=0xa3).contains(&opcode) && self.random.chance(90) {
            bytes.extend(self.data_address().to_le_bytes());
        } else if self.random.chance(40) {
            bytes.push(0xc0 | self.random.byte());
        } else if address_is_32bit {
            self.memory_operand(bytes);
        } else {
            self.memory_operand_16bit(bytes);
        }
        bytes.extend(self.random.integer().to_le_bytes());
        bytes.extend(self.random.integer().to_le_bytes());
        bytes.extend(self.random.next().to_le_bytes());
    }

    fn memory_operand(&mut self, bytes: &mut Vec<u8>) {
        let reg = self.random.byte() & 0x38;
        let pointer = self.random.pick(&[3u8, 5, 6, 7]);
        match self.random.below(100) {
            0..=39 => {
                bytes.push(reg | 5);
                bytes.extend(self.data_address().to_le_bytes());
            }
            40..=79 => bytes.extend([0x40 | reg | pointer, self.displacement()]),
            80..=85 => bytes.push(reg | self.random.pick(&[3, 6, 7])),
            86..=93 => {
                let scaled_index = self.random.byte() & 0xf8;
                bytes.extend([0x44 | reg, scaled_index | pointer, self.displacement()]);
            }
            _ => bytes.push(self.random.byte()),
        }
    }

    fn memory_operand_16bit(&mut self, bytes: &mut Vec<u8>) {
        let reg = self.random.byte() & 0x38;
        match self.random.below(10) {
            0..=4 => {
                bytes.push(reg | 6);
                bytes.extend((self.data_address() as u16).to_le_bytes());
            }
            5..=8 => {
                // SI, DI, BP, BX alone.
                let base = self.random.byte() & 3;
                bytes.extend([0x44 | reg | base, self.displacement()]);
            }
            _ => bytes.push(self.random.byte()),
        }
    }

    fn displacement(&mut self) -> u8 {
        if self.random.chance(70) { self.random.byte() & 0xf0 } else { self.random.byte() }
    }

    /// The item that `bytes` begin with, unless it is not to be used.
    fn accept(&mut self, mut bytes: Vec<u8>) -> Option<Item> {
        let mut decoder = Decoder::new(self.flavour.bits(), &bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let constants = decoder.get_constant_offsets(&instruction);
        if rules::exclusion(&instruction).is_some()
            || self.mix == Mix::Integer && rules::is_floating_point(&instruction)
            || rules::always_faults(&instruction) && self.random.chance(95)
            || rules::is_indirect(&instruction) && self.random.chance(90)
            || self.loses_a_pointer(&instruction) && self.random.chance(80)
        {
            return None;
        }
        bytes.truncate(if instruction.is_invalid() { 15 } else { instruction.len() });
        let mut item = Item::new(bytes);
        if has_near_target(&instruction) {
            item.link = Some(Link {
                at: constants.immediate_offset(),
                size: constants.immediate_size(),
                relative: true,
                target: 0,
            });
        }
        Some(item)
    }

    /// Whether a register that points to data or stack gets another value.
    fn loses_a_pointer(&mut self, instruction: &Instruction) -> bool {
        let implicit = instruction.is_string_instruction() || instruction.is_stack_instruction();
        let info = self.info.info(instruction);
        info.used_registers().iter().any(|used| {
            let written = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            let pointer = matches!(
                used.register().full_register32(),
                Register::EBX | Register::ESI | Register::EDI | Register::EBP | Register::ESP
            );
            written && pointer && !implicit
        })
    }

    /// Sequences that random bytes would not make often enough.
    fn add_idiom(&mut self) {
        let word = self.flavour.bits() as usize / 8;
        match self.random.below(6) {
            0 => {
                // push label; ret
                self.push_linked(&[0x68], word);
                self.items.push(Item::new(vec![0xc3]));
            }
            1 => {
                // mov eax, label; jmp eax or call eax
                self.push_linked(&[0xb8], word);
                let transfer = self.random.pick(&[0xe0, 0xd0]);
                self.items.push(Item::new(vec![0xff, transfer]));
            }
            2 => {
                // push flags; popf
                let flags = self.random.next() as u32 & self.random.next() as u32;
                self.push_immediate(0x68, flags);
                self.items.push(Item::new(vec![0x9d]));
            }
            _ => {
                // mov ecx, count; rep string instruction
                let count = self.random.below(20);
                self.push_immediate(0xb9, count);
                let mut bytes = Vec::new();
                if self.random.chance(20) {
                    bytes.push(self.random.pick(&[0x66, 0x67, 0x26, 0x2e, 0x36, 0x64, 0x65]));
                }
                bytes.push(self.random.pick(&[0xf2, 0xf3]));
                bytes.push(
                    self.random.pick(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf]),
                );
                self.items.push(Item::new(bytes));
            }
        }
    }

    fn push_immediate(&mut self, opcode: u8, value: u32) {
        let word = self.flavour.bits() as usize / 8;
        let mut bytes = vec![opcode];
        bytes.extend(&value.to_le_bytes()[..word]);
        self.items.push(Item::new(bytes));
    }

    fn push_linked(&mut self, opcode: &[u8], word: usize) {
        let mut item = Item::new(opcode.to_vec());
        item.link = Some(Link { at: opcode.len(), size: word, relative: false, target: 0 });
        item.bytes.resize(opcode.len() + word, 0);
        self.items.push(item);
    }
}

fn has_near_target(instruction: &Instruction) -> bool {
    use iced_x86::OpKind;
    instruction.op_count() > 0
        && matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32)
}

/// A random x87, MMX and SSE state; most exceptions are masked.
fn floating_point_state(random: &mut Random) -> Fpu {
    let mut fpu = Fpu::default();
    let masks = if random.chance(85) { 0x3f } else { random.below(64) as u16 };
    let control = 0x40 | masks | (random.below(16) as u16) << 8;
    let control = if random.chance(50) { 0x37f } else { control };
    let mut status = random.next() as u16 & 0x7f40;
    if random.chance(60) {
        status &= !0x3800;
    }
    status |= if random.chance(95) { control & 0x3f } else { 0x3f } & random.next() as u16;
    if status & !control & 0x3f != 0 {
        // ES and B say that an unmasked exception waits.
        status |= 0x8080;
    }
    let tags = match random.below(4) {
        0 => 0,
        1 => 0xff,
        _ => random.byte(),
    };
    fpu.area.0[0..2].copy_from_slice(&control.to_le_bytes());
    fpu.area.0[2..4].copy_from_slice(&status.to_le_bytes());
    fpu.area.0[4] = tags;
    for number in 0..8 {
        let at = 32 + 16 * number;
        fpu.area.0[at..at + 10].copy_from_slice(&random.extended());
    }
    let masks = if random.chance(85) { 0x1f80 } else { random.next() as u32 & 0x1f80 };
    let rest = if random.chance(50) { 0 } else { random.next() as u32 & 0xe07f };
    fpu.set_mxcsr(masks | rest);
    for number in 0..16 {
        let at = XMM0 + 8 * number;
        fpu.area.0[at..at + 8].copy_from_slice(&random.quadword().to_le_bytes());
    }
    fpu
}
