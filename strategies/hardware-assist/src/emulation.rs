//! The emulator in KVM's place: for one instruction that KVM gave up on, or for as long as the
//! guest is out of KVM's reach.
//!
//! KVM says nothing of what the guest wrote, so whatever was cached of it is dropped first.

use crate::pace::Pace;
use emulator::Outcome;
use machine::cpu::{Cr0, Dr7, Eflags};
use machine::{Machine, Vector};
use std::fmt::Display;
use strategy::{Error, ExitCounts, ExitKind, Stop};

/// Instructions before the loop looks at limits and at KVM's reach again.
const BATCH: u64 = 1_000;

/// Drops what the emulator and other strategies cached of memory and translations, and what is
/// derived from state, after KVM had the guest.
pub(crate) fn forget(machine: &mut Machine) {
    let cpu = &machine.cpu;
    let aligned = cpu.cpl == 3 && cpu.cr0.contains(Cr0::AM) && cpu.flags.contains(Eflags::AC);
    let watched = cpu.debug[7] & Dr7::ENABLED != 0;
    machine.tlb.set_bypassed(aligned || watched);
    machine.tlb.flush();
    machine.memory.note_all_watched();
}

/// Executes the instruction that KVM gave up on for `reason`.
pub(crate) fn rescue(
    machine: &mut Machine,
    exits: &mut ExitCounts,
    reason: &dyn Display,
) -> Result<Option<Stop>, Error> {
    let before = (machine.counters.instructions, machine.cpu.eip);
    exits.count(ExitKind::Emulation);
    let outcome = emulator::step(machine);
    let after = (machine.counters.instructions, machine.cpu.eip);
    if before == after && outcome == Outcome::Continue && !machine.breakpoints.is_hit() {
        return Err(Error::Hypervisor {
            what: format!("{reason}, and the emulator made no progress"),
            address: machine.cpu.instruction_address(),
        });
    }
    Ok(stop(outcome))
}

/// Delivers an external interrupt that was acknowledged.
pub(crate) fn interrupt(machine: &mut Machine, vector: Vector) -> Option<Stop> {
    stop(emulator::deliver_interrupt(machine, vector))
}

/// Executes some instructions of a guest that is out of KVM's reach, interrupts delivered.
pub(crate) fn run(machine: &mut Machine, exits: &mut ExitCounts, pace: &mut Pace) -> Option<Stop> {
    if takes_interrupt(machine) {
        exits.count(ExitKind::Interrupt);
        let vector = machine.acknowledge_interrupt();
        if let Some(stop) = interrupt(machine, vector) {
            return Some(stop);
        }
    }
    let most = pace.batch(BATCH);
    let mut done = 0;
    let mut outcome = Outcome::Continue;
    while done < most && outcome == Outcome::Continue {
        outcome = emulator::step(machine);
        done += 1;
        if machine.signals().attention() || takes_interrupt(machine) {
            break;
        }
    }
    if machine.memory.code_was_written() {
        // One entry a page instead of one a write: nobody takes them before the run ends.
        machine.memory.note_all_watched();
    }
    exits.add(ExitKind::Emulation, done);
    if outcome == Outcome::Halted {
        exits.count(ExitKind::Halt);
    }
    pace.spend_instructions(done);
    stop(outcome)
}

fn takes_interrupt(machine: &Machine) -> bool {
    machine.interrupt_requested() && machine.cpu.interruptible()
}

/// A HLT is seen in `cpu.halted`; only a shutdown ends the run.
fn stop(outcome: Outcome) -> Option<Stop> {
    (outcome == Outcome::Shutdown).then_some(Stop::TripleFault)
}
