//! From the generator's straight code to what a translator has trouble with: loops, calls and
//! returns, jumps backward, ESP-based operands, system instructions, code that writes to code.

use crate::case::{Case, Code, Item, Link};
use crate::generator::{self, Mix};
use crate::guest::{FS_BASED, GS_LIMITED, KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
use crate::layout::{CODE, DATA, Flavour, PAGE, STACK};
use crate::random::Random;
use crate::rules;
use crate::scene::{ARENA, Scene};
use iced_x86::{Decoder, DecoderOptions};

/// What ends code of ring 0 in place of HLT.
const INT3: u8 = 0xcc;

/// A case in its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Twisted {
    pub(crate) case: Case,
    pub(crate) scene: Scene,
}

impl Twisted {
    /// Lays the code out.
    pub(crate) fn code(&self) -> Code {
        let mut code = self.case.code(ARENA);
        if self.scene.ring0 {
            let first = (code.boundaries[0] - CODE) as usize;
            let last = (code.boundaries[code.boundaries.len() - 1] - CODE) as usize;
            let length = code.page.len();
            code.page[..first.min(length)].fill(INT3);
            code.page[last.min(length)..].fill(INT3);
        }
        code
    }
}

/// Makes the case that belongs to `seed`.
pub(crate) fn case(seed: u64) -> Twisted {
    let mut random = Random::new(seed ^ 0x7157_7157);
    let mix = if random.chance(60) { Mix::Integer } else { Mix::All };
    let mut case = generator::case(&[Flavour::Flat], mix, seed, ARENA);
    let scene = Scene::new(seed);
    let mut twister = Twister { random, items: std::mem::take(&mut case.items), scene };
    for _ in 0..twister.random.below(6) {
        twister.add();
    }
    if twister.random.chance(25) {
        twister.add_function();
    }
    if twister.random.chance(30) {
        twister.add_loop();
    }
    twister.jump_backward();
    if twister.scene.warm {
        twister.touch_pages();
    }
    let Twister { mut items, scene, .. } = twister;
    if scene.ring0 || scene.io_privilege == 3 {
        for item in &mut items {
            let decoded = Decoder::new(32, &item.bytes, DecoderOptions::NONE).decode();
            item.dropped |= rules::is_device_access(&decoded);
        }
    }
    case.items = items;
    keep_on_the_page(&mut case);
    Twisted { case, scene }
}

/// The generator had fewer items in mind when it chose where the code begins.
fn keep_on_the_page(case: &mut Case) {
    let length: usize = case.items.iter().map(|item| item.bytes.len()).sum();
    let room = (CODE + PAGE - case.start) as usize;
    if room < 0x200 && length > room {
        case.start = CODE + PAGE - (length as u32).min(PAGE) + (case.start & 15);
    }
}

struct Twister {
    random: Random,
    items: Vec<Item>,
    scene: Scene,
}

impl Twister {
    fn place(&mut self) -> usize {
        self.random.below(self.items.len() as u32 + 1) as usize
    }

    /// Inserts an item; links go on leading to what they led to.
    fn insert(&mut self, at: usize, item: Item) {
        for link in self.items.iter_mut().filter_map(|item| item.link.as_mut()) {
            if link.target >= at {
                link.target += 1;
            }
        }
        self.items.insert(at, item);
    }

