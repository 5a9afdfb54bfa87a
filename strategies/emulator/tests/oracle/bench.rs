//! Runs cases on both sides, shrinks those that differ, and describes them.

use crate::case::{Case, Code};
use crate::emulated::{Emulated, Run};
use crate::ending::{Ending, Event, difference};
use crate::generator::{self, Mix};
use crate::layout::{CODE, DATA, Flavour, PAGE};
use crate::native::Native;
use crate::rules;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use machine::cpu::register;
use std::fmt::Write;

/// Both sides, with an arena at the same place.
pub(crate) struct Bench {
    arena: u32,
    native: Native,
    emulated: Emulated,
}

/// What a case showed.
pub(crate) enum Verdict {
    Same(Box<Ending>),
    /// It came to an instruction that is not compared.
    Excluded,
    Different(Box<Difference>),
}

/// A case on which the two sides differ.
pub(crate) struct Difference {
    field: String,
    native: Option<Ending>,
    emulated: Option<Ending>,
}

impl Difference {
    fn of_one_side(field: String) -> Verdict {
        Verdict::Different(Box::new(Difference { field, native: None, emulated: None }))
    }

    /// Whether both sides came to an end.
    fn has_ends(&self) -> bool {
        self.native.is_some()
    }

    fn between(field: String, native: Ending, emulated: Ending) -> Verdict {
        let (native, emulated) = (Some(native), Some(emulated));
        Verdict::Different(Box::new(Difference { field, native, emulated }))
    }
}

impl Bench {
    pub(crate) fn new(arena: u32) -> Bench {
        Bench { arena, native: Native::new(arena), emulated: Emulated::new(arena) }
    }

    pub(crate) fn case(&self, mix: Mix, seed: u64) -> Case {
        generator::case(&Flavour::ALL, mix, seed, self.arena)
    }

    pub(crate) fn run(&mut self, case: &Case) -> Verdict {
        let code = case.code(self.arena);
        let selectors = self.native.selectors(case);
        let stepped = match self.emulated.step(case, &code, selectors) {
            Run::Ended(ending) => *ending,
            Run::Excluded => return Verdict::Excluded,
            Run::Endless if self.native.is_endless(case, &code) => return Verdict::Excluded,
            Run::Endless => return Difference::of_one_side("step: no end".to_owned()),
            Run::Wrong(what) => return Difference::of_one_side(format!("step: {what}")),
        };
        let native = match self.native.run(case, &code) {
            Ok(ending) => ending,
            Err(what) => return Difference::of_one_side(format!("CPU: {what}")),
        };
        if native.fpu.mxcsr() & !rules::MXCSR_BITS != 0 {
            return Verdict::Excluded;
        }
        let stepped = self.forgive(case, &code, &native, stepped);
        if let Some(field) = difference(&native, &stepped) {
            return Difference::between(field, native, stepped);
        }
        match self.emulated.run(case, &code, selectors) {
            Run::Ended(ending) => {
                let ending = self.forgive(case, &code, &native, *ending);
                match difference(&native, &ending) {
                    None => Verdict::Same(Box::new(native)),
                    Some(field) => {
                        Difference::between(format!("from blocks, {field}"), native, ending)
                    }
                }
            }
            Run::Excluded => Verdict::Excluded,
            Run::Endless => Difference::of_one_side("from blocks: no end".to_owned()),
            Run::Wrong(what) => Difference::of_one_side(format!("from blocks: {what}")),
        }
    }

    /// Makes equal what may differ where the case ended.
    fn forgive(&self, case: &Case, code: &Code, native: &Ending, mut emulated: Ending) -> Ending {
        let offset = native.eip.wrapping_sub(case.flavour.origin(self.arena)).wrapping_sub(CODE);
        // Now and then a case ends in data that it came to execute.
        let in_data = offset.wrapping_add(CODE).wrapping_sub(DATA) as usize;
        let bytes = code.page.get(offset as usize..).or_else(|| native.memory.get(in_data..));
        let Some(bytes) = bytes else { return emulated };
        let mut decoder = Decoder::new(case.flavour.bits(), bytes, DecoderOptions::NONE);
        let last = decoder.decode();
        if emulated.eip != native.eip {
            return emulated;
        }
        if rules::is_undefined(&last)
            && self.is_undefined_or_fetch(native.event)
            && self.is_undefined_or_fetch(emulated.event)
        {
            emulated.event = native.event;
        }
        if rules::accesses_in_any_order(&last)
            && native.event.is_memory_fault()
            && emulated.event.is_memory_fault()
        {
            emulated.event = native.event;
        }
        if rules::does_part_before_fault(&last) && native.event.is_memory_fault() {
            let stack_pointer = emulated.registers[register::ESP];
            emulated.registers = native.registers;
            emulated.registers[register::ESP] = stack_pointer;
            emulated.memory.clone_from(&native.memory);
        }
        emulated
    }

