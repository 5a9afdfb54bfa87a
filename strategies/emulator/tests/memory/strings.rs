//! String instructions against a model that moves one element at a time: all forms and prefixes,
//! both directions, both address sizes, every overlap.

use crate::guest::{CODE, Guest};
use machine::cpu::{Eflags, register::*};

const AREA: u32 = 0x1_8000;
const AREA_BYTES: usize = 0x400;
const EAX_VALUE: u32 = 0x0403_0207;

/// One form to be tried.
#[derive(Clone, Copy, Debug)]
struct Form {
    opcode: u8,
    prefix: Option<u8>,
    size: u32,
    down: bool,
    narrow: bool,
}

impl Form {
    fn code(self) -> Vec<u8> {
        let mut code = Vec::new();
        code.extend(self.narrow.then_some(0x67));
        code.extend((self.size == 2).then_some(0x66));
        code.extend(self.prefix);
        code.push(self.opcode | u8::from(self.size > 1));
        code
    }

    fn moves_source(self) -> bool {
        matches!(self.opcode, 0xa4 | 0xa6 | 0xac)
    }

    fn moves_target(self) -> bool {
        self.opcode != 0xac
    }
}

/// Every form once.
fn forms() -> impl Iterator<Item = Form> {
    let opcodes = [0xa4, 0xa6, 0xaa, 0xac, 0xae];
    opcodes.into_iter().flat_map(|opcode| {
        [None, Some(0xf3), Some(0xf2)].into_iter().flat_map(move |prefix| {
            (0..12).map(move |bits| Form {
                opcode,
                prefix,
                size: [1, 2, 4][bits % 3],
                down: bits / 3 % 2 == 1,
                narrow: bits / 6 == 1,
            })
        })
    })
}

/// The state that string instructions work on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Model {
    area: Vec<u8>,
    eax: u32,
    ecx: u32,
    esi: u32,
    edi: u32,
    zero: bool,
}

impl Model {
    fn mask(form: Form) -> u32 {
        if form.narrow { 0xffff } else { u32::MAX }
    }

    fn at(&self, form: Form, register: u32) -> usize {
        // 16-bit addresses meet the area through a segment that begins 64 KiB lower.
        let base = if form.narrow { 0x1_0000 } else { 0 };
        ((register & Model::mask(form)) + base - AREA) as usize
    }

    fn load(&self, form: Form, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes[..form.size as usize].copy_from_slice(&self.area[at..at + form.size as usize]);
        u32::from_le_bytes(bytes)
    }

