//! Random damage: no image may make the loader panic, and what it loads must make sense.
//!
//! A failure prints the image as a line for `corpus/boot.txt`.

use crate::damage::{Edit, attempt, samples};
use crate::{machine, source_of};
use machine::boot::{BootSource, ImageKind, Module};
use machine::memory::PageKind;
use machine::{Machine, PhysicalAddress};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Images tried for each sample.
const ROUNDS: u32 = 20_000;

/// Marsaglia's xorshift, so that a seed gives the same images everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Values near which comparisons and sums go wrong.
const EDGES: [u32; 14] = [
    0,
    1,
    0x1f,
    0x20,
    0xff,
    0x1000,
    0x9_fc00,
    0xa_0000,
    0x10_0000,
    0x3f_ffff,
    0x40_0000,
    0x7fff_ffff,
    0xffff_f000,
    u32::MAX,
];

/// Where the fields of each format are.
fn fields(kind: ImageKind) -> std::ops::Range<usize> {
    if kind == ImageKind::LinuxBzImage { 0x1f1..0x26c } else { 0..0x140 }
}

fn edit(random: &mut Random, kind: ImageKind, size: usize) -> Edit {
    let range = fields(kind);
    let at = match random.below(4) {
        0 => random.below(size),
        1 => size.saturating_sub(1 + random.below(130)),
        _ => range.start + random.below(range.len()),
    };
    match random.below(8) {
        0 => Edit::Truncate(random.below(size)),
        1 | 2 => Edit::Set(at, vec![random.next() as u8]),
        3 => Edit::Set(at & !1, (random.next() as u16).to_le_bytes().to_vec()),
        4 => Edit::Set(at & !3, (random.next() as u32).to_le_bytes().to_vec()),
        _ => {
            let value = random.pick(&EDGES).wrapping_add(random.below(3) as u32).wrapping_sub(1);
            Edit::Set(at & !3, value.to_le_bytes().to_vec())
        }
    }
}

/// What must hold of a machine that an image was loaded into.
fn check(machine: &Machine) {
    let cpu = &machine.cpu;
    let entry = PhysicalAddress(cpu.instruction_address().0.into());
    assert!(matches!(machine.memory.page_kind(entry), PageKind::Ram(_)), "entry {entry}");
    let table = PhysicalAddress(cpu.gdtr.base.into());
    assert!(matches!(machine.memory.page_kind(table), PageKind::Ram(_)), "GDT {table}");
    assert!(cpu.segments.iter().all(|segment| segment.is_flat()));
}

fn boot(machine: &mut Machine, kind: Option<ImageKind>, image: &[u8]) -> bool {
    let modules = vec![Module { command_line: "module".to_owned(), bytes: vec![1; 5000] }];
    let source = source_of(ImageKind::Flat, image.to_vec());
    let source = BootSource { kind, modules, command_line: "x y".to_owned(), ..source };
    match attempt(machine, &source) {
        Ok(()) => check(machine),
        Err(reason) => {
            assert!(!reason.is_empty());
            return false;
        }
    }
    true
}

#[test]
fn no_damage_makes_the_loader_panic() {
    let seed = 0x5eed_0000_b007_1386;
    let mut random = Random(seed);
    let mut machine = machine(4);
    for (name, kind, sample) in samples() {
        let mut loaded = 0;
        for round in 0..ROUNDS {
            let count = 1 + random.below(4);
            let edits: Vec<_> = (0..count).map(|_| edit(&mut random, kind, sample.len())).collect();
            let mut image = sample.clone();
            edits.iter().for_each(|edit| edit.apply(&mut image));
            let kind = (round % 2 == 0).then_some(kind);
            let result = catch_unwind(AssertUnwindSafe(|| boot(&mut machine, kind, &image)));
            let Ok(result) = result else {
                let edits: Vec<_> = edits.iter().map(ToString::to_string).collect();
                panic!("seed {seed:#x}, round {round}: {name} {}", edits.join(" "));
            };
            loaded += u32::from(result);
        }
        // Both ways through the loader were taken.
        assert!((ROUNDS / 20..ROUNDS).contains(&loaded), "{name}: {loaded} of {ROUNDS} loaded");
    }
}

#[test]
fn no_random_bytes_make_the_loader_panic() {
    let mut random = Random(0x1bad_b002_5372_6448);
    let mut machine = machine(4);
    for _ in 0..2000 {
        let size = random.below(2048);
        let image: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
        for kind in [ImageKind::Multiboot, ImageKind::LinuxBzImage] {
            assert!(!boot(&mut machine, Some(kind), &image), "{kind}: random bytes were loaded");
        }
    }
}
