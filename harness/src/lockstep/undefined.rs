//! Which flags the architecture leaves open: CPUs differ in what MUL makes of SF, and both are right.

use iced_x86::{Instruction, Mnemonic, RflagsBits};
use machine::Machine;
use machine::cpu::Eflags;
use machine::host_time::processor_nanos;
use machine::tap::Event;

/// Instructions between two looks at the time.
const GLANCE: u64 = 1 << 10;

/// Executes `count` instructions from a log, and tells which flags are undefined behind them; nothing where
/// that takes until `deadline`, in nanoseconds of processor time.
pub(super) fn after(
    machine: &mut Machine,
    events: &[Event],
    count: u64,
    deadline: u64,
) -> Option<Eflags> {
    machine.replay(events.to_vec());
    let end = machine.counters.instructions + count;
    let mut undefined = Eflags::empty();
    while machine.counters.instructions < end {
        let before = machine.counters.instructions;
        if before.is_multiple_of(GLANCE) && processor_nanos() >= deadline {
            return None;
        }
        let instruction = emulator::instruction(machine);
        machine.signals().take_request();
        let outcome = emulator::step(machine);
        if let Some(instruction) = instruction {
            undefined &= !flags(instruction.rflags_modified());
            undefined |= flags(instruction.rflags_undefined());
        }
        if outcome != emulator::Outcome::Continue || machine.counters.instructions == before {
            break;
        }
    }
    Some(undefined)
}

/// The arithmetic flags among iced's bits.
pub(super) fn flags(bits: u32) -> Eflags {
    let all = [
        (RflagsBits::OF, Eflags::OF),
        (RflagsBits::SF, Eflags::SF),
        (RflagsBits::ZF, Eflags::ZF),
        (RflagsBits::AF, Eflags::AF),
        (RflagsBits::CF, Eflags::CF),
        (RflagsBits::PF, Eflags::PF),
    ];
    all.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, flag)| flag).collect()
}

/// The arithmetic flags that an instruction reads: those that it pushes as well.
pub(super) fn reads(instruction: &Instruction) -> Eflags {
    match instruction.mnemonic() {
        Mnemonic::Pushf
        | Mnemonic::Pushfd
        | Mnemonic::Int
        | Mnemonic::Int1
        | Mnemonic::Int3
        | Mnemonic::Into => Eflags::ARITHMETIC,
        _ => flags(instruction.rflags_read()),
    }
}
