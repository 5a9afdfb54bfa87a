//! The emulator's side: the same case in a guest, at CPL 3 with the same segments and pages.
//!
//! Exceptions go through an IDT to addresses that tell the vector, where HLT waits; the guest's
//! state is then what the CPU has not saved and what it pushed. A case runs instruction by
//! instruction through `step`, or from decoded blocks.

use crate::case::{Case, Code};
use crate::ending::{Ending, Event};
use crate::layout::{
    ARENA, ARENAS, CODE, DATA, DATA_BYTES, HLT, PAGE, PAGES, STACK, STACK_BYTES, based_segment,
};
use crate::rules;
use emulator::{Emulator, Outcome};
use host::compatibility::Selectors;
use iced_x86::{Decoder, DecoderOptions};
use machine::clock::ClockSource;
use machine::cpu::{Cr0, Cr4, Segment, SegmentRegister, TableRegister, access, register};
use machine::{Cpu, Machine, MachineConfig, PhysicalAddress};

// Physical addresses.
const PAGE_DIRECTORY: u32 = 0x1000;
const ARENA_TABLE: u32 = 0x2000;
const KERNEL_TABLE: u32 = 0x3000;
const ARENA_PAGES: u32 = 0x1_0000;
/// The kernel's pages; the second half of the 64 KiB is not mapped.
const KERNEL_PAGES: u32 = 0x2_0000;

// Offsets in the kernel's pages.
const GDT: u32 = 0x0000;
const IDT: u32 = 0x1000;
const TSS: u32 = 0x2000;
const KERNEL_STACK: u32 = 0x4000;
/// Where vector 0's handler is; each is four bytes long.
const HANDLERS: u32 = 0x4000;
const KERNEL_BYTES: u32 = 0x5000;
/// The kernel's linear address.
const KERNEL: u32 = 0x6b73_0000;

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const TASK: u16 = 0x18;

/// Vectors that user code may call by INT.
const USER_VECTORS: [u32; 2] = [3, 4];
/// More steps than any case takes: REP runs at most over the arena.
const MOST_STEPS: u64 = 200_000;

/// What became of a case.
pub(crate) enum Run {
    /// It ended with an exception.
    Ended(Box<Ending>),
    /// It came to an instruction that is not compared: nothing can be said.
    Excluded,
    /// It has not ended.
    Endless,
    /// Something that no case should do.
    Wrong(String),
}

/// A guest that is used again for each case.
pub(crate) struct Emulated {
    machine: Machine,
    blocks: Emulator,
    template: Cpu,
    arena: u32,
}

impl Emulated {
    pub(crate) fn new(arena: u32) -> Emulated {
        let config = MachineConfig {
            memory_bytes: 1 << 20,
            clock: ClockSource::Virtual,
            ..MachineConfig::default()
        };
        let mut machine = Machine::new(&config).expect("a machine");
        for (at, bytes) in tables(arena) {
            assert!(machine.memory.write(PhysicalAddress(at.into()), &bytes));
        }
        let mut template = machine.cpu.clone();
        set_up(&mut template);
        Emulated { machine, blocks: Emulator::new(), template, arena }
    }

    /// Runs a case to its end with `step`.
    pub(crate) fn step(&mut self, case: &Case, code: &Code, selectors: Selectors) -> Run {
        self.load(case, code, selectors);
        for _ in 0..MOST_STEPS {
            let at = self.machine.cpu.eip.wrapping_sub(case.flavour.origin(self.arena));
            if !code.boundaries.contains(&at) && self.is_excluded(case) {
                return Run::Excluded;
            }
            match emulator::step(&mut self.machine) {
                Outcome::Continue if self.machine.cpu.cpl == 0 => return self.ending(),
                Outcome::Continue => {}
                outcome => return Run::Wrong(format!("{outcome:?}")),
            }
        }
        Run::Endless
    }

