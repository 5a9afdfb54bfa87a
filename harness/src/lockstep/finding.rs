//! A difference, and how it is printed.

use super::code::Line;
use super::open::Open;
use super::way::Way;
use iced_x86::Instruction;
use machine::cpu::SegmentRegister;
use machine::tap::{Divergence, Event};
use machine::{Cpu, Difference, LinearAddress};
use std::fmt;
use strategy::StrategyId;

/// Lines of differing memory that are printed.
const MOST_LINES: usize = 24;

const REGISTERS: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];

/// The first difference between a strategy and the reference.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The strategy.
    pub strategy: StrategyId,
    /// What is different.
    pub what: What,
    /// How far it was narrowed down.
    pub place: Place,
    /// Instructions since the comparison began, where the stretch with the difference did.
    pub instructions: u64,
    /// The state before the first instruction of the block.
    pub before: Cpu,
    /// The block.
    pub block: Vec<Line>,
    /// The state in which the strategy stopped.
    pub stopped: Cpu,
    /// The state of the reference there, if it came there.
    pub reference: Option<Cpu>,
    /// Where the two differ: CPU, then memory.
    pub differences: Vec<Difference>,
    /// Where the blocks before it begin, the last one last.
    pub trail: Vec<LinearAddress>,
    /// What the architecture leaves open and the difference comes from, if it does.
    pub open: Option<Open>,
    /// What happened on the way from the place.
    pub way: Way,
    /// What the reference asked the world outside for, and the strategy had not, where it went no further.
    pub asked: Option<Divergence>,
}

/// What is different.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The CPU or memory.
    State,
    /// The reference asked the world outside for something else.
    Inputs(Divergence),
    /// The strategy did something to the world outside, or asked it, that the reference does not.
    Unasked(Event),
    /// The reference waits in HLT, and the strategy did not, or elsewhere.
    Halted,
    /// The reference met a triple fault.
    Shutdown,
    /// Memory that the reference has not written.
    StrayWrites,
}

/// How far a difference was narrowed down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// To the first instruction of the block: so many instructions into its stretch.
    Instruction(u64),
    /// To a stretch: it did not show again in parts of it.
    Stretch,
    /// To what lies between two comparisons of all memory, this many instructions.
    Stretches(u64),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        if let Some(open) = &self.open {
            writeln!(f, "This is no error, for the architecture leaves it open: {open}.")?;
        }
        if !self.trail.is_empty() {
            writeln!(f, "\nBlocks before:")?;
            self.trail.iter().try_for_each(|address| writeln!(f, "    {address}"))?;
        }
        writeln!(f, "\nBlock:")?;
        for (number, Line { address, text, .. }) in self.block.iter().enumerate() {
            let found = number == 0 && matches!(self.place, Place::Instruction(_));
            writeln!(f, "{} {address}  {text}", if found { "-->" } else { "   " })?;
        }
        write_state(f, "Before", &self.before)?;
        write_state(f, self.strategy.name(), &self.stopped)?;
        match &self.reference {
            Some(cpu) => write_state(f, "Reference", cpu)?,
            None => writeln!(f, "\nThe reference never came to EIP {:#010x}.", self.stopped.eip)?,
        }
        self.write_differences(f)
    }
}

impl Finding {
    /// The instruction that goes wrong, if it was narrowed down so far and can be fetched.
    #[must_use]
    pub fn culprit(&self) -> Option<Instruction> {
        let found = matches!(self.place, Place::Instruction(_));
        self.block.first().filter(|_| found).and_then(|line| line.instruction)
    }

    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.strategy;
        match &self.what {
            What::State => writeln!(f, "{name} differs from the reference"),
            What::Inputs(divergence) => {
                writeln!(f, "{name} asks the world outside for something else: {divergence}")
            }
            What::Unasked(event) => {
                writeln!(f, "{name} does to the world outside what the reference does not: {event}")
            }
            What::Halted => writeln!(f, "{name} is elsewhere when the reference waits in HLT"),
            What::Shutdown => {
                writeln!(f, "{name} goes on where the reference meets a triple fault")
            }
            What::StrayWrites => {
                writeln!(f, "{name} has written memory that the reference has not")
            }
        }?;
        match self.place {
            Place::Instruction(within) => {
                writeln!(f, "in instruction {} since the beginning.", self.instructions + within)
            }
            Place::Stretch => writeln!(
                f,
                "in the stretch that begins at instruction {}. Parts of it did not show it again.",
                self.instructions
            ),
            Place::Stretches(count) => writeln!(
                f,
                "within {count} instructions that ended at instruction {}.",
                self.instructions
            ),
        }
    }

    fn write_differences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nDifferences ({}, reference):", self.strategy)?;
        for difference in self.differences.iter().take(MOST_LINES) {
            writeln!(f, "    {difference}")?;
        }
        match self.differences.len().saturating_sub(MOST_LINES) {
            0 => Ok(()),
            more => writeln!(f, "    and {more} more"),
        }
    }
}

fn write_state(f: &mut fmt::Formatter<'_>, name: &str, cpu: &Cpu) -> fmt::Result {
    writeln!(f, "\n{name}:")?;
    for (half, names) in cpu.registers.chunks(4).zip(REGISTERS.chunks(4)) {
        let pairs = names.iter().zip(half).map(|(name, value)| format!(" {name} {value:08x}"));
        writeln!(f, "   {}", pairs.collect::<String>())?;
    }
    let segments = SegmentRegister::ALL.map(|register| cpu.segment(register).selector);
    let [es, cs, ss, ds, fs, gs] = segments;
    writeln!(f, "    eip {:08x} eflags {:08x} cpl {}", cpu.eip, cpu.flags.bits(), cpu.cpl)?;
    writeln!(f, "    es {es:04x} cs {cs:04x} ss {ss:04x} ds {ds:04x} fs {fs:04x} gs {gs:04x}")?;
    let [cr0, cr4] = [cpu.cr0.bits(), cpu.cr4.bits()];
    let (cr2, cr3) = (cpu.cr2, cpu.cr3);
    let halted = if cpu.halted { " halted" } else { "" };
    writeln!(f, "    cr0 {cr0:08x} cr2 {cr2:08x} cr3 {cr3:08x} cr4 {cr4:08x}{halted}")
}
