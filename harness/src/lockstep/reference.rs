//! The reference: the emulator on a machine of its own, led to where a strategy has stopped.

use super::accessed;
use super::chase::{Chase, Closest, Missed, Why};
use super::runner::Stretch;
use super::undefined;
use emulator::{Emulator, Outcome};
use iced_x86::Instruction;
use machine::cpu::Eflags;
use machine::host_time::processor_nanos;
use machine::tap::{Choice, Event};
use machine::{Cpu, Machine, PhysicalAddress};
use std::collections::VecDeque;
use strategy::Stop;

/// The emulator and its machine.
pub(super) struct Reference {
    pub(super) machine: Machine,
    emulator: Emulator,
    /// The CPU where the stretch began.
    begun: Cpu,
    /// Pages that were written lately, the latest last.
    recent: VecDeque<PhysicalAddress>,
    /// Where memory was last found to differ: where loops change nothing but memory, that is looked at
    /// again and again.
    witness: Option<PhysicalAddress>,
    /// What was taken from the strategy of what the architecture leaves open.
    choices: Vec<Choice>,
    /// Whether all memory has to be the same at a stretch's end, and not what was written lately.
    whole_memory: bool,
    /// Nanoseconds of processor time that one way to a stretch's end takes at most.
    pub(super) longest_chase: u64,
}

/// Pages that are remembered as written lately.
const MOST_RECENT: usize = 128;

/// That much as long as nothing is wrong: code that changes itself is slow here, and the bound of a
/// strategy that does not count is a guess from above.
const LONGEST_CHASE: u64 = 2_000_000_000;
/// Instructions between two looks at that; one can be thousands of iterations.
const GLANCE: u64 = 1 << 16;

/// Visits of a stretch's end at which nothing but flags differs, and for which it is looked whether
/// those are undefined there.
const MOST_FLAG_CHECKS: u32 = 16;

/// A place in a stretch.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The CPU where the stretch begins, as does the reference's journal.
    pub(super) base: &'a Cpu,
    /// What comes in from there on.
    pub(super) events: &'a [Event],
    /// Instructions behind that.
    pub(super) count: u64,
}

impl Reference {
    /// With `whole_memory` all memory is looked at where a stretch may have ended.
    pub(super) fn new(machine: Machine, whole_memory: bool) -> Reference {
        Reference {
            begun: machine.cpu.clone(),
            machine,
            emulator: Emulator::new(),
            recent: VecDeque::new(),
            witness: None,
            choices: Vec::new(),
            whole_memory,
            longest_chase: LONGEST_CHASE,
        }
    }

    /// Takes what was taken from the strategy since the last call.
    pub(super) fn take_choices(&mut self) -> Vec<Choice> {
        std::mem::take(&mut self.choices)
    }

    /// Goes to a place; how many events come before it.
    pub(super) fn go_to(&mut self, origin: &Origin<'_>) -> usize {
        self.machine.undo_writes();
        self.machine.cpu = origin.base.clone();
        self.execute(origin.events, origin.count);
        let left = self.machine.replay_left();
        self.machine.bus.tap.switch_off();
        quieten(&self.machine);
        // The strategy begins without translations.
        self.machine.tlb.flush();
        origin.events.len() - left
    }

    /// Executes up to `count` instructions from a log; how many there were.
    pub(super) fn execute(&mut self, events: &[Event], count: u64) -> u64 {
        let machine = &mut self.machine;
        machine.replay(events.to_vec());
        let begun = machine.counters.instructions;
        loop {
            quieten(machine);
            let executed = machine.counters.instructions - begun;
            let outcome = match count.checked_sub(executed) {
                None | Some(0) => return executed,
                Some(left) => self.emulator.run(machine, left),
            };
            if outcome != Outcome::Continue {
                return machine.counters.instructions - begun;
            }
        }
    }

