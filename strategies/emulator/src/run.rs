//! Running instructions: one at a time with everything around it, or block after block.

use crate::Outcome;
use crate::block::{BlockCache, Key};
use crate::debug;
use crate::exception::Exception;
use crate::fetch;
use crate::interrupt;
use crate::lower::Flow;
use crate::mode;
use crate::op::Op;
use iced_x86::Code;
use machine::Machine;
use machine::cpu::{Dr6, Eflags, InterruptShadow};
use machine::signals::Request;
use std::sync::atomic::{AtomicU64, Ordering};

/// Executes instructions from decoded blocks, which it keeps.
///
/// The blocks belong to one machine: use an emulator of its own for each. Other engines may run the
/// same machine in between, as long as they note their writes to watched pages
/// ([`machine::memory::Memory::note_write`]).
pub struct Emulator {
    /// Tells this one's decoded code from others' on the same machine.
    id: u64,
    blocks: BlockCache,
    /// The EIP at which [`Emulator::run_to`] stops, else [`NOWHERE`].
    stop_at: u64,
}

/// No EIP comes here, or into a block's length of it.
const NOWHERE: u64 = 1 << 33;

impl Default for Emulator {
    fn default() -> Emulator {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Emulator {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            blocks: BlockCache::default(),
            stop_at: NOWHERE,
        }
    }
}

impl Emulator {
    /// An emulator without decoded blocks.
    #[must_use]
    pub fn new() -> Emulator {
        Emulator::default()
    }

    /// Executes exactly `count` instructions, or fewer when the CPU halts or shuts down, when an
    /// external interrupt can be taken, or when [`machine::signals::Signals::attention`] is raised.
    /// Instructions that raise exceptions count. At least one instruction is executed unless the
    /// CPU waits in HLT or is at a breakpoint ([`Machine::breakpoints`]).
    pub fn run(&mut self, m: &mut Machine, count: u64) -> Outcome {
        if m.cpu.halted {
            return Outcome::Halted;
        }
        // The CPU's state may be another engine's work, or new.
        mode::update(m);
        let end = m.counters.instructions.saturating_add(count);
        let before = m.counters.instructions;
        let outcome = self.run_until(m, end);
        m.clock().retire(m.counters.instructions - before);
        crate::float::leave(m);
        outcome
    }

    /// As [`Emulator::run`], but for at most `count` instructions, and only until EIP is `eip` again,
    /// after the first instruction.
    pub fn run_to(&mut self, m: &mut Machine, eip: u32, count: u64) -> Outcome {
        self.stop_at = eip.into();
        let outcome = self.run(m, count);
        self.stop_at = NOWHERE;
        outcome
    }

    fn run_until(&mut self, m: &mut Machine, end: u64) -> Outcome {
        // The host or another engine may have written code since the last run.
        if m.memory.own_code(self.id) {
            self.blocks.take_code_writes(m);
        } else {
            self.blocks.clear(m);
        }
        loop {
            let outcome = self.run_block(m, end);
            if m.memory.code_was_written() {
                self.blocks.take_code_writes(m);
            }
            if outcome != Outcome::Continue {
                return outcome;
            }
            if m.cpu.halted {
                return Outcome::Halted;
            }
            if m.counters.instructions >= end || m.signals().attention() {
                return Outcome::Continue;
            }
            if u64::from(m.cpu.eip) == self.stop_at {
                return Outcome::Continue;
            }
            if m.interrupt_requested() && m.cpu.interruptible() {
                return Outcome::Continue;
            }
        }
    }

    /// Executes the block at EIP, or one instruction where blocks do not serve.
    #[inline]
    fn run_block(&mut self, m: &mut Machine, end: u64) -> Outcome {
        let here = m.cpu.instruction_address();
        let stops = m.breakpoints.are_set();
        if stops && m.breakpoints.meet(here, 1) {
            return stop_for_debugger(m);
        }
        if needs_care(m) {
            return self.run_single(m);
        }
        let block = match self.blocks.find(m, Key::of(m, false)) {
            Ok(Some(block)) => block,
            Ok(None) => return step_from_memory(m),
            Err(exception) => return raise_from_fetch(m, exception),
        };
        if block.ops.len() as u64 > end - m.counters.instructions {
            return self.run_single(m);
        }
        let ahead = self.stop_at.wrapping_sub(m.cpu.eip.into());
        if ahead.wrapping_sub(1) < u64::from(block.length - 1)
            || stops && m.breakpoints.meet(here, block.length)
        {
            // It lies within the block.
            return self.run_single(m);
        }
        m.memory.set_executing(block.bytes());
        for (index, op) in block.ops.iter().enumerate() {
            if let Err(exception) = (op.handler)(m, op) {
                m.counters.instructions += index as u64;
                m.memory.set_executing(0..0);
                if exception.is_restart() {
                    m.cpu.eip = op.eip(m);
                    return self.run_single(m);
                }
                m.counters.instructions += 1;
                return raise_from(m, op, exception);
            }
        }
        m.counters.instructions += block.ops.len() as u64;
        if block.falls_through {
            m.cpu.eip = m.cpu.eip.wrapping_add(block.length);
        }
        m.memory.set_executing(0..0);
        if m.cpu.pending_debug != 0 {
            return debug_trap_after(m);
        }
        Outcome::Continue
    }

