//! How the reference's way to where a strategy has stopped came out.

use machine::tap::Divergence;
use machine::{Cpu, Machine};

/// Visits of a stretch's end with the same in all registers, at which it is looked how much memory differs.
const MOST_LOOKS: u32 = 1024;

/// Whether the reference came to where a strategy has stopped.
pub(super) enum Chase {
    /// Everything is equal there, after so many instructions.
    Reached(u64),
    /// It did not.
    Missed(Box<Missed>),
}

/// Where the reference went instead.
#[derive(Clone, Debug)]
pub(super) struct Missed {
    /// Why it went no further.
    pub(super) why: Why,
    /// The visit of the strategy's EIP at which most was equal.
    pub(super) closest: Option<Visit>,
}

/// Why the reference goes no further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// It has executed more than the strategy can have.
    Bound,
    /// It has taken too long.
    Late,
    /// It asked for something that the strategy did not.
    Inputs(Divergence),
    /// It waits in HLT.
    Halted,
    /// It met a triple fault.
    Shutdown,
}

/// The reference at the strategy's EIP.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// After how many instructions.
    pub(super) at: u64,
    pub(super) cpu: Cpu,
    /// Events of the log that are left.
    pub(super) left: usize,
    /// Registers that differ, flags among them.
    pub(super) distance: usize,
    /// Where none does: what else differs, as far as the reference has written it.
    apart: usize,
}

impl Missed {
    /// Whether nobody can say that something is wrong: the reference was where the strategy is, with the
    /// same in all registers, and no time was left to see whether memory comes to be the same.
    pub(super) fn is_undecided(&self) -> bool {
        self.why == Why::Late && self.closest.as_ref().is_some_and(|visit| visit.distance == 0)
    }
}

/// The visit of the strategy's EIP at which most was equal.
pub(super) struct Closest {
    visit: Option<Visit>,
    /// At how many more all bytes are compared.
    looks: u32,
}

impl Default for Closest {
    fn default() -> Closest {
        Closest { visit: None, looks: MOST_LOOKS }
    }
}

impl Closest {
    /// Notes where the reference is after `at` instructions, while `leader` is at `target`.
    pub(super) fn note(&mut self, reference: &Machine, leader: &Machine, target: &Cpu, at: u64) {
        let cpu = &reference.cpu;
        if cpu.eip != target.eip {
            return;
        }
        let registers = cpu.registers.iter().zip(&target.registers);
        let distance = registers.filter(|(mine, theirs)| mine != theirs).count()
            + usize::from(cpu.flags != target.flags);
        let mut apart = usize::MAX;
        if distance == 0 && self.looks > 0 {
            self.looks -= 1;
            apart = bytes_apart(reference, leader) + usize::from(!cpu.is_same(target));
        }
        let left = reference.replay_left();
        let order = |visit: &Visit| (visit.distance, visit.apart);
        if self.visit.as_ref().is_none_or(|visit| (distance, apart) < order(visit)) {
            self.visit = Some(Visit { at, cpu: cpu.clone(), left, distance, apart });
        }
    }

    pub(super) fn found(self) -> Option<Visit> {
        self.visit
    }
}

/// How many bytes differ in the pages that were written since the journal began.
fn bytes_apart(reference: &Machine, leader: &Machine) -> usize {
    let pages = reference.memory.kept_pages().map(|(address, _)| address);
    let differ = pages.filter_map(|address| {
        let sides = reference.memory.page(address).zip(leader.memory.page(address));
        sides.map(|(mine, theirs)| mine.iter().zip(theirs).filter(|(a, b)| *a != b).count())
    });
    differ.sum()
}
