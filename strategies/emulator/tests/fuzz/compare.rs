//! Two ways through one case: instruction by instruction without a cache, and by decoded blocks.

use crate::random::Random;
use crate::state::{BYTES, Start, TABLES};
use emulator::{Emulator, Outcome, deliver_interrupt, step};
use machine::clock::ClockSource;
use machine::cpu::{Cpu, Cr0, Eflags};
use machine::{Machine, MachineConfig, PhysicalAddress, Vector};

/// Instructions before and after the external interrupt that may come.
const HALVES: [u64; 2] = [24, 24];

/// The two machines, used for case after case.
pub(crate) struct Pair {
    stepped: Machine,
    blocks: Machine,
    emulator: Emulator,
    /// Room for the memory of both.
    images: [Vec<u8>; 2],
}

/// How a case ended.
pub(crate) enum Verdict {
    /// Both ways agree.
    Same,
    /// They need not agree: ports were used, or page tables changed without a flush.
    Incomparable,
    /// They differ, in this.
    Different(String),
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let config = MachineConfig {
            memory_bytes: 1 << 20,
            clock: ClockSource::Virtual,
            ..MachineConfig::default()
        };
        let machine = || Machine::new(&config).expect("memory for a machine");
        Pair {
            stepped: machine(),
            blocks: machine(),
            emulator: Emulator::new(),
            images: [vec![0; BYTES], vec![0; BYTES]],
        }
    }

    /// Runs one case both ways.
    pub(crate) fn run(&mut self, random: &mut Random, start: &Start) -> Verdict {
        for machine in [&mut self.stepped, &mut self.blocks] {
            start.install(machine);
            machine.counters = machine::counters::Counters::default();
        }
        let interrupt = random.one_in(4).then(|| Vector(random.byte()));
        for (number, instructions) in HALVES.into_iter().enumerate() {
            let end = self.stepped.counters.instructions + instructions;
            let ends = [step_to(&mut self.stepped, end), self.run_blocks(end)];
            if ends[0] != ends[1] {
                return self.explain(start, format!("outcomes {ends:?}"));
            }
            if let Some(difference) = self.difference() {
                return self.explain(start, difference);
            }
            if ends[0] == Outcome::Shutdown {
                break;
            }
            if let Some(vector) = interrupt.filter(|_| number == 0) {
                deliver(&mut self.stepped, vector);
                deliver(&mut self.blocks, vector);
            }
        }
        Verdict::Same
    }

    /// Runs with random budgets, which must be kept exactly.
    fn run_blocks(&mut self, end: u64) -> Outcome {
        let machine = &mut self.blocks;
        let mut budget = 1;
        while machine.counters.instructions < end {
            let left = end - machine.counters.instructions;
            budget = (budget * 5 + 2) % 23 + 1;
            let before = machine.counters.instructions;
            // A debug trap that was put off is raised without an instruction.
            let trap_due = machine.cpu.pending_debug != 0;
            let outcome = self.emulator.run(machine, left.min(budget));
            let done = machine.counters.instructions - before;
            assert!(done <= left.min(budget), "{done} instructions for {}", left.min(budget));
            check_invariants(machine);
            if outcome != Outcome::Continue {
                return outcome;
            }
            assert!(done > 0 || trap_due, "no progress");
        }
        if machine.cpu.halted { Outcome::Halted } else { Outcome::Continue }
    }

    fn explain(&self, start: &Start, difference: String) -> Verdict {
        let used_ports = self.stepped.counters.port_io + self.blocks.counters.port_io > 0;
        let paging = self.stepped.cpu.cr0.contains(Cr0::PG) || start.cpu.cr0.contains(Cr0::PG);
        if used_ports || (paging && self.tables_changed(start)) {
            Verdict::Incomparable
        } else {
            Verdict::Different(difference)
        }
    }

    /// Whether more than accessed and dirty bits of the page tables changed, or others are in use.
    fn tables_changed(&self, start: &Start) -> bool {
        let changed = |machine: &Machine| {
            let mut tables = vec![0; TABLES.len()];
            machine.memory.read(PhysicalAddress(TABLES.start as u64), &mut tables);
            let bits = |bytes: &[u8], at: usize| {
                bytes[at] & if at.is_multiple_of(4) { 0x9f } else { 0xff }
            };
            let before = &start.memory[TABLES];
            machine.cpu.cr3 != start.cpu.cr3
                || machine.cpu.cr4 != start.cpu.cr4
                || (0..tables.len()).any(|at| bits(&tables, at) != bits(before, at))
        };
        changed(&self.stepped) || changed(&self.blocks)
    }

    fn difference(&mut self) -> Option<String> {
        let cpus = [&self.stepped.cpu, &self.blocks.cpu];
        if !same(cpus[0], cpus[1]) {
            let [stepped, blocks] = cpus.map(describe);
            let mut pairs = stepped.into_iter().zip(blocks);
            let (a, b) = pairs.find(|(a, b)| a != b).unwrap_or_default();
            return Some(format!("stepped: {a}\nblocks:  {b}"));
        }
        let counts = [&self.stepped, &self.blocks].map(|m| m.counters.instructions);
        if counts[0] != counts[1] {
            return Some(format!("instructions {counts:?}"));
        }
        for (machine, image) in [&self.stepped, &self.blocks].into_iter().zip(&mut self.images) {
            machine.memory.read(PhysicalAddress(0), image);
        }
        let [a, b] = &self.images;
        if a == b {
            return None;
        }
        let at = a.iter().zip(b).position(|(a, b)| a != b)?;
        Some(format!("memory at {at:#x}: {:#x}, {:#x}", a[at], b[at]))
    }

    /// The rest of memory must be the same as well, and is made zero again.
    pub(crate) fn compare_the_rest(&mut self) -> bool {
        let rest = |machine: &mut Machine| {
            let mut bytes = vec![0; (0xa_0000) - BYTES];
            let at = PhysicalAddress(BYTES as u64);
            machine.memory.read(at, &mut bytes);
            if bytes.iter().any(|&byte| byte != 0) {
                machine.memory.write(at, &vec![0; bytes.len()]);
            }
            bytes
        };
        rest(&mut self.stepped) == rest(&mut self.blocks)
    }
}

