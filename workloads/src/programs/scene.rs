//! What surrounds the code of a program, and the states in which blocks begin.

use super::code::{Generator, Repertoire, data_address};
use super::layout::{self, PAGE};
use super::tables::usual_entry;
use super::{
    Block, Gate, Handler, Item, Link, LinkKind, Mode, Page, Paging, Policy, Program, Random, Slot,
};
use crate::runtime::segment;
use iced_x86::InstructionInfoFactory;

/// CR0 and CR4 beside the mode: NE and MP, WP, AM; PSE, PGE, OSFXSR and OSXMMEXCPT.
const NUMERIC: u32 = 0x22;
const CR0_EXTRA: [u32; 2] = [1 << 16, 1 << 18];
const SSE: u32 = 0x600;
const CR4_EXTRA: [u32; 4] = [1 << 4, 1 << 7, 1 << 3, 1 << 2];

/// EFLAGS.AC.
pub(super) const AC: u32 = 1 << 18;

/// The most instructions of a block, idioms aside.
const LONGEST: u64 = 14;

impl Program {
    /// The program that belongs to `seed`, made of what `repertoire` allows.
    #[must_use]
    pub fn generate(seed: u64, repertoire: &Repertoire<'_>) -> Program {
        let random = &mut Random::new(seed);
        let rare = !repertoire.kept_out.rare;
        let off = if rare { Paging::Off } else { Paging::Plain };
        let plain = Paging::Plain;
        let paging = *random.pick(&[off, plain, plain, plain, Paging::Wide]);
        let mut program = Program {
            seed,
            rounds: 1 + random.below(4) as u32,
            paging,
            cr0: NUMERIC | some_of(random, &CR0_EXTRA),
            cr4: SSE | some_of(random, &CR4_EXTRA) & some_of(random, &CR4_EXTRA),
            restores: random.chance(60),
            data: random.number(),
            pages: Vec::new(),
            descriptors: Vec::new(),
            gates: Vec::new(),
            handlers: handlers(random),
            blocks: Vec::new(),
        };
        program.pages = pages(random, &program, rare);
        program.descriptors = descriptors(random);
        program.gates = gates(random);
        let floating = random.chance(35);
        for number in 0..2 + random.below(14) {
            let block = block(random, repertoire, paging, (floating, number as u32));
            program.blocks.push(block);
            if program.places().is_err() {
                program.blocks.pop();
                break;
            }
        }
        program
    }
}

fn some_of(random: &mut Random, bits: &[u32]) -> u32 {
    bits.iter().filter(|_| random.chance(50)).sum()
}

/// Entries of data, stack and user code that are not present, or not writable, or not the user's, or
/// lead elsewhere.
fn pages(random: &mut Random, program: &Program, rare: bool) -> Vec<Page> {
    const BITS: [u32; 9] = [0, 0, 1, 1, 2, 5, 6, 12, 13];
    let mut pages = Vec::new();
    if program.paging == Paging::Off || random.chance(15) {
        return pages;
    }
    let usual = layout::DATA / PAGE..layout::END / PAGE;
    let low = layout::LOW / PAGE..(layout::LOW + layout::END - layout::DATA) / PAGE;
    let candidates: Vec<u32> =
        (layout::USER_STACK / PAGE..layout::DATA / PAGE).chain(usual).chain(low).collect();
    let last_of_data = layout::COUNTERS / PAGE;
    for directory in 0..2 {
        for &number in candidates.iter().filter(|&&number| number != last_of_data) {
            if !random.chance(12) {
                continue;
            }
            // How often code is fetched is nobody's business, unless from a device.
            let is_data = rare && (layout::DATA..layout::KERNEL_TEXT).contains(&(number * PAGE));
            let entry = match random.below(24) {
                // The text screen, and what is behind all memory.
                0 if is_data => 0xb_8007,
                1 if is_data => 0x7000_0007,
                _ => usual_entry(program, number) ^ 1 << *random.pick(&BITS),
            };
            pages.push(Page { directory, number, entry });
        }
    }
    pages
}