    /// Executes one instruction from a block of its own.
    fn run_single(&mut self, m: &mut Machine) -> Outcome {
        match self.blocks.find(m, Key::of(m, true)) {
            Ok(Some(block)) => execute_carefully(m, &block.ops[0], block.falls_through),
            Ok(None) => step_from_memory(m),
            Err(exception) => raise_from_fetch(m, exception),
        }
    }
}

/// Whether the next instruction has to be executed by itself.
#[inline]
fn needs_care(m: &Machine) -> bool {
    m.cpu.flags.single_steps()
        | (m.cpu.interrupt_shadow != InterruptShadow::None)
        | (m.cpu.pending_debug != 0)
        | debug::enabled(m)
}

/// Executes one instruction, exceptions delivered.
///
/// It is decoded anew each time: use an [`Emulator`] for many. A CPU that waits in HLT stays there,
/// and one before an INT3 while there are breakpoints ([`Machine::breakpoints`]).
pub fn step(m: &mut Machine) -> Outcome {
    if m.cpu.halted {
        return Outcome::Halted;
    }
    mode::update(m);
    let outcome = step_from_memory(m);
    m.clock().retire(1);
    crate::float::leave(m);
    if outcome == Outcome::Continue && m.cpu.halted { Outcome::Halted } else { outcome }
}

pub(crate) fn step_from_memory(m: &mut Machine) -> Outcome {
    match fetch::instruction(m) {
        Ok((op, flow)) => execute_carefully(m, &op, flow != Flow::Jump),
        Err(exception) => raise_from_fetch(m, exception),
    }
}

/// Executes one instruction with what surrounds it: breakpoints before, RF, the interrupt shadow,
/// and debug traps after (Intel SDM volume 3, 6.8.3, 6.9 and 17.3).
pub(crate) fn execute_carefully(m: &mut Machine, op: &Op, falls_through: bool) -> Outcome {
    if m.breakpoints.are_set() && op.instruction.code() == Code::Int3 {
        return stop_for_debugger(m);
    }
    let shadow = std::mem::take(&mut m.cpu.interrupt_shadow);
    if shadow != InterruptShadow::MovSs
        && let Some(outcome) = debug_exception_before(m)
    {
        return outcome;
    }
    let single_step = m.cpu.flags.contains(Eflags::TF);
    m.cpu.flags.set(Eflags::RF, false);
    m.counters.instructions += 1;
    if let Err(exception) = (op.handler)(m, op) {
        return raise_from(m, op, exception);
    }
    if falls_through {
        m.cpu.eip = op.next_eip(m);
    }
    if single_step && !debug::swallows_single_step(m, &op.instruction) {
        m.cpu.pending_debug |= Dr6::BS;
    }
    debug_trap_after(m)
}

/// Ends the run before the next instruction, for who set a breakpoint here or planted an INT3.
#[cold]
fn stop_for_debugger(m: &mut Machine) -> Outcome {
    m.breakpoints.note_hit();
    m.signals().request(Request::Stop);
    Outcome::Continue
}

/// A trap that was put off, or an instruction breakpoint.
fn debug_exception_before(m: &mut Machine) -> Option<Outcome> {
    if m.cpu.pending_debug != 0 {
        return Some(debug_trap_after(m));
    }
    if !debug::enabled(m) || m.cpu.flags.contains(Eflags::RF) {
        return None;
    }
    let bits = debug::instruction_breakpoint(m, m.cpu.instruction_address());
    if bits == 0 {
        return None;
    }
    m.cpu.debug[6] |= bits;
    m.counters.instructions += 1;
    Some(raise(m, Exception::DEBUG))
}

/// Raises the debug trap that is due, unless the instruction before loaded SS: it is then put off,
/// and a single-step trap lost.
fn debug_trap_after(m: &mut Machine) -> Outcome {
    if m.cpu.interrupt_shadow == InterruptShadow::MovSs {
        m.cpu.pending_debug &= !Dr6::BS;
        return Outcome::Continue;
    }
    let bits = std::mem::take(&mut m.cpu.pending_debug);
    if bits == 0 {
        return Outcome::Continue;
    }
    m.cpu.debug[6] |= bits;
    raise(m, Exception::DEBUG.as_trap())
}

/// Raises what the instruction `op` raised, with EIP where the exception's class puts it.
#[cold]
fn raise_from(m: &mut Machine, op: &Op, exception: Exception) -> Outcome {
    if !exception.is_in_new_task() {
        m.cpu.eip = if exception.is_trap() { op.next_eip(m) } else { op.eip(m) };
    }
    raise(m, exception)
}

/// Raises what fetching raised. It counts as an instruction: a guest whose handlers cannot be fetched
/// must come to its limit all the same.
#[cold]
fn raise_from_fetch(m: &mut Machine, exception: Exception) -> Outcome {
    m.counters.instructions += 1;
    raise(m, exception)
}

#[cold]
fn raise(m: &mut Machine, exception: Exception) -> Outcome {
    m.cpu.halted = false;
    interrupt::raise(m, exception)
}