fn step_to(machine: &mut Machine, end: u64) -> Outcome {
    while machine.counters.instructions < end {
        let before = machine.counters.instructions;
        let outcome = step(machine);
        check_invariants(machine);
        if outcome != Outcome::Continue {
            return outcome;
        }
        let counted = machine.counters.instructions - before;
        assert!(counted <= 1, "one step, {counted} instructions");
    }
    if machine.cpu.halted { Outcome::Halted } else { Outcome::Continue }
}

fn deliver(machine: &mut Machine, vector: Vector) {
    if machine.cpu.interruptible() {
        let _ = deliver_interrupt(machine, vector);
    }
}

/// What must hold between any two instructions.
fn check_invariants(machine: &Machine) {
    let flags = machine.cpu.flags.bits();
    assert_eq!(flags & !Eflags::all().bits(), 0, "reserved EFLAGS bits");
    assert_ne!(flags & Eflags::FIXED.bits(), 0, "EFLAGS bit 1");
    assert!(!machine.cpu.fpu.resident, "x87 state left in the host");
    assert!(machine.cpu.cpl <= 3);
    if machine.cpu.in_virtual_8086_mode() {
        assert_eq!(machine.cpu.cpl, 3);
    }
    assert!(!machine.memory.is_executing(PhysicalAddress(0), u32::MAX), "still executing");
}

fn same(a: &Cpu, b: &Cpu) -> bool {
    let integer = |cpu: &Cpu| (cpu.registers, cpu.eip, cpu.flags.bits(), cpu.cpl, cpu.halted);
    let control = |cpu: &Cpu| (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.pdptes, cpu.msrs);
    let tables = |cpu: &Cpu| (cpu.segments, cpu.gdtr, cpu.idtr, cpu.ldtr, cpu.tr);
    let events = |cpu: &Cpu| (cpu.debug, cpu.pending_debug, cpu.interrupt_shadow);
    integer(a) == integer(b)
        && control(a) == control(b)
        && tables(a) == tables(b)
        && events(a) == events(b)
        && a.fpu == b.fpu
}

/// Everything architectural, in pieces that can be compared and printed.
fn describe(cpu: &Cpu) -> Vec<String> {
    let mut parts = vec![
        format!("{:x?} eip {:x} halted {}", cpu.registers, cpu.eip, cpu.halted),
        format!("{:#x} cpl {} {:?}", cpu.flags.bits(), cpu.cpl, cpu.interrupt_shadow),
        format!("{:x?}", cpu.segments),
        format!("{:?} {:x} {:x} {:?} {:x?}", cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.pdptes),
        format!("{:x?} {:x?} {:x?} {:x?}", cpu.gdtr, cpu.idtr, cpu.ldtr, cpu.tr),
        format!("{:x?} {:x} {:x?}", cpu.debug, cpu.pending_debug, cpu.msrs),
    ];
    parts.push(format!("{:?}", cpu.fpu));
    parts
}
