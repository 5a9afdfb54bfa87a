//! What happened on the way through a stretch, as far as it says something about a difference behind it.

use super::open::MOST;
use super::reference::{Origin, Reference};
use emulator::Outcome;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use machine::cpu::Cr4;
use machine::memory::PageKind;
use machine::tap::Event;
use machine::{Cpu, LinearAddress, Machine, PhysicalAddress};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// A way through a stretch.
#[derive(Clone, Default, Debug)]
pub struct Way {
    /// The instructions that raised exceptions under the reference, the last one last.
    pub faults: Vec<Fault>,
    /// The instructions that were executed, each once, in the order of their first time.
    pub executed: Vec<Instruction>,
    /// The guest-physical addresses to which the x87 pointers were stored with what surrounds them.
    pub x87_pointers: Vec<Range<u64>>,
    /// The selectors that instructions loaded, or tried to load, into registers for data, behind the
    /// privilege level of each.
    pub selectors: BTreeSet<(u8, u16)>,
    /// Whether an instruction was or used memory at linear addresses that the strategy has taken for itself.
    pub meets_taken: bool,
    /// Whether an instruction was in device memory.
    pub runs_devices: bool,
    /// Whether an instruction was a jump by a register to one of its own bytes.
    pub jumps_into_itself: bool,
}

/// An instruction that raised an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The instruction.
    pub instruction: Instruction,
    /// What CR4 was before it.
    pub cr4: Cr4,
    /// The general registers before it, in encoding order.
    pub registers: [u32; 8],
}

/// Goes through the first `count` instructions from `origin` on, where a strategy has taken some linear
/// addresses for itself.
pub(super) fn way(
    reference: &mut Reference,
    origin: &Origin<'_>,
    events: &[Event],
    count: u64,
    taken: &[Range<u64>],
) -> Way {
    reference.go_to(origin);
    let (mut way, mut known) = (Way::default(), HashSet::new());
    let (mut last, mut before) = (None, exceptions(&reference.machine));
    let outcome = reference.walk(events, count.min(MOST), |machine, instruction| {
        let now = exceptions(machine);
        if std::mem::replace(&mut before, now) != now {
            way.faults.extend(last);
        }
        last = instruction.map(|&instruction| {
            let Cpu { cr4, registers, .. } = machine.cpu;
            Fault { instruction, cr4, registers }
        });
        let here = u64::from(machine.cpu.instruction_address().0);
        way.meets_taken |= taken.iter().any(|taken| taken.contains(&here));
        way.runs_devices |= is_in_device_memory(machine);
        let Some(instruction) = instruction else { return Some(()) };
        way.jumps_into_itself |= jumps_into_itself(&machine.cpu, instruction);
        if known.insert(*instruction) {
            way.executed.push(*instruction);
        }
        let used = used(machine, instruction);
        let cpl = machine.cpu.cpl;
        let loaded = loaded_selector(machine, instruction, &used);
        way.selectors.extend(loaded.map(|selector| (cpl, selector)));
        way.meets_taken |= used.iter().any(|used| taken.iter().any(|taken| meet(used, taken)));
        if stores_x87_pointers(instruction) {
            way.x87_pointers.extend(used.iter().filter_map(|used| physical(machine, used)));
        }
        Some(())
    });
    if exceptions(&reference.machine) != before || outcome == Outcome::Shutdown {
        way.faults.extend(last);
    }
    way
}

fn jumps_into_itself(cpu: &Cpu, instruction: &Instruction) -> bool {
    let register = instruction.op0_register();
    let mask = if register.is_gpr32() { u32::MAX } else { 0xffff };
    instruction.is_jmp_near_indirect() && (register.is_gpr32() || register.is_gpr16()) && {
        let within = (cpu.registers[register.number()] & mask).wrapping_sub(cpu.eip);
        within != 0 && within < instruction.len() as u32
    }
}

/// Whether the next instruction is in device memory.
fn is_in_device_memory(machine: &mut Machine) -> bool {
    let found = emulator::mapping(machine, machine.cpu.instruction_address());
    found.is_some_and(|found| matches!(machine.memory.page_kind(found.physical), PageKind::Device))
}

fn exceptions(machine: &Machine) -> u64 {
    machine.counters.guest_page_faults.wrapping_add(machine.counters.exceptions)
}

/// The selector that an instruction loads into a register for data which uses this memory.
fn loaded_selector(
    machine: &mut Machine,
    instruction: &Instruction,
    used: &[Range<u64>],
) -> Option<u16> {
    use Mnemonic::{Lds, Les, Lfs, Lgs, Lss, Mov, Pop};
    let mnemonic = instruction.mnemonic();
    let names_register = instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().is_segment_register();
    let behind = match mnemonic {
        Lds | Les | Lfs | Lgs | Lss => (instruction.memory_size().size() as u64).saturating_sub(2),
        Mov | Pop if names_register => 0,
        _ => return None,
    };
    if mnemonic == Mov && instruction.op1_kind() == OpKind::Register {
        let number = instruction.op1_register().number();
        return Some(machine.cpu.registers[number] as u16);
    }
    let start = used.first()?.start + behind;
    let physical = physical(machine, &(start..start + 2))?;
    let mut selector = [0; 2];
    machine.memory.read(PhysicalAddress(physical.start), &mut selector);
    Some(u16::from_le_bytes(selector))
}

/// Whether an instruction stores where the last x87 instruction and its operand were.
#[must_use]
pub fn stores_x87_pointers(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Fnsave | Mnemonic::Fnstenv | Mnemonic::Fxsave)
}

/// The linear addresses of the memory that an instruction uses which is about to be executed. What
/// reaches into another page is in two parts.
fn used(machine: &Machine, instruction: &Instruction) -> Vec<Range<u64>> {
    const PAGE: u64 = 0x1000;
    let mut factory = InstructionInfoFactory::new();
    let parts = factory.info(instruction).used_memory().iter().flat_map(|used| {
        let start = used.virtual_address(0, |register, _, _| Some(value(&machine.cpu, register)));
        let start = start.map_or(0, |start| u64::from(start as u32));
        let end = start + used.memory_size().size() as u64;
        let middle = end.min(start / PAGE * PAGE + PAGE);
        [start..middle, middle..end]
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// What a register adds to a linear address: a segment register its base.
pub(super) fn value(cpu: &Cpu, register: Register) -> u64 {
    let number = register.number();
    match register.is_segment_register() {
        true => cpu.segments[number].base.into(),
        false => cpu.registers[number].into(),
    }
}

fn meet(left: &Range<u64>, right: &Range<u64>) -> bool {
    left.start < right.end && right.start < left.end
}

/// Where a range within a page is in guest-physical memory, if it is mapped. Finding out may set accessed
/// bits: for machines that are not run on.
fn physical(machine: &mut Machine, linear: &Range<u64>) -> Option<Range<u64>> {
    let start = emulator::mapping(machine, LinearAddress(linear.start as u32))?.physical.0;
    Some(start..start + (linear.end - linear.start))
}
