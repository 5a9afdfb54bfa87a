//! Guests that do their worst: random tables, modes and registers under system instructions. What
//! they get is up to the guest; the monitor has to survive it.

use crate::guest::{CODE, GDT, Guest, IDT, TSS};
use emulator::{Emulator, Outcome, step};
use machine::Vector;
use machine::cpu::{Cr0, Cr4, Segment, SegmentRegister};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Opcodes of which every one may follow: one and two bytes, with what prefixes they get.
const OPCODES: &[&[u8]] = &[
    &[0x9a],
    &[0xea],
    &[0xcb],
    &[0xca],
    &[0xcf],
    &[0xcd],
    &[0xcc],
    &[0xce],
    &[0xf1],
    &[0xff],
    &[0x8e],
    &[0x8c],
    &[0x06],
    &[0x07],
    &[0x16],
    &[0x17],
    &[0x1f],
    &[0xc4],
    &[0xc5],
    &[0x9c],
    &[0x9d],
    &[0xfa],
    &[0xfb],
    &[0xf4],
    &[0x6c],
    &[0x6d],
    &[0x6e],
    &[0x6f],
    &[0xec],
    &[0xed],
    &[0x63],
    &[0x0f, 0x00],
    &[0x0f, 0x01],
    &[0x0f, 0x02],
    &[0x0f, 0x03],
    &[0x0f, 0x06],
    &[0x0f, 0x20],
    &[0x0f, 0x21],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0x0f, 0xb2],
    &[0x0f, 0xb4],
    &[0x0f, 0xb5],
    &[0x0f, 0xa1],
    &[0x0f, 0xa9],
];
const PREFIXES: &[&[u8]] = &[&[], &[], &[], &[0x66], &[0x67], &[0xf3], &[0x66, 0xf3, 0x67]];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }

    /// An address or selector that means something more often than not.
    fn value(&mut self) -> u32 {
        let word = self.next() as u32;
        match self.next() % 6 {
            0 => word,
            1 => word & 0x7f,
            2 => *self.pick(&[CODE, GDT, IDT, TSS, 0x2_0000, 0x2_1000, 0x000a_0000, 0x000f_0000]),
            3 => word & 0x3f_ffff,
            4 => u32::MAX - (word & 7),
            _ => word & 0xffff,
        }
    }

    /// A descriptor: of a segment, a gate, a TSS or noise.
    fn descriptor(&mut self) -> u64 {
        let noise = self.next();
        match self.next() % 4 {
            0 => noise,
            1 => noise & !(0xff << 40) | (0x80 | noise >> 3 & 0x7f) << 40,
            2 => noise & 0x00cf_7f00_0000_ffff | 0x0000_8000_0000_0000,
            _ => {
                u64::from(self.value()) & 0xffff
                    | (self.next() & 0x78) << 16
                    | (self.next() & 0x7f | 0x80) << 40
            }
        }
    }
}

fn scramble(guest: &mut Guest, random: &mut Random) {
    // The first descriptors, which handlers and stacks come from, stay in most rounds.
    let first = if random.next().is_multiple_of(8) { 1 } else { 6 };
    for index in first..32 {
        let value = random.descriptor();
        if random.next().is_multiple_of(2) {
            guest.set_descriptor(index * 8, value);
        }
    }
    for vector in 0..=255u8 {
        if random.next().is_multiple_of(16) {
            let value = random.descriptor();
            guest.set_gate(vector, value);
        }
    }
    for offset in (0..0x68).step_by(4) {
        if random.next().is_multiple_of(16) {
            let value = random.value();
            guest.write_u32(TSS + offset, value);
        }
    }
    for register in 0..8 {
        guest.cpu.registers[register] = random.value();
    }
    for register in SegmentRegister::ALL {
        if random.next().is_multiple_of(6) {
            let selector = (random.next() & 0xff) as u16;
            guest.load(register, selector);
        }
    }
    set_mode(guest, random);
}

fn set_mode(guest: &mut Guest, random: &mut Random) {
    if random.next().is_multiple_of(3) {
        guest.enable_paging();
        for _ in 0..3 {
            let page = random.next() as u32 & 0x3f;
            guest.write_u32(0x2_1000 + page * 4, random.next() as u32);
        }
    }
    let flags = random.next() as u32;
    guest.set_flags(flags & 0x3f_7fd7);
    let virtual_8086 = guest.cpu.in_virtual_8086_mode();
    guest.cpu.cpl = if virtual_8086 { 3 } else { (random.next() & 3) as u8 };
    if random.next().is_multiple_of(12) {
        guest.cpu.tr = Segment::system(0x28, random.value(), random.value(), 0x83);
    }
    if random.next().is_multiple_of(5) {
        guest.cpu.cr4 = Cr4::from_bits_truncate(random.next() as u32 & 0x3c);
        guest.cpu.cr0 |= Cr0::AM;
    }
    if random.next().is_multiple_of(8) {
        guest.cpu.debug[7] = random.next() as u32 | 0x400;
        guest.cpu.debug[0] = random.value();
    }
}

#[test]
fn the_monitor_survives_any_guest() {
    let mut random = Random(SEED);
    let mut guest = Guest::new();
    let mut emulator = Emulator::new();
    let mut shutdowns = 0;
    for round in 0..20_000 {
        if round % 2 == 0 {
            guest = Guest::new();
            emulator = Emulator::new();
        }
        scramble(&mut guest, &mut random);
        guest.cpu.eip = CODE;
        let mut code = Vec::new();
        code.extend(*random.pick(PREFIXES));
        code.extend(*random.pick(OPCODES));
        code.extend(random.next().to_le_bytes());
        guest.code_anywhere(&code);
        let mut outcome =
            if round % 4 < 2 { emulator.run(&mut guest, 20) } else { step(&mut guest) };
        if random.next().is_multiple_of(4) {
            outcome = emulator::deliver_interrupt(&mut guest, Vector(random.next() as u8));
        }
        shutdowns += u32::from(outcome == Outcome::Shutdown);
        assert!(guest.cpu.cpl <= 3);
        assert!(!guest.cpu.in_virtual_8086_mode() || guest.cpu.cpl == 3, "round {round}");
        guest.cpu.halted = false;
    }
    assert!((2_000..18_000).contains(&shutdowns), "{shutdowns} of 20000 rounds shut down");
}

impl Guest {
    /// Puts code at CS:EIP as far as there is memory.
    fn code_anywhere(&mut self, bytes: &[u8]) {
        let at = u64::from(self.cpu.instruction_address().0);
        self.memory.write(machine::PhysicalAddress(at), bytes);
    }
}
