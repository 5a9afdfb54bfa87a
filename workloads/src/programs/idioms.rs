//! Sequences that random bytes would not come to, or not often enough: stack and calls, loops, string
//! instructions, segment loads and far transfers, code that changes itself, and what kernels do.

use super::code::Generator;
use super::layout::{self, PAGE};
use super::scene::AC;
use super::tables::entry_address;
use super::{Item, Link, LinkKind, Mode, Paging};

/// Bits of CR0 that a kernel may turn without losing its feet: MP, EM, TS, NE, WP, AM.
const CR0_BITS: [u32; 6] = [1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 16, 1 << 18];
/// The same of CR4: TSD, DE, PGE, OSFXSR, OSXMMEXCPT.
const CR4_BITS: [u32; 5] = [1 << 2, 1 << 3, 1 << 7, 1 << 9, 1 << 10];
/// CR4.OSFXSR.
const OSFXSR: u32 = 1 << 9;
/// Ports that may be read.
const PORTS: [u8; 8] = [0x21, 0x40, 0x42, 0x61, 0x64, 0x71, 0x80, 0x92];
/// Ports that may be written without much happening.
const QUIET_PORTS: [u8; 4] = [0x42, 0x80, 0x84, 0xe9];

fn linked(mut bytes: Vec<u8>, size: usize, kind: LinkKind, tail: &[u8], target: usize) -> Item {
    let at = bytes.len();
    bytes.resize(at + size, 0);
    bytes.extend(tail);
    Item { bytes, link: Some(Link { at, size, kind, target }) }
}