    fn insert_all(&mut self, at: usize, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.insert(at, item);
        }
    }

    fn add(&mut self) {
        let at = self.place();
        let items = match self.random.below(12) {
            0..=3 => vec![self.stack_operand()],
            4..=6 => vec![self.stack_instruction()],
            7 => self.segment_moves(),
            8 => vec![self.system_instruction()],
            9 => self.far_transfer(at),
            10 => vec![self.code_write(at)],
            _ => self.pushed_flags(),
        };
        self.insert_all(at, items);
    }

    /// An instruction with a memory operand relative to ESP.
    fn stack_operand(&mut self) -> Item {
        const OPCODES: [&[u8]; 24] = [
            &[0x8b],
            &[0x89],
            &[0x01],
            &[0x03],
            &[0x29],
            &[0x39],
            &[0x85],
            &[0x87],
            &[0x88],
            &[0x8a],
            &[0x66, 0x8b],
            &[0x66, 0x89],
            &[0xff],
            &[0x8f],
            &[0xf7],
            &[0x0f, 0xb6],
            &[0x0f, 0xaf],
            &[0x0f, 0xb1],
            &[0x0f, 0xc1],
            &[0xd9],
            &[0xdd],
            &[0x8d],
            &[0xc1],
            &[0x0f, 0x6f],
        ];
        let mut bytes = Vec::new();
        if self.random.chance(8) {
            bytes.push(self.random.pick(&[0x64, 0x65, 0x2e, 0x36, 0x3e, 0x26, 0xf0]));
        }
        bytes.extend(self.random.pick(&OPCODES));
        let index = if self.random.chance(80) { 0x24 } else { self.random.byte() & 0x38 | 4 };
        let reg = self.random.byte() & 0x38;
        if self.random.chance(70) {
            bytes.extend([0x44 | reg, index, self.random.byte() & 0x7c]);
        } else {
            bytes.extend([0x84 | reg, index]);
            bytes.extend((self.random.below(0x1000).wrapping_sub(0x800)).to_le_bytes());
        }
        bytes.extend(self.random.integer().to_le_bytes());
        cut(bytes)
    }

    fn stack_instruction(&mut self) -> Item {
        let register = self.random.byte() & 7;
        let small = self.random.byte() & 0x7c;
        let wide = self.random.integer().to_le_bytes();
        cut(match self.random.below(16) {
            0..=2 => vec![0x50 | register],
            3..=5 => vec![0x58 | register],
            6 => vec![0x66, self.random.pick(&[0x50, 0x58]) | register],
            7 => vec![self.random.pick(&[0x60, 0x61])],
            8 => vec![0x9c],
            9 => vec![0x83, self.random.pick(&[0xc4, 0xec]), small],
            10 => vec![0x8d, 0x64, 0x24, small],
            11 => vec![0xc8, small, 0, self.random.pick(&[0, 0, 1, 2, 31])],
            12 => vec![0xc9],
            13 => vec![0x68, wide[0], wide[1], wide[2], wide[3]],
            14 => vec![0x6a, wide[0]],
            _ => vec![0x89, self.random.pick(&[0xe0, 0xe5, 0xec])],
        })
    }

    fn segment_moves(&mut self) -> Vec<Item> {
        let data = if self.scene.ring0 { KERNEL_DATA } else { USER_DATA };
        let selector = self.random.pick(&[data, data, FS_BASED, GS_LIMITED, 0]);
        match self.random.below(4) {
            0 => {
                // mov eax, selector; mov sreg, eax
                let sreg = self.random.pick(&[0, 3, 4, 5, 4, 5]);
                let [low, high] = selector.to_le_bytes();
                vec![
                    Item::new(vec![0xb8, low, high, 0, 0]),
                    Item::new(vec![0x8e, 0xc0 | sreg << 3]),
                ]
            }
            1 => {
                let push =
                    self.random.pick(&[&[0x06][..], &[0x16], &[0x1e], &[0x0f, 0xa0], &[0x0e]]);
                let pop = self.random.pick(&[
                    &[0x07][..],
                    &[0x17],
                    &[0x1f],
                    &[0x0f, 0xa1],
                    &[0x0f, 0xa9],
                ]);
                vec![Item::new(push.to_vec()), Item::new(pop.to_vec())]
            }
            2 => vec![Item::new(vec![0x8c, 0xc0 | self.random.byte() & 0x2f])],
            _ => vec![cut(vec![0x8c, 0x43 | self.random.byte() & 0x28, self.random.byte() & 0x7c])],
        }
    }

    fn system_instruction(&mut self) -> Item {
        let offset = self.random.byte() & 0x7c;
        let modrm = |field: u8| [0x43 | field << 3, offset];
        let kind = self.random.below(if self.scene.ring0 { 18 } else { 9 });
        let field = self.random.byte() & 7;
        cut(match kind {
            0 => [&[0x0f, 0x01][..], &modrm(0)].concat(),
            1 => [&[0x0f, 0x01][..], &modrm(1)].concat(),
            2 => [&[0x0f, 0x01][..], &modrm(4)].concat(),
            3 => [&[0x0f, 0x00][..], &modrm(self.random.byte() & 1)].concat(),
            4 => vec![
                0x0f,
                self.random.pick(&[0, 0, 1]),
                0xc0 | (self.random.pick(&[0, 1, 4])) << 3 | field,
            ],
            5 => vec![0x0f, 0xa2],
            6 => vec![self.random.pick(&[0xfa, 0xfb])],
            7 => vec![0x0f, self.random.pick(&[2, 3]), 0xc0 | self.random.byte() & 0x3f],
            8 => vec![0x0f, 0x00, 0xe0 | self.random.byte() & 0xf],
            9..=12 => vec![0x0f, 0x20, 0xc0 | self.random.pick(&[0, 2, 3, 4]) << 3 | field],
            13 => vec![0x0f, 0x06],
            14 => [&[0x0f, 0x01][..], &modrm(7)].concat(),
            // mov eax, cr3; mov cr3, eax
            15 => return Item::new(vec![0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
            16 => vec![0x0f, 0x22, 0xd0 | field],
            _ => vec![0x0f, self.random.pick(&[0x21, 0x23]), 0xc0 | self.random.byte() & 0x3f],
        })
    }

    /// push flags, CS, label and IRET; or push CS, label and RETF; or JMP to CS:label.
    fn far_transfer(&mut self, at: usize) -> Vec<Item> {
        let code = if self.scene.ring0 { KERNEL_CODE } else { USER_CODE };
        let [low, high] = code.to_le_bytes();
        let linked = |opcode: u8, size: usize| Item {
            bytes: [&[opcode][..], &[0; 4], &[low, high][..size - 5]].concat(),
            link: Some(Link { at: 1, size: 4, relative: false, target: at }),
            dropped: false,
        };
        // Their target is what follows: inserting them moves it along.
        match self.random.below(4) {
            0 => vec![
                Item::new(vec![0x9c]),
                Item::new(vec![0x0e]),
                linked(0x68, 5),
                Item::new(vec![0xcf]),
            ],
            1 => vec![Item::new(vec![0x0e]), linked(0x68, 5), Item::new(vec![0xcb])],
            2 => vec![linked(0xea, 7)],
            _ => vec![linked(0x9a, 7)],
        }
    }

    /// mov byte [label], opcode of one byte; mostly of what comes soon.
    fn code_write(&mut self, at: usize) -> Item {
        let ahead = self.items.len() - at;
        let target = match self.random.below(4) {
            0 => self.random.below(self.items.len() as u32 + 1) as usize,
            _ => at + self.random.below(ahead.min(2) as u32 + 1) as usize,
        };
        let opcode = self.random.pick(&[0x90, 0x40, 0x41, 0x4b, 0x98, 0xf8, 0xf9, 0x0f]);
        Item {
            bytes: vec![0xc6, 0x05, 0, 0, 0, 0, opcode],
            link: Some(Link { at: 2, size: 4, relative: false, target }),
            dropped: false,
        }
    }

    /// push flags; popf or popfw, with a careful look at what it may change.
    fn pushed_flags(&mut self) -> Vec<Item> {
        let flags = if self.random.chance(50) {
            self.random.next() as u32 & 0xcd5
        } else {
            self.random.next() as u32
        };
        let mut push = vec![0x68];
        push.extend(flags.to_le_bytes());
        let pop = self.random.pick(&[&[0x9d][..], &[0x9d], &[0x66, 0x9d]]);
        vec![Item::new(push), Item::new(pop.to_vec())]
    }

    /// Makes the tail a function that is called from some places.
    fn add_function(&mut self) {
        if self.items.len() < 2 {
            return;
        }
        let first = 1 + self.random.below(self.items.len() as u32 - 1) as usize;
        let ret = self.random.pick(&[
            &[0xc3][..],
            &[0xc3],
            &[0xc2, 4, 0],
            &[0xc2, 0xfc, 0xff],
            &[0x66, 0xc3],
        ]);
        self.items.push(Item::new(ret.to_vec()));
        let end = if self.scene.ring0 { INT3 } else { crate::layout::HLT };
        self.insert(first, Item::new(vec![end]));
        for calls in 0..1 + self.random.below(3) as usize {
            let at = self.random.below(first as u32) as usize;
            let target = first + 1 + calls;
            let link = Link { at: 1, size: 4, relative: true, target };
            let call = Item { bytes: vec![0xe8, 0, 0, 0, 0], link: Some(link), dropped: false };
            self.insert(at, call);
        }
    }

    /// mov ecx, count; …; loop, loope, loopne, or dec ecx; jnz; or jecxz out and jmp.
    fn add_loop(&mut self) {
        let first = self.place();
        let last = first + self.random.below((self.items.len() - first) as u32 + 1) as usize;
        let count = 1 + self.random.below(12);
        let back = |opcode: &[u8], size: usize, target: usize| Item {
            bytes: [opcode, &[0; 4][..size]].concat(),
            link: Some(Link { at: opcode.len(), size, relative: true, target }),
            dropped: false,
        };
        // The load comes before `first`, so the target moves by one.
        let top = first;
        let items = match self.random.below(4) {
            0 => vec![back(&[self.random.pick(&[0xe0, 0xe1, 0xe2])], 1, top)],
            1 => vec![Item::new(vec![0x49]), back(&[0x0f, 0x85], 4, top)],
            2 => vec![Item::new(vec![0x49]), back(&[0x75], 1, top)],
            _ => {
                let out = Item {
                    bytes: vec![0xe3, 0],
                    link: Some(Link { at: 1, size: 1, relative: true, target: last + 3 }),
                    dropped: false,
                };
                vec![Item::new(vec![0x49]), out, back(&[0xeb], 1, top)]
            }
        };
        let number = items.len();
        for link in self.items.iter_mut().filter_map(|item| item.link.as_mut()) {
            if link.target > last {
                link.target += number;
            }
        }
        self.items.splice(last..last, items);
        let mut load = vec![0xb9];
        load.extend(count.to_le_bytes());
        self.insert(first, Item::new(load));
    }

    /// Some of the jumps that go forward go backward instead.
    fn jump_backward(&mut self) {
        for index in 0..self.items.len() {
            let is_short = self.items[index].bytes.first().is_some_and(|byte| byte & 0xf0 == 0x70);
            if is_short && self.random.chance(15) {
                let target = self.random.below(index as u32 + 1) as usize;
                if let Some(link) = &mut self.items[index].link {
                    link.target = target;
                }
            }
        }
    }

    /// Exchanges a byte of each page with AL, twice: nothing changes, but the translator's tables
    /// know the pages.
    fn touch_pages(&mut self) {
        for offset in [DATA, DATA + PAGE, STACK] {
            let mut bytes = vec![0x86, 0x05];
            bytes.extend((ARENA + offset + 0x123).to_le_bytes());
            for _ in 0..2 {
                self.insert(0, Item::new(bytes.clone()));
            }
        }
    }
}

/// As many of the bytes as the instruction has.
fn cut(mut bytes: Vec<u8>) -> Item {
    let mut decoder = Decoder::new(32, &bytes, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if !instruction.is_invalid() {
        bytes.truncate(instruction.len());
    }
    Item::new(bytes)
}