    fn element(&mut self, form: Form) {
        let size = form.size as usize;
        let kept = if size == 4 { 0 } else { u32::MAX << (8 * size) };
        let (from, to) = (self.esi, self.edi);
        let value = if form.moves_source() {
            self.load(form, self.at(form, from))
        } else {
            self.eax & !kept
        };
        match form.opcode {
            0xa4 | 0xaa => {
                let at = self.at(form, to);
                self.area[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            0xac => self.eax = self.eax & kept | value,
            _ => self.zero = value == self.load(form, self.at(form, to)),
        }
        let step = if form.down { form.size.wrapping_neg() } else { form.size };
        let mask = Model::mask(form);
        let advance =
            |register: &mut u32| *register = *register & !mask | register.wrapping_add(step) & mask;
        if form.moves_source() {
            advance(&mut self.esi);
        }
        if form.moves_target() {
            advance(&mut self.edi);
        }
    }

    fn run(&mut self, form: Form) {
        let Some(prefix) = form.prefix else { return self.element(form) };
        let mask = Model::mask(form);
        while self.ecx & mask != 0 {
            self.element(form);
            self.ecx = self.ecx & !mask | self.ecx.wrapping_sub(1) & mask;
            if matches!(form.opcode, 0xa6 | 0xae) && self.zero != (prefix == 0xf3) {
                break;
            }
        }
    }
}

/// Runs the form from `model` on a guest, which has to end as the model does.
fn compare(guest: &mut Guest, form: Form, mut model: Model, by_blocks: bool) {
    let code = form.code();
    guest.write(CODE, &code);
    guest.write(AREA, &model.area);
    guest.cpu.eip = CODE;
    for number in [0, 3] {
        guest.cpu.segments[number].base = if form.narrow { 0x1_0000 } else { 0 };
    }
    for (register, value) in
        [(EAX, model.eax), (ECX, model.ecx), (ESI, model.esi), (EDI, model.edi)]
    {
        guest.set(register, value);
    }
    guest.cpu.flags.set(Eflags::DF, form.down);
    guest.cpu.flags.set(Eflags::ZF, model.zero);
    if by_blocks {
        guest.run(1)
    } else {
        guest.step()
    };
    model.run(form);
    let after = Model {
        area: guest.read::<AREA_BYTES>(AREA).to_vec(),
        eax: guest.get(EAX),
        ecx: guest.get(ECX),
        esi: guest.get(ESI),
        edi: guest.get(EDI),
        zero: guest.cpu.flags.zero(),
    };
    assert_eq!(after, model, "{form:?}");
    assert_eq!(guest.cpu.eip, CODE + code.len() as u32, "{form:?}");
}

fn pattern() -> Vec<u8> {
    (0..AREA_BYTES).map(|at| [7, 2, 3, 4][at % 4] + u8::from(at % 41 == 0)).collect()
}

fn model(form: Form, from: u32, to: u32, count: u32) -> Model {
    let high = if form.narrow { 0xabcd_0000 } else { 0 };
    let start = if form.narrow { AREA - 0x1_0000 } else { AREA };
    Model {
        area: pattern(),
        eax: EAX_VALUE,
        ecx: if form.narrow { 0x1234_0000 } else { 0 } | count,
        esi: high | (start + from),
        edi: high | (start + to),
        zero: count.is_multiple_of(2),
    }
}

#[test]
fn every_form_does_what_one_element_at_a_time_does() {
    let mut guest = Guest::new();
    for form in forms() {
        for count in [0, 1, 2, 3, 10, 33] {
            for by_blocks in [false, true] {
                compare(&mut guest, form, model(form, 0x140, 0x240, count), by_blocks);
            }
        }
    }
}

#[test]
fn copies_onto_themselves_repeat_their_pattern() {
    let mut guest = Guest::new();
    for form in forms().filter(|form| form.opcode == 0xa4 && form.prefix == Some(0xf3)) {
        for distance in 0..40 {
            for to in [0x200 - 20 + distance, 0x200 + 20 - distance] {
                compare(&mut guest, form, model(form, 0x200, to, 37), true);
            }
        }
    }
}

#[test]
fn copies_across_pages_are_whole() {
    let mut guest = Guest::new();
    // cld; rep movsd with 3000 bytes, from and to the middle of pages.
    let bytes: Vec<u8> = (0..12_000u32).map(|at| ((at * 7) >> 3) as u8).collect();
    for (from, to) in [(0x4_0ffd, 0x5_0123), (0x4_0001, 0x4_0001 + 0x1000), (0x4_0fff, 0x4_0ffc)] {
        guest.write(from, &bytes);
        guest.write(CODE, &[0xf3, 0xa5]);
        guest.cpu.eip = CODE;
        guest.set(ECX, 3000);
        guest.set(ESI, from);
        guest.set(EDI, to);
        guest.run(1);
        assert_eq!(guest.get(ECX), 0);
        let copied = guest.read::<12_000>(to);
        // The middle distance copies the first page over and over.
        let expected = |at: usize| {
            if to == from + 0x1000 { bytes[at % 0x1000] } else { bytes[at] }
        };
        assert!((0..12_000).all(|at| copied[at] == expected(at)), "{from:#x} to {to:#x}");
    }
}

#[test]
fn sixteen_bit_addresses_wrap_between_elements() {
    let mut guest = Guest::new();
    for size in [1u32, 2, 4] {
        let form = Form { opcode: 0xaa, prefix: Some(0xf3), size, down: false, narrow: true };
        guest.write(CODE, &form.code());
        guest.cpu.eip = CODE;
        guest.cpu.segments[0].base = 0x4_0000;
        guest.set(EAX, 0x5555_5555);
        guest.set(ECX, 0xffff_0008);
        guest.set(EDI, 0x1_fff8);
        guest.run(1);
        let written = 8 * size;
        assert_eq!(guest.get(EDI), 0x1_0000 | (0xfff8 + written) & 0xffff);
        assert_eq!(guest.get(ECX), 0xffff_0000);
        assert_eq!(guest.read::<8>(0x4_fff8), [0x55; 8]);
        let wrapped = guest.read::<24>(0x4_0000);
        let ones = wrapped.iter().filter(|&&byte| byte == 0x55).count();
        assert_eq!(ones, written as usize - 8);
        guest.write(0x4_0000, &[0; 24]);
    }
}

#[test]
fn only_the_source_takes_a_segment_prefix() {
    let mut guest = Guest::new();
    guest.cpu.segments[4].base = 0x100; // FS
    guest.write(AREA, &[1]);
    guest.write(AREA + 0x100, &[2]);
    guest.write(CODE, &[0x64, 0xa4, 0x64, 0xaa, 0x64, 0xae]); // movsb, stosb, scasb with FS
    guest.set(ESI, AREA);
    guest.set(EDI, AREA + 0x200);
    guest.set(EAX, 9);
    guest.run(3);
    assert_eq!(guest.read::<2>(AREA + 0x200), [2, 9]);
    assert_eq!(guest.get(EDI), AREA + 0x203);
}
