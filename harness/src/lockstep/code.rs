//! Guest code as text: the block at an address, and the way that led there.

use iced_x86::{FlowControl, Formatter, Instruction, IntelFormatter};
use machine::{LinearAddress, Machine};
use std::collections::VecDeque;

/// The most instructions of a block that are shown.
const LONGEST_BLOCK: usize = 16;

/// An instruction as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Where it is.
    pub address: LinearAddress,
    /// Its bytes, and what they mean.
    pub text: String,
    /// The instruction, if it can be fetched.
    pub instruction: Option<Instruction>,
}

/// The instructions from EIP on up to the first that may go elsewhere. Reading them may set accessed
/// bits: for machines that are not run on.
pub(super) fn block(machine: &mut Machine) -> Vec<Line> {
    let (eip, cr2) = (machine.cpu.eip, machine.cpu.cr2);
    let mut lines = Vec::new();
    while lines.len() < LONGEST_BLOCK {
        let address = machine.cpu.instruction_address();
        let Some(instruction) = emulator::instruction(machine) else {
            let text = "(cannot be fetched)".to_owned();
            lines.push(Line { address, text, instruction: None });
            break;
        };
        let text = text(machine, &instruction);
        lines.push(Line { address, text, instruction: Some(instruction) });
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        machine.cpu.eip = machine.cpu.eip.wrapping_add(instruction.len() as u32);
    }
    (machine.cpu.eip, machine.cpu.cr2) = (eip, cr2);
    lines
}

fn text(machine: &mut Machine, instruction: &Instruction) -> String {
    let start = machine.cpu.instruction_address();
    let bytes = (0..instruction.len() as u32).map(|at| {
        let address = LinearAddress(start.0.wrapping_add(at));
        let mut byte = [0];
        let found = emulator::mapping(machine, address);
        match found.is_some_and(|mapping| machine.memory.read(mapping.physical, &mut byte)) {
            true => format!("{:02x} ", byte[0]),
            false => "?? ".to_owned(),
        }
    });
    let mut meaning = String::new();
    IntelFormatter::new().format(instruction, &mut meaning);
    format!("{:<24} {meaning}", bytes.collect::<String>())
}

/// The addresses at which blocks were entered, the last ones.
#[derive(Clone, Default, Debug)]
pub(super) struct Trail {
    entered: VecDeque<LinearAddress>,
    expected: Option<LinearAddress>,
}

impl Trail {
    /// Notes an instruction before it is executed; a block begins where it is not behind the one
    /// before, and `keep` of them are kept.
    pub(super) fn note(&mut self, machine: &mut Machine, keep: usize) {
        let here = machine.cpu.instruction_address();
        if self.expected != Some(here) {
            self.entered.push_back(here);
            if self.entered.len() > keep {
                self.entered.pop_front();
            }
        }
        let instruction = emulator::instruction(machine);
        let length = instruction.map_or(0, |instruction| instruction.len() as u32);
        self.expected = Some(LinearAddress(here.0.wrapping_add(length)));
    }

    pub(super) fn entered(self) -> Vec<LinearAddress> {
        self.entered.into()
    }
}