/// A descriptor of any kind, mostly one that can be loaded.
pub(super) fn descriptor(random: &mut Random) -> u64 {
    let base = *random.pick(&[0u32, 0, 0x10, layout::DATA, layout::DATA - 0x1000, 0xffff_f000]);
    let limit = *random.pick(&[0xf_ffff, 0xf_ffff, 0x12f, 0xffff, 0x7fff, 0x1000, 0]);
    let ring = *random.pick(&[0u8, 3, 3]);
    let kind = *random.pick(&[
        0x92u8, 0x93, 0x93, 0x91, 0x90, 0x97, 0x96, 0x9b, 0x9a, 0x99, 0x9f, 0x9e, 0x12, 0x8c, 0x82,
    ]);
    let flags = *random.pick(&[0xcu8, 0xc, 0x4, 0x0, 0x8]);
    if kind == 0x8c {
        // A call gate to code of ring 0, which may do with it as it likes.
        return segment_of_gate(random, ring);
    }
    let value = segment(base, limit, kind | ring << 5, flags);
    if random.chance(4) { value ^ 1 << random.below(64) } else { value }
}

/// A call gate into the kernel's text (Intel SDM volume 3, 5.8.3).
fn segment_of_gate(random: &mut Random, ring: u8) -> u64 {
    let offset = u64::from(layout::KERNEL_TEXT) + random.below(0x80);
    let parameters = *random.pick(&[0u64, 0, 2]);
    let selector = u64::from(layout::KERNEL_CODE);
    let access = 0x8c | u64::from(ring) << 5;
    offset & 0xffff
        | selector << 16
        | (parameters | access << 8) << 32
        | (offset & 0xffff_0000) << 32
}

fn descriptors(random: &mut Random) -> Vec<Slot> {
    let global = (0..16).map(|number| layout::RANDOM + number * 8);
    let local = (0..8).map(|number| (number * 8) | 4);
    global.chain(local).map(|selector| Slot { selector, value: descriptor(random) }).collect()
}

fn gates(random: &mut Random) -> Vec<Gate> {
    let mut gates = Vec::new();
    let vectors = [0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19, 0x80, 0x82, 0x83, 0x84];
    for vector in vectors {
        let (access, selector) = match random.below(120) {
            0..=9 => (0x8f, layout::KERNEL_CODE),
            10..=19 => (0xee, layout::KERNEL_CODE),
            20 => (0x86, layout::BASED_CODE),
            21 => (0xe7, layout::BASED_CODE),
            22 | 23 => (0xe5, layout::SECOND_TSS_SELECTOR),
            24 => (0x0e, layout::KERNEL_CODE),
            25 => (0xee, layout::USER_CODE),
            _ => continue,
        };
        gates.push(Gate { vector, access, selector });
    }
    gates
}

fn handlers(random: &mut Random) -> Vec<Handler> {
    let mut handlers = Vec::new();
    for vector in 0u8..=255 {
        let policy = match vector {
            1 | 3 | 4 | 0x80 | 0x82..=0x8f if random.chance(80) => Policy::Return,
            14 if random.chance(60) => Policy::Map,
            0..=31 if random.chance(25) => Policy::Skip(1 + random.below(5) as u8),
            0..=31 if random.chance(5) => Policy::Return,
            _ => continue,
        };
        handlers.push(Handler { vector, policy });
    }
    handlers
}

/// A selector for a data segment, mostly.
pub(super) fn selector(random: &mut Random, repertoire: &Repertoire<'_>, mode: Mode) -> u16 {
    let ring = if mode.is_kernel() { 0 } else { 3 };
    let usual = match mode {
        Mode::Kernel | Mode::User => layout::USER_DATA,
        Mode::Kernel16 | Mode::User16 => layout::USER_DATA_16,
        Mode::Virtual8086 => return layout::LOW_DATA + random.below(0x100) as u16,
    };
    match random.below(12) {
        0..=3 => usual,
        4..=6 => (layout::RANDOM + 8 * random.below(16) as u16) | ring,
        7 | 8 => (8 * random.below(8) as u16) | 4 | ring,
        9 => layout::USER_DATA,
        10 if !repertoire.kept_out.beyond_ring_3 => random.below(4) as u16,
        10 => 0,
        _ => layout::KERNEL_CODE + random.below(0x80) as u16,
    }
}

fn mode(random: &mut Random, paging: Paging, rare: bool) -> Mode {
    match random.below(if rare { 100 } else { 83 }) {
        0..=39 => Mode::User,
        40..=82 => Mode::Kernel,
        83..=88 => Mode::User16,
        89..=94 => Mode::Kernel16,
        _ if paging == Paging::Off => Mode::User,
        _ => Mode::Virtual8086,
    }
}