    /// Executes up to `count` instructions from a log one by one, with a look at each before. The last
    /// has been looked at and not executed where that says nothing. Returns what the last one came to.
    pub(super) fn walk(
        &mut self,
        events: &[Event],
        count: u64,
        mut look: impl FnMut(&mut Machine, Option<&Instruction>) -> Option<()>,
    ) -> Outcome {
        let machine = &mut self.machine;
        machine.replay(events.to_vec());
        let mut outcome = Outcome::Continue;
        for _ in 0..count {
            let instruction = emulator::instruction(machine);
            quieten(machine);
            if look(machine, instruction.as_ref()).is_none() {
                break;
            }
            outcome = emulator::step(machine);
            if outcome != Outcome::Continue {
                break;
            }
        }
        machine.bus.tap.switch_off();
        quieten(machine);
        outcome
    }

    /// Runs from `origin`, where it is, to where a stretch has ended, which `leader` shows. What the
    /// architecture leaves open about flags is taken from there.
    pub(super) fn follow(
        &mut self,
        origin: &Origin<'_>,
        leader: &Machine,
        stretch: &Stretch,
    ) -> Chase {
        self.run_after(Some(origin), leader, stretch)
    }

    /// The same from the state in which it is, one instruction behind the origin, and all flags must be
    /// as the strategy has them.
    pub(super) fn chase(&mut self, leader: &Machine, stretch: &Stretch) -> Chase {
        self.run_after(None, leader, stretch)
    }

    fn run_after(
        &mut self,
        origin: Option<&Origin<'_>>,
        leader: &Machine,
        stretch: &Stretch,
    ) -> Chase {
        self.machine.replay(stretch.events.clone());
        let before = if origin.is_none() { 1 } else { 0 };
        let begun = self.machine.counters.instructions - before;
        let (target, bound) = (&stretch.cpu, stretch.bound());
        let mut closest = Closest::default();
        let deadline = processor_nanos() + self.longest_chase;
        let (mut flag_checks, mut halted, mut glance) = (MOST_FLAG_CHECKS, false, GLANCE);
        let why = loop {
            let executed = self.machine.counters.instructions - begun;
            let may_be = stretch.may_be(executed);
            let mut is_there = may_be && self.is_there(leader, stretch);
            if let Some(origin) = origin.filter(|_| may_be && !is_there && flag_checks > 0)
                && let Some(flags) = differing_flags(&self.machine.cpu, &stretch.cpu)
            {
                flag_checks -= 1;
                let until = deadline + self.longest_chase;
                match self.takes_flags(origin, leader, stretch, (executed, until), flags) {
                    Some(takes) => is_there = takes,
                    None => break Why::Late,
                }
            }
            if is_there {
                self.machine.bus.tap.switch_off();
                return Chase::Reached(executed);
            }
            closest.note(&self.machine, leader, target, executed);
            quieten(&self.machine);
            if let Some(divergence) = self.machine.divergence().filter(|_| !stretch.overran) {
                break Why::Inputs(divergence.clone());
            }
            if halted {
                break Why::Halted;
            }
            if executed >= bound {
                break Why::Bound;
            }
            if executed >= glance && processor_nanos() >= deadline {
                break Why::Late;
            }
            glance = glance.max(executed / GLANCE * GLANCE + GLANCE);
            let most = (bound - executed).min(glance - executed);
            match self.emulator.run_to(&mut self.machine, target.eip, most) {
                Outcome::Continue => {}
                Outcome::Halted => halted = true,
                Outcome::Shutdown if stretch.stop == Stop::TripleFault => {
                    self.machine.bus.tap.switch_off();
                    return Chase::Reached(self.machine.counters.instructions - begun);
                }
                Outcome::Shutdown => break Why::Shutdown,
            }
        };
        quieten(&self.machine);
        self.machine.bus.tap.switch_off();
        Chase::Missed(Box::new(Missed { why, closest: closest.found() }))
    }

    /// Whether nothing is different but these flags, and they are undefined here, so many instructions behind
    /// `origin`; they are then taken over. The way is gone once more for that, and ends in the same place.
    /// Nothing where it does not end until a processor time.
    fn takes_flags(
        &mut self,
        origin: &Origin<'_>,
        leader: &Machine,
        stretch: &Stretch,
        (executed, until): (u64, u64),
        flags: Eflags,
    ) -> Option<bool> {
        let counters = self.machine.counters;
        self.go_to(origin);
        let undefined = undefined::after(&mut self.machine, &stretch.events, executed, until)?;
        self.machine.counters = counters;
        let (mine, theirs) = (self.machine.cpu.flags, stretch.cpu.flags.bits());
        self.machine.cpu.flags.merge(theirs, flags);
        if undefined.contains(flags) && self.is_there(leader, stretch) {
            self.choices.push(Choice::Flags { value: theirs, mask: flags.bits() });
            return Some(true);
        }
        self.machine.cpu.flags = mine;
        Some(false)
    }

