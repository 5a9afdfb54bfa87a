//! What happened on the way through a stretch, as far as it says something about a difference behind it.

use super::open::MOST;
use super::reference::{Origin, Reference};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, Register};
use machine::cpu::Cr4;
use machine::tap::Event;
use machine::{LinearAddress, Machine, PhysicalAddress};
use std::ops::Range;

/// A way through a stretch.
#[derive(Clone, Default, Debug)]
pub struct Way {
    /// The instructions that raised exceptions under the reference, the last one last.
    pub faults: Vec<Fault>,
    /// The guest-physical addresses to which the x87 pointers were stored with what surrounds them.
    pub x87_pointers: Vec<Range<u64>>,
}

/// An instruction that raised an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The instruction.
    pub instruction: Instruction,
    /// What CR4 was before it.
    pub cr4: Cr4,
}

/// Goes through the first `count` instructions from `origin` on.
pub(super) fn way(
    reference: &mut Reference,
    origin: &Origin<'_>,
    events: &[Event],
    count: u64,
) -> Way {
    reference.go_to(origin);
    let mut way = Way::default();
    let (mut last, mut before) = (None, exceptions(&reference.machine));
    reference.walk(events, count.min(MOST), |machine, instruction| {
        let now = exceptions(machine);
        if std::mem::replace(&mut before, now) != now {
            way.faults.extend(last);
        }
        last = instruction.map(|&instruction| Fault { instruction, cr4: machine.cpu.cr4 });
        if let Some(instruction) = instruction.filter(|each| stores_x87_pointers(each)) {
            way.x87_pointers.extend(used(machine, instruction));
        }
        Some(())
    });
    if exceptions(&reference.machine) != before {
        way.faults.extend(last);
    }
    way
}

fn exceptions(machine: &Machine) -> u64 {
    machine.counters.guest_page_faults.wrapping_add(machine.counters.exceptions)
}

/// Whether an instruction stores where the last x87 instruction and its operand were.
#[must_use]
pub fn stores_x87_pointers(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Fnsave | Mnemonic::Fnstenv | Mnemonic::Fxsave)
}

/// Where the memory is that an instruction uses, which is about to be executed: in one part each, or one on
/// each of two pages. What is not mapped is left out.
fn used(machine: &mut Machine, instruction: &Instruction) -> Vec<Range<u64>> {
    const PAGE: u32 = 0x1000;
    let cpu = &machine.cpu;
    let value = |register: Register| {
        let number = register.number();
        match register.is_segment_register() {
            true => cpu.segments[number].base.into(),
            false => cpu.registers[number].into(),
        }
    };
    let mut factory = InstructionInfoFactory::new();
    let parts = factory.info(instruction).used_memory().iter().flat_map(|used| {
        let linear = used.virtual_address(0, |register, _, _| Some(value(register)));
        let start = linear.unwrap_or_default() as u32;
        let size = used.memory_size().size() as u32;
        let first = size.min(PAGE - start % PAGE);
        let parts = [(start, first), (start.wrapping_add(first), size - first)];
        parts.into_iter().filter(move |(_, length)| linear.is_some() && *length > 0)
    });
    let parts: Vec<_> = parts.collect();
    let places = parts.into_iter().filter_map(|(linear, length)| {
        let physical = emulator::mapping(machine, LinearAddress(linear))?.physical.0;
        Some(physical..physical + u64::from(length))
    });
    places.collect()
}

/// Where the memory begins that the instruction at EIP uses, as far as it is mapped. Finding out may set
/// accessed bits: for machines that are not run on.
pub(super) fn operands(machine: &mut Machine) -> Vec<PhysicalAddress> {
    let Some(instruction) = emulator::instruction(machine) else { return Vec::new() };
    used(machine, &instruction).into_iter().map(|place| PhysicalAddress(place.start)).collect()
}