fn block(
    random: &mut Random,
    repertoire: &Repertoire<'_>,
    paging: Paging,
    (floating, number): (bool, u32),
) -> Block {
    let rare = !repertoire.kept_out.rare;
    let mode = mode(random, paging, rare);
    let (code, stack, data) = match mode {
        Mode::Kernel => (layout::KERNEL_CODE, layout::KERNEL_DATA, layout::USER_DATA),
        Mode::Kernel16 => (layout::KERNEL_CODE_16, layout::KERNEL_DATA, layout::USER_DATA_16),
        Mode::User => (layout::USER_CODE, layout::USER_DATA, layout::USER_DATA),
        Mode::User16 => (layout::USER_CODE_16, layout::USER_DATA_16, layout::USER_DATA_16),
        Mode::Virtual8086 => (layout::LOW_CODE, layout::LOW_DATA, layout::LOW_DATA),
    };
    let segments = [(); 4].map(|()| match random.below(5) {
        0 => selector(random, repertoire, mode),
        _ => data,
    });
    let length = random.below(LONGEST);
    let directory = random.chance(40).then(|| random.below(2) as u8);
    Block {
        mode,
        directory: directory.filter(|_| paging != Paging::Off),
        gap: if random.chance(6) { random.below(0x800) as u32 } else { random.below(24) as u32 },
        flags: flags(random) & if rare { u32::MAX } else { !AC },
        code_and_stack: [code, stack],
        data: segments,
        registers: registers(random, mode),
        code: items(random, repertoire, (mode, paging, floating, number), length),
    }
}

fn flags(random: &mut Random) -> u32 {
    let mut flags = 2 | random.number() as u32 & 0x8d5;
    for (flag, percent) in [
        (0x200, 40),
        (0x400, 12),
        (0x3000, 10),
        (0x4000, 2),
        (0x4_0000, 4),
        (0x20_0000, 5),
        (0x100, 2),
    ] {
        if random.chance(percent) {
            flags |= flag;
        }
    }
    flags
}

fn registers(random: &mut Random, mode: Mode) -> [u32; 8] {
    let mut registers = [(); 8].map(|()| match random.below(3) {
        0 => random.below(64) as u32,
        1 => data_address(random, mode),
        _ => random.number() as u32,
    });
    for pointer in [3, 5, 6, 7] {
        if random.chance(92) {
            registers[pointer] = data_address(random, mode);
        }
    }
    let stack = match mode {
        Mode::Kernel | Mode::User => layout::USER_STACK + PAGE,
        Mode::Kernel16 | Mode::User16 | Mode::Virtual8086 => 6 * PAGE,
    };
    let within = match random.below(12) {
        0 => random.below(u64::from(PAGE)) as u32,
        1 => 4 * random.below(8) as u32,
        _ => 0x400 + 4 * random.below(0x100) as u32,
    };
    registers[4] = stack + within;
    registers
}

fn items(
    random: &mut Random,
    repertoire: &Repertoire<'_>,
    (mode, paging, floating, number): (Mode, Paging, bool, u32),
    length: u64,
) -> Vec<Item> {
    let info = InstructionInfoFactory::new();
    let mut generator = Generator { repertoire, random, mode, floating, info };
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..=length {
        if generator.random.chance(22) {
            let (at, count) = (items.len(), length as usize + 1);
            items.extend(generator.idiom(at, count.max(at), paging));
        } else {
            items.push(generator.instruction());
        }
    }
    if generator.random.chance(40) && mode.bits() == 32 {
        items.push(again(number));
        items.push(jump_back());
    }
    choose_targets(random, &mut items);
    items
}

/// shr dword [counter], 1
fn again(number: u32) -> Item {
    let counter = layout::COUNTERS + number * 4;
    Item::new([&[0xd1, 0x2d][..], &counter.to_le_bytes()].concat())
}

/// jnz to the beginning
fn jump_back() -> Item {
    let link = Link { at: 2, size: 4, kind: LinkKind::Relative, target: 0 };
    Item { bytes: vec![0x0f, 0x85, 0, 0, 0, 0], link: Some(link) }
}

/// Branches go forward, mostly; idioms have chosen already.
fn choose_targets(random: &mut Random, items: &mut [Item]) {
    let end = items.len();
    for (number, item) in items.iter_mut().enumerate() {
        let Some(link) = &mut item.link else { continue };
        if link.kind != LinkKind::Relative || number + 1 == end {
            link.target = link.target.min(end);
            continue;
        }
        let forward = end - number;
        link.target = match random.below(12) {
            0 => random.below(number as u64 + 1) as usize,
            _ => number + 1 + random.below(forward as u64) as usize,
        };
    }
}