impl Generator<'_> {
    /// Items to stand before item `at` of `count`; links into them are counted from `at`.
    pub(super) fn idiom(&mut self, at: usize, count: usize, paging: Paging) -> Vec<Item> {
        for _ in 0..16 {
            let items = match self.random.below(if self.mode.is_kernel() { 20 } else { 13 }) {
                0..=2 => vec![self.stack_instruction()],
                3 => self.repeated_string(),
                4 => self.linked_transfer(at),
                5 => self.far_transfer(at),
                6 | 7 => self.segment_load(),
                8 => vec![self.code_write(at, count)],
                9 => self.flags(),
                10 => vec![self.interrupt()],
                11 => self.inspection(),
                12 => self.floating_state(),
                13 | 14 => self.control_register(),
                15 => self.page_edit(paging),
                16 => self.descriptor_edit(),
                17 => self.tables(),
                18 => self.devices(),
                _ => self.debug_registers(at),
            };
            let bits = self.mode.bits();
            if items.iter().all(|item| self.repertoire.allows_item(bits, item)) {
                return items;
            }
        }
        vec![self.instruction()]
    }

    fn word(&self) -> usize {
        self.mode.bits() as usize / 8
    }

    /// 66 where the mode needs it for 32 bits.
    fn wide(&self, bytes: &[u8]) -> Vec<u8> {
        let prefix: &[u8] = if self.mode.bits() == 16 { &[0x66] } else { &[] };
        [prefix, bytes].concat()
    }

    fn load(&self, register: u8, value: u32) -> Vec<u8> {
        self.wide(&[&[0xb8 | register][..], &value.to_le_bytes()].concat())
    }

    fn push(&self, value: u32) -> Item {
        Item::new([&[0x68][..], &value.to_le_bytes()[..self.word()]].concat())
    }

    fn stack_instruction(&mut self) -> Item {
        let register = self.byte() & 7;
        let small = self.byte() & 0x3c;
        let value = self.number();
        match self.random.below(13) {
            0..=2 => Item::new(vec![0x50 | register]),
            3..=5 => Item::new(vec![0x58 | register]),
            6 => Item::new(vec![0x66, *self.random.pick(&[0x50, 0x58]) | register]),
            7 => Item::new(vec![*self.random.pick(&[0x60, 0x61])]),
            8 => Item::new(vec![0x83, *self.random.pick(&[0xc4, 0xec]), small]),
            9 => Item::new(vec![0xc8, small, 0, *self.random.pick(&[0, 0, 1, 2, 31])]),
            10 => Item::new(vec![0xc9]),
            11 => Item::new(vec![0x6a, value as u8]),
            _ => self.push(value),
        }
    }

    /// mov ecx, count; rep …
    fn repeated_string(&mut self) -> Vec<Item> {
        let count = self.random.below(40) as u32;
        let mut bytes = Vec::new();
        if self.random.chance(20) {
            bytes.push(*self.random.pick(&[0x66, 0x67, 0x26, 0x2e, 0x36, 0x64, 0x65]));
        }
        bytes.push(*self.random.pick(&[0xf2, 0xf3]));
        let all = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf];
        bytes.push(*self.random.pick(&all));
        // In one item: with any other count it would take for ever.
        vec![Item::new([self.load(1, count), bytes].concat())]
    }

    /// push label; ret, or mov eax, label; jmp or call eax.
    fn linked_transfer(&mut self, at: usize) -> Vec<Item> {
        let word = self.word();
        if self.random.chance(50) {
            let push = linked(vec![0x68], word, LinkKind::Offset, &[], at + 2);
            vec![push, Item::new(vec![0xc3])]
        } else {
            let load = linked(vec![0xb8], word, LinkKind::Offset, &[], at + 2);
            vec![load, Item::new(vec![0xff, *self.random.pick(&[0xe0, 0xd0])])]
        }
    }

    /// Far to what follows: RETF, IRET, JMP, CALL, or a CALL or JMP to something random.
    fn far_transfer(&mut self, at: usize) -> Vec<Item> {
        let (code, word) = (self.code_selector(), self.word());
        let selector = code.to_le_bytes();
        let flags = self.random.number() as u32 & 0x8d7;
        match self.random.below(6) {
            0 => vec![
                self.push(code.into()),
                linked(vec![0x68], word, LinkKind::Offset, &[], at + 3),
                Item::new(vec![0xcb]),
            ],
            1 => vec![
                self.push(flags),
                self.push(code.into()),
                linked(vec![0x68], word, LinkKind::Offset, &[], at + 4),
                Item::new(vec![0xcf]),
            ],
            2 => vec![linked(vec![0xea], word, LinkKind::Offset, &selector, at + 1)],
            3 => vec![linked(vec![0x9a], word, LinkKind::Offset, &selector, at + 1)],
            _ => {
                let selector = self.selector().to_le_bytes();
                let opcode = *self.random.pick(&[0x9a, 0xea]);
                vec![linked(vec![opcode], word, LinkKind::Offset, &selector, at + 1)]
            }
        }
    }

    fn code_selector(&self) -> u16 {
        match self.mode {
            Mode::Kernel => layout::KERNEL_CODE,
            Mode::Kernel16 => layout::KERNEL_CODE_16,
            Mode::User => layout::USER_CODE,
            Mode::User16 => layout::USER_CODE_16,
            Mode::Virtual8086 => layout::LOW_CODE,
        }
    }

    /// A selector: a good one, a random descriptor's, or null.
    fn selector(&mut self) -> u16 {
        super::scene::selector(self.random, self.repertoire, self.mode)
    }

    /// mov eax, selector; mov sreg, eax; or push and pop; or LES and its kin.
    fn segment_load(&mut self) -> Vec<Item> {
        let selector = self.selector();
        // SS is rarely lucky.
        let all = [0, 3, 4, 5, 0, 3, 4, 5, 2];
        let register = *self.random.pick(&all);
        match self.random.below(4) {
            0 => {
                let pops: &[&[u8]] = &[&[0x07], &[0x1f], &[0x0f, 0xa1], &[0x0f, 0xa9]];
                vec![self.push(selector.into()), Item::new(self.random.pick(pops).to_vec())]
            }
            1 => {
                let mut store = self.load(0, selector.into());
                // push eax; push esi; les esi, [esp] and its kin
                store.extend(self.wide(&[0x50]));
                store.extend(self.wide(&[0x56]));
                let opcodes: &[&[u8]] =
                    &[&[0xc4], &[0xc5], &[0x0f, 0xb4], &[0x0f, 0xb5], &[0x0f, 0xb2]];
                let opcode = *self.random.pick(opcodes);
                if self.mode.bits() == 16 {
                    store.push(0x67);
                }
                store.extend(self.wide(&[opcode, &[0x34, 0x24]].concat()));
                vec![Item::new(store)]
            }
            _ => {
                let mut bytes = self.load(0, selector.into());
                bytes.extend([0x8e, 0xc0 | register << 3]);
                vec![Item::new(bytes)]
            }
        }
    }

    /// mov byte [label], opcode of one byte.
    fn code_write(&mut self, at: usize, count: usize) -> Item {
        let target = match self.random.below(4) {
            0 => self.random.below(count as u64 + 1) as usize,
            _ => (at + 1 + self.random.below(3) as usize).min(count + 1),
        };
        let opcode = *self.random.pick(&[0x90, 0x40, 0x41, 0x4b, 0x98, 0xf8, 0xf9, 0x0f]);
        if self.mode.bits() == 32 {
            linked(vec![0xc6, 0x05], 4, LinkKind::Data, &[opcode], target)
        } else {
            linked(vec![0xc6, 0x06], 2, LinkKind::Data, &[opcode], target)
        }
    }

    /// push flags; popf; or pushf.
    fn flags(&mut self) -> Vec<Item> {
        let number = self.random.number() as u32;
        let flags = if self.random.chance(60) { number & 0xcd5 } else { number & !0x100 };
        // Single steps now and then only.
        let flags = if self.random.chance(5) { flags | 0x100 } else { flags };
        let flags = if self.repertoire.kept_out.rare { flags & !AC } else { flags };
        match self.random.below(3) {
            0 => vec![Item::new(vec![0x9c])],
            _ => vec![self.push(flags), Item::new(vec![0x9d])],
        }
    }

    fn interrupt(&mut self) -> Item {
        Item::new(match self.random.below(4) {
            0 => vec![0xcc],
            1 => vec![0xce],
            2 => vec![0xcd, 0x82 + self.byte() % 14],
            _ => vec![0xcd, *self.random.pick(&[0x80, 0x80, 3, 4, 13, 14, 0x21, 0x90])],
        })
    }

    /// What ring 3 may ask about the machine.
    fn inspection(&mut self) -> Vec<Item> {
        let register = self.byte() & 7;
        let selector = self.selector();
        let offset = self.byte() & 0x7c;
        vec![match self.random.below(9) {
            0 => Item::new(vec![0x0f, 0xa2]),
            1 => Item::new(vec![0x0f, 0x31]),
            2 => Item::new(vec![0x0f, 0x01, 0xe0 | register]),
            3 => Item::new(vec![0x0f, 0x00, *self.random.pick(&[0xc0, 0xc8]) | register]),
            4 => Item::new(vec![0x8c, 0xc0 | self.byte() & 0x2f]),
            5 => Item::new(vec![0x0f, 0x01, 0x46 | *self.random.pick(&[0, 8]), offset]),
            6 => Item::new(vec![*self.random.pick(&[0x06, 0x0e, 0x16, 0x1e])]),
            _ => {
                let mut bytes = self.load(0, selector.into());
                let test = *self.random.pick(&[
                    [0x0f, 0x02, 0xc8],
                    [0x0f, 0x03, 0xd0],
                    [0x0f, 0x00, 0xe0],
                    [0x0f, 0x00, 0xe8],
                ]);
                bytes.extend(test);
                Item::new(bytes)
            }
        }]
    }

    /// FXRSTOR, FNINIT, EMMS, FLDCW, LDMXCSR.
    fn floating_state(&mut self) -> Vec<Item> {
        let image = |field: u8, address: u32| {
            [&[0x0f, 0xae, 0x05 | field << 3][..], &address.to_le_bytes()].concat()
        };
        vec![Item::new(match self.random.below(4) {
            0 if self.mode.bits() == 32 => image(1, layout::FLOATING),
            1 if self.mode.bits() == 32 => image(2, layout::FLOATING + 24),
            2 => vec![0x0f, 0x77],
            _ => vec![0xdb, 0xe3],
        })]
    }

    fn control_register(&mut self) -> Vec<Item> {
        let register = *self.random.pick(&[0u8, 1, 2]);
        let read = |number: u8| [0x0f, 0x20, 0xc0 | number << 3 | register];
        let write = |number: u8| [0x0f, 0x22, 0xc0 | number << 3 | register];
        let (number, bit) = match self.random.below(2) {
            0 => (0, *self.random.pick(&CR0_BITS)),
            _ => (4, *self.random.pick(&CR4_BITS)),
        };
        let bit = if self.repertoire.kept_out.beyond_ring_3 { bit & !OSFXSR } else { bit };
        let flip = self.wide(&[&[0x81, 0xf0 | register][..], &bit.to_le_bytes()].concat());
        vec![match self.random.below(9) {
            0..=2 => Item::new([&read(number)[..], &flip, &write(number)].concat()),
            3 | 4 => Item::new([&read(3)[..], &write(3)].concat()),
            5 => Item::new(read(*self.random.pick(&[0, 2, 3, 4])).to_vec()),
            6 => Item::new(write(2).to_vec()),
            7 => Item::new(vec![0x0f, 0x06]),
            // lmsw: MP, EM and TS
            _ => Item::new(vec![0x0f, 0x01, 0xf0 | register]),
        }]
    }

    /// Turns a bit of a data page's entry, in both directories, and tells the CPU.
    fn page_edit(&mut self, paging: Paging) -> Vec<Item> {
        if paging == Paging::Off || self.mode != Mode::Kernel {
            return vec![self.stack_instruction()];
        }
        let linear = layout::DATA + self.random.below(7) as u32 * PAGE;
        let bit = 1u32 << *self.random.pick(&[0, 1, 1, 2, 5, 6, 12]);
        let mut bytes = Vec::new();
        for directory in 0..2 {
            let entry = entry_address(paging, directory, linear / PAGE);
            // xor dword [entry], bit
            bytes.extend([0x81, 0x35]);
            bytes.extend(entry.to_le_bytes());
            bytes.extend(bit.to_le_bytes());
        }
        if self.random.chance(60) {
            for linear in [linear, linear + layout::HIGH, linear - layout::DATA + layout::LOW] {
                // invlpg [linear]
                bytes.extend([0x0f, 0x01, 0x3d]);
                bytes.extend(linear.to_le_bytes());
            }
        } else {
            // mov eax, cr3; mov cr3, eax
            bytes.extend([0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]);
        }
        vec![Item::new(bytes)]
    }

    /// Writes a descriptor anew, and mostly loads it.
    fn descriptor_edit(&mut self) -> Vec<Item> {
        if self.mode != Mode::Kernel {
            return vec![self.stack_instruction()];
        }
        let selector = layout::RANDOM + 8 * self.random.below(16) as u16;
        let value = super::scene::descriptor(self.random);
        let address = layout::GDT + u32::from(selector);
        let mut bytes = Vec::new();
        for (at, half) in [(address, value as u32), (address + 4, (value >> 32) as u32)] {
            // mov dword [at], half
            bytes.extend([0xc7, 0x05]);
            bytes.extend(at.to_le_bytes());
            bytes.extend(half.to_le_bytes());
        }
        if self.random.chance(70) {
            bytes.extend(self.load(0, selector.into()));
            bytes.extend([0x8e, 0xc0 | *self.random.pick(&[0u8, 3, 4, 5]) << 3]);
        }
        vec![Item::new(bytes)]
    }

    /// LGDT, LIDT, LLDT, INVLPG, CLI, STI.
    fn tables(&mut self) -> Vec<Item> {
        let address = |opcode: &[u8], at: u32| [opcode, &at.to_le_bytes()].concat();
        vec![Item::new(match self.random.below(8) {
            0 if self.mode == Mode::Kernel => address(&[0x0f, 0x01, 0x15], super::kernel::GDTR),
            1 if self.mode == Mode::Kernel => address(&[0x0f, 0x01, 0x1d], super::kernel::IDTR),
            2 => {
                let selector = *self.random.pick(&[layout::LDT_SELECTOR, layout::LDT_SELECTOR, 0]);
                let mut bytes = self.load(0, selector.into());
                bytes.extend([0x0f, 0x00, 0xd0]);
                bytes
            }
            3 if self.mode == Mode::Kernel => {
                let linear = self.data_address();
                address(&[0x0f, 0x01, 0x3d], linear)
            }
            4 | 5 => vec![0xfa],
            // sti; nop; hlt waits for the next tick
            6 if self.random.chance(20) => vec![0xfb, 0x90, 0xf4],
            _ => vec![0xfb],
        })]
    }

    fn devices(&mut self) -> Vec<Item> {
        let value = self.byte();
        vec![match self.random.below(6) {
            0..=2 => Item::new(vec![0xe4, *self.random.pick(&PORTS)]),
            3 => Item::new(vec![0xb0, value, 0xe6, *self.random.pick(&QUIET_PORTS)]),
            4 => {
                let register = *self.random.pick(&[0x174, 0x175, 0x176, 0x277, 0x1a0, 0x8b, 0x1b]);
                let mut bytes = self.load(1, register);
                bytes.extend([0x0f, *self.random.pick(&[0x32, 0x30])]);
                Item::new(bytes)
            }
            _ => Item::new(vec![0x0f, *self.random.pick(&[0x09, 0x08])]),
        }]
    }

    /// A breakpoint on an item or on data.
    fn debug_registers(&mut self, at: usize) -> Vec<Item> {
        if self.mode != Mode::Kernel || self.random.chance(60) {
            return vec![self.stack_instruction()];
        }
        let number = self.byte() & 3;
        let kind = *self.random.pick(&[0u32, 1, 3]);
        let place = match kind {
            0 => linked(vec![0xb8], 4, LinkKind::Offset, &[], at + 3),
            _ => {
                let address = self.data_address();
                Item::new(self.load(0, address))
            }
        };
        let control = 0x400 | 2 << (number * 2) | kind << (16 + number * 4);
        let mut enable = vec![0x0f, 0x23, 0xc0 | number << 3];
        enable.extend(self.load(0, control));
        enable.extend([0x0f, 0x23, 0xf8]);
        vec![place, Item::new(enable)]
    }
}
