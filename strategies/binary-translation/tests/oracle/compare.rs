//! Runs cases on all sides, shrinks those that differ, and describes them.

use crate::case::Code;
use crate::guest::Guest;
use crate::layout::{CODE, PAGE};
use crate::rules;
use crate::scene::ARENA;
use crate::twist::Twisted;
use binary_translation::BinaryTranslation;
use emulator::{Emulator, Outcome};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use std::fmt::Write;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

/// More instructions than a case takes that ends: REP counts each round.
const MOST_INSTRUCTIONS: u64 = 20_000;
/// When a case has not ended under the translator by then, it never does. Hosts that watch bus locks
/// put whoever exchanges with memory across two cache lines to sleep, each time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Differing bytes that are shown.
const MOST_BYTES: usize = 12;

/// The reference and the translators, each with a guest of its own.
pub(crate) struct Bench {
    emulated: Guest,
    emulator: Emulator,
    translated: Vec<(&'static str, Guest, BinaryTranslation)>,
}

/// What a case showed.
pub(crate) enum Verdict {
    /// All sides agree; the vector that ended the case.
    Same(Option<u8>),
    /// It has no end, or came to something that is not compared.
    Excluded,
    Different(Difference),
}

/// In what a translator differs from the reference.
pub(crate) struct Difference {
    side: &'static str,
    lines: Vec<String>,
}

impl Difference {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("  {} (interpretation first):\n", self.side);
        for line in &self.lines {
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}

impl Bench {
    /// Both ways in which translated code accesses memory.
    pub(crate) fn new() -> Bench {
        let innocent = BinaryTranslation::new().expect("a translator");
        let guilty = BinaryTranslation::with_all_sites_guilty().expect("a translator");
        Bench::of(vec![("translated", innocent), ("translated, all guilty", guilty)])
    }