    /// Runs a case to its end from decoded blocks.
    pub(crate) fn run(&mut self, case: &Case, code: &Code, selectors: Selectors) -> Run {
        self.load(case, code, selectors);
        // It has ended with `step`, so an end within as many instructions is due.
        match self.blocks.run(&mut self.machine, MOST_STEPS) {
            Outcome::Halted => self.ending(),
            Outcome::Continue => Run::Endless,
            Outcome::Shutdown => Run::Wrong("shutdown".to_owned()),
        }
    }

    fn load(&mut self, case: &Case, code: &Code, selectors: Selectors) {
        self.write(CODE, &code.page);
        self.write(DATA, &case.data);
        self.write(STACK, &case.stack);
        self.machine.cpu = self.start(case, selectors);
    }

    /// Whether the next instruction, which the generator did not put there, cannot be compared.
    fn is_excluded(&self, case: &Case) -> bool {
        let mut bytes = [0; 15];
        let linear = self.machine.cpu.instruction_address().0;
        for (at, byte) in bytes.iter_mut().enumerate() {
            let offset = linear.wrapping_sub(self.arena).wrapping_add(at as u32);
            if PAGES.iter().any(|&(start, length, _)| (start..start + length).contains(&offset)) {
                self.read(offset, std::slice::from_mut(byte));
            }
        }
        let mut decoder = Decoder::new(case.flavour.bits(), &bytes, DecoderOptions::NONE);
        rules::exclusion(&decoder.decode()).is_some()
    }

    fn start(&self, case: &Case, selectors: Selectors) -> Cpu {
        let mut cpu = self.template.clone();
        cpu.registers = case.registers;
        cpu.eip = case.flavour.origin(self.arena).wrapping_add(case.start);
        // IF as on the host; no device asks for an interrupt.
        cpu.flags.set_bits(case.eflags | 0x202);
        cpu.fpu = case.fpu.clone();
        let Selectors { cs, ss, ds, es, fs, gs } = selectors;
        for (register, selector) in SegmentRegister::ALL.into_iter().zip([es, cs, ss, ds, fs, gs]) {
            *cpu.segment_mut(register) = self.segment(case, register, selector);
        }
        cpu
    }

    fn segment(&self, case: &Case, register: SegmentRegister, selector: u16) -> Segment {
        let is_code = register == SegmentRegister::Cs;
        if selector == 0 {
            return Segment::null(0);
        }
        if case.flavour.is_flat() {
            return Segment::flat(selector, is_code, 3);
        }
        let shape = based_segment(register);
        let kind = match (is_code, shape.writable) {
            (true, _) => access::CODE | access::READABLE,
            (false, true) => access::WRITABLE,
            (false, false) => 0,
        };
        let big = !is_code || case.flavour.bits() == 32;
        let size = if big { access::DEFAULT_BIG } else { 0 };
        let rights = kind | access::PRESENT | access::NOT_SYSTEM | access::ACCESSED | 3 << 5 | size;
        Segment::new(selector, self.arena + shape.base, shape.limit, rights)
    }

    fn ending(&self) -> Run {
        let cpu = &self.machine.cpu;
        let vector = cpu.eip.wrapping_sub(KERNEL + HANDLERS) / 4;
        let Some(pushed) = (KERNEL + KERNEL_STACK).checked_sub(cpu.registers[register::ESP]) else {
            return Run::Wrong(format!("ESP {:#x} in the handler", cpu.registers[register::ESP]));
        };
        let has_error_code = pushed == 24;
        if vector > 255 || !has_error_code && pushed != 20 {
            return Run::Wrong(format!("handler at {:#x}, {pushed} bytes pushed", cpu.eip));
        }
        if vector == 14 && self.is_out_of_bounds(cpu.cr2) {
            return Run::Excluded;
        }
        let frame = |down: u32| {
            let at = KERNEL_PAGES + KERNEL_STACK - down;
            self.machine.memory.read_u32(PhysicalAddress(at.into()))
        };
        let mut registers = cpu.registers;
        registers[register::ESP] = frame(8);
        let mut memory = vec![0; (DATA_BYTES + STACK_BYTES) as usize];
        let (data, stack) = memory.split_at_mut(DATA_BYTES as usize);
        self.read(DATA, data);
        self.read(STACK, stack);
        Run::Ended(Box::new(Ending {
            event: Event {
                vector: vector as u8,
                error_code: if has_error_code { frame(24) } else { 0 },
                address: if vector == 14 { cpu.cr2 } else { 0 },
            },
            eip: frame(20),
            registers,
            eflags: frame(12),
            fpu: cpu.fpu.clone(),
            memory,
        }))
    }