    /// Whether an undefined opcode may raise this: its operand bytes may be fetched, and the
    /// instruction's length checked, before it is refused, or not.
    fn is_undefined_or_fetch(&self, event: Event) -> bool {
        let next_page = self.arena + CODE + PAGE;
        matches!(event.vector, 6 | 13) || event.vector == 14 && event.address == next_page
    }

    /// Drops instructions as long as the sides still differ.
    pub(crate) fn shrink(&mut self, case: &mut Case, found: &mut Box<Difference>) {
        let mut again = true;
        while again {
            again = false;
            for index in 0..case.items.len() {
                if case.items[index].dropped {
                    continue;
                }
                case.items[index].dropped = true;
                match self.run(case) {
                    // Not one that was made by dropping: a loop, for example.
                    Verdict::Different(smaller) if smaller.has_ends() == found.has_ends() => {
                        *found = smaller;
                        again = true;
                    }
                    _ => case.items[index].dropped = false,
                }
            }
        }
    }

    /// What a difference is about, in one line: the instructions left and the field.
    pub(crate) fn class(&self, case: &Case, found: &Difference) -> String {
        let code = self.instructions(case);
        let names: Vec<_> = code.iter().map(|(_, i)| format!("{:?}", i.code())).collect();
        format!("{} [{}]", names.join(" + "), found.field)
    }

    fn instructions(&self, case: &Case) -> Vec<(Vec<u8>, Instruction)> {
        let code = case.code(self.arena);
        let origin = case.flavour.origin(self.arena);
        let live = case.items.iter().enumerate().filter(|(_, item)| !item.dropped);
        live.map(|(index, item)| {
            let at = (code.boundaries[index] & 0xfff) as usize;
            let bytes: Vec<u8> = code.page[at..].iter().copied().take(item.bytes.len()).collect();
            let ip = u64::from(origin.wrapping_add(code.boundaries[index]));
            let bits = case.flavour.bits();
            let instruction = Decoder::with_ip(bits, &bytes, ip, DecoderOptions::NONE).decode();
            (bytes, instruction)
        })
        .collect()
    }

    /// The code and the state before it.
    pub(crate) fn listing(&self, case: &Case) -> String {
        let mut text = String::new();
        let mut formatter = NasmFormatter::new();
        for (bytes, instruction) in self.instructions(case) {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "  {:08x}  {line:40} {bytes:02x?}", instruction.ip32());
        }
        let _ = writeln!(text, "  before    {:08x?} flags {:08x}", case.registers, case.eflags);
        describe_fpu(&mut text, &case.fpu);
        text
    }

    /// All there is to know about a difference.
    pub(crate) fn describe(&self, case: &Case, found: &Difference) -> String {
        let Case { seed, flavour, .. } = case;
        let mut text = format!("seed {seed:#x}, {flavour:?}: {} differs\n", found.field);
        text.push_str(&self.listing(case));
        for (side, ending) in [("CPU", &found.native), ("emulator", &found.emulated)] {
            let Some(Ending { event, eip, registers, eflags, fpu, .. }) = ending else { continue };
            let _ = writeln!(text, "  {side:9} {registers:08x?} flags {eflags:08x} eip {eip:08x}");
            let _ = writeln!(text, "            {event:x?}");
            describe_fpu(&mut text, fpu);
        }
        if let (Some(native), Some(emulated)) = (&found.native, &found.emulated) {
            let before = [&case.data[..], &case.stack].concat();
            describe_memory(&mut text, &before, native, emulated);
        }
        text
    }
}

fn describe_fpu(text: &mut String, fpu: &machine::cpu::Fpu) {
    let area = &fpu.area.0;
    let _ = write!(
        text,
        "            fcw {:02x}{:02x} fsw {:02x}{:02x} ftw {:02x} mxcsr {:x} st",
        area[1],
        area[0],
        area[3],
        area[2],
        area[4],
        fpu.mxcsr()
    );
    for number in 0..8 {
        let at = 32 + 16 * number;
        text.push(' ');
        for byte in area[at..at + 10].iter().rev() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text.push_str("\n            xmm");
    for number in 0..8 {
        let at = machine::cpu::XMM0 + 16 * number;
        text.push(' ');
        for byte in area[at..at + 16].iter().rev() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text.push('\n');
}

fn describe_memory(text: &mut String, before: &[u8], native: &Ending, emulated: &Ending) {
    let differing = (0..before.len()).filter(|&at| native.memory[at] != emulated.memory[at]);
    for at in differing.take(8) {
        let (was, cpu, emulator) = (before[at], native.memory[at], emulated.memory[at]);
        let _ = writeln!(
            text,
            "  memory at {at:#06x}: {was:02x}, CPU {cpu:02x}, emulator {emulator:02x}"
        );
    }
}