    /// Goes on to where the CPU is `cpu` once more, if it does so soon and without the world outside; after
    /// how many instructions.
    pub(super) fn go_round(&mut self, cpu: &Cpu) -> Option<u64> {
        const MOST: u64 = 10_000;
        if self.machine.cpu.halted || !self.machine.cpu.is_same(cpu) {
            return None;
        }
        self.machine.replay(Vec::new());
        quieten(&self.machine);
        let begun = self.machine.counters.instructions;
        let outcome = self.emulator.run_to(&mut self.machine, cpu.eip, MOST);
        let asked = self.machine.divergence().is_some();
        self.machine.bus.tap.switch_off();
        quieten(&self.machine);
        let is_back = outcome == Outcome::Continue && !asked && self.machine.cpu.is_same(cpu);
        is_back.then(|| self.machine.counters.instructions - begun)
    }

    fn is_there(&mut self, leader: &Machine, stretch: &Stretch) -> bool {
        let cpu = &self.machine.cpu;
        stretch.stop != Stop::TripleFault
            && cpu.eip == stretch.cpu.eip
            && cpu.registers == stretch.cpu.registers
            && self.machine.replay_left() == 0
            && cpu.is_same(&stretch.cpu)
            && self.has_written_the_same(leader, stretch)
    }

    /// Whether memory is the same in the other machine.
    fn has_written_the_same(&mut self, leader: &Machine, stretch: &Stretch) -> bool {
        if self.witness.is_some_and(|at| accessed::is_other_difference(leader, &self.machine, at)) {
            return false;
        }
        let cpus = [&self.begun, &stretch.cpu];
        let mut bits = Vec::new();
        for page in self.differing_pages(leader) {
            match accessed::Bits::find(leader, &self.machine, page, &cpus) {
                Some(found) => bits.push(found),
                None => {
                    self.witness = accessed::other_difference(leader, &self.machine, page);
                    return false;
                }
            }
        }
        // None before all are known: this may be another place after all.
        bits.into_iter().for_each(|bits| bits.set(&mut self.machine, &mut self.choices));
        true
    }

    /// The pages that differ: of those that the reference has written, in this stretch or lately, as long as
    /// nothing else is asked for. What only the strategy has written mostly lies in one of them.
    fn differing_pages(&self, leader: &Machine) -> Vec<PhysicalAddress> {
        if self.whole_memory {
            return machine::differing_pages(&self.machine, leader);
        }
        let (mine, theirs) = (&self.machine.memory, &leader.memory);
        let written = mine.kept_pages().map(|(address, _)| address);
        let written = written.chain(self.recent.iter().copied());
        written.filter(|&address| mine.page(address) != theirs.page(address)).collect()
    }

    /// Remembers the pages that were written since the journal began.
    pub(super) fn remember_written(&mut self) {
        for (address, _) in self.machine.memory.kept_pages() {
            self.recent.retain(|&page| page != address);
            self.recent.push_back(address);
        }
        let superfluous = self.recent.len().saturating_sub(MOST_RECENT);
        self.recent.drain(..superfluous);
    }
}

/// Takes what would make the emulator come back at once.
fn quieten(machine: &Machine) {
    machine.signals().take_request();
    machine.signals().take_attention();
}

/// The arithmetic flags that differ, if nothing else of the CPUs does.
fn differing_flags(left: &Cpu, right: &Cpu) -> Option<Eflags> {
    let flags =
        Eflags::from_bits_truncate(left.flags.bits() ^ right.flags.bits()) & Eflags::ARITHMETIC;
    let mut merged = left.clone();
    merged.flags.merge(right.flags.bits(), flags);
    (!flags.is_empty() && merged.is_same(right)).then_some(flags)
}