    /// Whether the two sides cannot agree about an address outside the arena: another thread's
    /// arena is memory on the host, the kernel's pages are there in the guest.
    fn is_out_of_bounds(&self, address: u32) -> bool {
        let in_kernel = (KERNEL..KERNEL + KERNEL_BYTES).contains(&address);
        let in_arena = (address.wrapping_sub(self.arena) as usize) < ARENA;
        in_kernel || ARENAS.contains(&address) && !in_arena
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) {
        let at = PhysicalAddress((ARENA_PAGES + offset).into());
        assert!(self.machine.memory.write(at, bytes));
    }

    fn read(&self, offset: u32, bytes: &mut [u8]) {
        let at = PhysicalAddress((ARENA_PAGES + offset).into());
        assert!(self.machine.memory.read(at, bytes));
    }
}

/// Ring 3 with paging, everything that Linux has on: the host's CR0 and CR4 as far as user code
/// can tell.
fn set_up(cpu: &mut Cpu) {
    cpu.cr0 = Cr0::PE | Cr0::PG | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::AM;
    cpu.cr3 = PAGE_DIRECTORY;
    cpu.cr4 = Cr4::DE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    cpu.gdtr = TableRegister { base: KERNEL + GDT, limit: 0x17 };
    cpu.idtr = TableRegister { base: KERNEL + IDT, limit: 0x7ff };
    cpu.tr = Segment::system(TASK, KERNEL + TSS, 0x67, access::TSS32_BUSY);
    cpu.ldtr = Segment::null(0);
    cpu.cpl = 3;
}

/// Descriptor and page tables, as (physical address, contents).
fn tables(arena: u32) -> Vec<(u32, Vec<u8>)> {
    let quadwords =
        |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let doubleword = |at: u32, value: u32| (at, value.to_le_bytes().to_vec());
    // The task register is loaded already: a descriptor of the TSS is not needed.
    let gdt = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    let idt: Vec<u64> = (0..256).map(interrupt_gate).collect();
    let mut tables = vec![
        (KERNEL_PAGES + GDT, quadwords(&gdt)),
        (KERNEL_PAGES + IDT, quadwords(&idt)),
        doubleword(KERNEL_PAGES + TSS + 4, KERNEL + KERNEL_STACK),
        doubleword(KERNEL_PAGES + TSS + 8, KERNEL_DATA.into()),
        // No I/O bitmap: it would begin past the limit.
        doubleword(KERNEL_PAGES + TSS + 0x64, 0x68 << 16),
        (KERNEL_PAGES + HANDLERS, vec![HLT; 4 * 256]),
        doubleword(PAGE_DIRECTORY + (KERNEL >> 22) * 4, KERNEL_TABLE | 3),
        doubleword(PAGE_DIRECTORY + (arena >> 22) * 4, ARENA_TABLE | 7),
    ];
    for at in (0..KERNEL_BYTES).step_by(PAGE as usize) {
        let index = (KERNEL + at) >> 12 & 0x3ff;
        tables.push(doubleword(KERNEL_TABLE + index * 4, (KERNEL_PAGES + at) | 3));
    }
    for (offset, length, writable) in PAGES {
        for at in (offset..offset + length).step_by(PAGE as usize) {
            let index = (arena + at) >> 12 & 0x3ff;
            let rights = if writable { 7 } else { 5 };
            tables.push(doubleword(ARENA_TABLE + index * 4, (ARENA_PAGES + at) | rights));
        }
    }
    tables
}

fn interrupt_gate(vector: u32) -> u64 {
    let dpl = if USER_VECTORS.contains(&vector) { 3 } else { 0 };
    let target = u64::from(KERNEL + HANDLERS + 4 * vector);
    target & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | (0x8e00 | dpl << 13) << 32
        | (target & 0xffff_0000) << 32
}