    /// These translators against the reference.
    pub(crate) fn of(translators: Vec<(&'static str, BinaryTranslation)>) -> Bench {
        let side = |(name, translator)| (name, Guest::new(), translator);
        Bench {
            emulated: Guest::new(),
            emulator: Emulator::new(),
            translated: translators.into_iter().map(side).collect(),
        }
    }

    pub(crate) fn run(&mut self, twisted: &Twisted) -> Verdict {
        let code = twisted.code();
        let Some(stop) = self.emulate(twisted, &code) else { return Verdict::Excluded };
        let memory = self.emulated.memory();
        for number in 0..self.translated.len() {
            let (side, guest, strategy) = &mut self.translated[number];
            guest.load(twisted, &code);
            let limit = Limit::until(Instant::now() + PATIENCE);
            let ended = strategy.run(&mut guest.machine, &limit).map_err(|error| error.to_string());
            let mut lines = Vec::new();
            if ended != Ok(stop) {
                lines.push(format!("ended: Ok({stop:?}), {ended:?}"));
            }
            lines.extend(
                (self.emulated.machine.cpu.differences(&guest.machine.cpu).iter())
                    .map(ToString::to_string),
            );
            describe_memory(&memory, &guest.memory(), &mut lines);
            let side = *side;
            if !lines.is_empty() && !self.may_differ(twisted, &code) {
                return Verdict::Different(Difference { side, lines });
            }
        }
        Verdict::Same(self.emulated.vector())
    }

    /// Runs the reference; nothing if the case has no end, or used devices.
    fn emulate(&mut self, twisted: &Twisted, code: &Code) -> Option<Stop> {
        self.emulated.load(twisted, code);
        let machine = &mut self.emulated.machine;
        let outcome = self.emulator.run(machine, MOST_INSTRUCTIONS);
        if machine.counters.port_io + machine.counters.mmio > 0 {
            // Devices keep what they were told: a request for a reset would end all later cases.
            self.emulated = Guest::new();
            self.emulator = Emulator::new();
            return None;
        }
        match outcome {
            Outcome::Continue => None,
            Outcome::Halted if machine.cpu.interruptible() => None,
            Outcome::Halted => Some(Stop::Halted),
            Outcome::Shutdown => Some(Stop::TripleFault),
        }
    }

    /// Whether the case came to an instruction that is not compared, ended in the middle of one that
    /// stores in parts or marks its pages in an order of its own, or had a repeated one overwrite itself: how often it is then repeated before
    /// its new bytes are fetched is the CPU's choice.
    fn may_differ(&mut self, twisted: &Twisted, code: &Code) -> bool {
        let last = self.emulated.fault_address().and_then(|eip| self.instruction_at(eip));
        if last.is_some_and(|last| rules::may_be_half_done(&last)) {
            return true;
        }
        self.emulated.load(twisted, code);
        for _ in 0..MOST_INSTRUCTIONS {
            let next = emulator::instruction(&mut self.emulated.machine);
            if next.is_some_and(|next| rules::exclusion(&next).is_some()) {
                return true;
            }
            let at = CODE + (self.emulated.machine.cpu.eip & 0xfff);
            let before = self.bytes_at(at);
            if emulator::step(&mut self.emulated.machine) != Outcome::Continue {
                // A triple fault, and no frame that would tell where.
                return next.is_some_and(|next| rules::may_be_half_done(&next));
            }
            if next.is_some_and(|next| rules::repeats(&next)) && self.bytes_at(at) != before {
                return true;
            }
        }
        false
    }

    /// As many bytes of the code page as a repeated instruction has at most.
    fn bytes_at(&self, offset: u32) -> [u8; 6] {
        let mut bytes = [0; 6];
        self.emulated.arena(offset, &mut bytes);
        bytes
    }

    fn instruction_at(&self, eip: u32) -> Option<Instruction> {
        let offset = eip.wrapping_sub(ARENA);
        let mut bytes = [0; 15];
        let length = bytes.len().min((0x1000 - (offset & 0xfff)) as usize);
        let read = self.emulated.arena(offset, &mut bytes[..length]);
        read.then(|| Decoder::new(32, &bytes, DecoderOptions::NONE).decode())
    }

    /// Drops instructions as long as the sides still differ.
    pub(crate) fn shrink(&mut self, twisted: &mut Twisted, found: &mut Difference) {
        let mut again = true;
        while again {
            again = false;
            for index in 0..twisted.case.items.len() {
                if twisted.case.items[index].dropped {
                    continue;
                }
                twisted.case.items[index].dropped = true;
                match self.run(twisted) {
                    Verdict::Different(smaller) => {
                        *found = smaller;
                        again = true;
                    }
                    _ => twisted.case.items[index].dropped = false,
                }
            }
        }
    }

    /// What a difference is about, in one line: the instructions left and the first field.
    pub(crate) fn class(&self, twisted: &Twisted, found: &Difference) -> String {
        let code = instructions(twisted);
        let names: Vec<_> = code.iter().map(|(_, i)| format!("{:?}", i.code())).collect();
        let field = found.lines.first().map_or("", |line| line.split(':').next().unwrap_or(""));
        format!("{}: {} [{field}]", found.side, names.join(" + "))
    }

    /// The code and the state before it.
    pub(crate) fn listing(&self, twisted: &Twisted) -> String {
        let mut text = String::new();
        let mut formatter = NasmFormatter::new();
        for (bytes, instruction) in instructions(twisted) {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "  {:08x}  {line:40} {bytes:02x?}", instruction.ip32());
        }
        let Twisted { case, scene } = twisted;
        let _ = writeln!(
            text,
            "  seed {:#x} {:08x?} flags {:08x}",
            case.seed, case.registers, case.eflags
        );
        let _ = writeln!(text, "  {scene:x?}");
        text
    }
}

fn describe_memory(left: &[u8], right: &[u8], lines: &mut Vec<String>) {
    if left == right {
        return;
    }
    let differing = (0..left.len()).filter(|&at| left[at] != right[at]);
    for at in differing.take(MOST_BYTES) {
        let address = Guest::address_of(at);
        lines.push(format!("memory: at {address:#x}: {:02x}, {:02x}", left[at], right[at]));
    }
}

fn instructions(twisted: &Twisted) -> Vec<(Vec<u8>, Instruction)> {
    let code = twisted.code();
    let items = twisted.case.items.iter().enumerate();
    items
        .filter(|(_, item)| !item.dropped)
        .map(|(index, item)| {
            let at = ((code.boundaries[index] - CODE) as usize).min(PAGE as usize);
            let bytes: Vec<u8> = code.page[at..].iter().copied().take(item.bytes.len()).collect();
            let ip = u64::from(ARENA.wrapping_add(code.boundaries[index]));
            let instruction = Decoder::with_ip(32, &bytes, ip, DecoderOptions::NONE).decode();
            (bytes, instruction)
        })
        .collect()
}
