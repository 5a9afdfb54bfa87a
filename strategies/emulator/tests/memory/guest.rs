//! The guest that the tests start from: flat 32-bit protected mode, a HLT behind every vector.

use emulator::{Emulator, Outcome, step};
use machine::cpu::{Cr0, Cr4, Segment, SegmentRegister, TableRegister, register};
use machine::{Machine, MachineConfig, PhysicalAddress};
use std::ops::{Deref, DerefMut};

pub(crate) const CODE: u32 = 0x1_0000;
pub(crate) const DATA: u32 = 0x1_8000;
pub(crate) const STACK: u32 = 0x8000;
const GDT: u32 = 0x1000;
const IDT: u32 = 0x2000;
const TSS: u32 = 0x3000;
/// Vector v's handler is at `HANDLERS + v`.
const HANDLERS: u32 = 0x4000;
/// The page directory; behind it the page tables of the first 8 MiB.
pub(crate) const DIRECTORY: u32 = 0x2_0000;
pub(crate) const TABLE0: u32 = 0x2_1000;
pub(crate) const TABLE1: u32 = 0x2_2000;
/// A linear page that only the second page table maps, to physical `FRAME`.
pub(crate) const PAGE: u32 = 0x40_0000;
pub(crate) const FRAME: u32 = 0x3_0000;

/// A page fault as its handler sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageFault {
    pub(crate) code: u32,
    pub(crate) address: u32,
    pub(crate) eip: u32,
}

pub(crate) struct Guest {
    machine: Machine,
    pub(crate) emulator: Emulator,
}

impl Deref for Guest {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Guest {
    /// In ring 0, without paging.
    pub(crate) fn new() -> Guest {
        let config = MachineConfig { memory_bytes: 2 << 20, ..MachineConfig::default() };
        Guest::with(&config)
    }

    pub(crate) fn with(config: &MachineConfig) -> Guest {
        let machine = Machine::new(config).unwrap();
        let mut guest = Guest { machine, emulator: Emulator::new() };
        guest.cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
        guest.cpu.cr4 = Cr4::OSFXSR;
        for (number, entry) in
            [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffffu64].iter().enumerate()
        {
            guest.write(GDT + number as u32 * 8, &entry.to_le_bytes());
        }
        guest.cpu.gdtr = TableRegister { base: GDT, limit: 23 };
        for vector in 0..32 {
            let gate = 0x0000_8e00_0008_0000 | u64::from(HANDLERS + vector);
            guest.write(IDT + vector * 8, &gate.to_le_bytes());
        }
        guest.cpu.idtr = TableRegister { base: IDT, limit: 0xff };
        guest.write(HANDLERS, &[0xf4; 32]);
        guest.write_u32(TSS + 4, STACK);
        guest.write_u32(TSS + 8, 0x10);
        guest.cpu.tr = Segment::system(0x28, TSS, 0x67, 0x8b);
        guest.set_ring(0);
        guest.cpu.eip = CODE;
        guest.cpu.registers[register::ESP] = STACK;
        guest
    }

    /// With paging: the first 1 MiB one to one for all rings, and [`PAGE`].
    pub(crate) fn paged() -> Guest {
        let mut guest = Guest::new();
        guest.write_u32(DIRECTORY, TABLE0 | 7);
        guest.write_u32(DIRECTORY + 4, TABLE1 | 7);
        for page in 0..256 {
            guest.write_u32(TABLE0 + page * 4, page << 12 | 7);
        }
        guest.map(0, FRAME | 7);
        guest.cpu.cr3 = DIRECTORY;
        guest.cpu.cr0 |= Cr0::PG;
        guest
    }

    /// Flat segments for a ring, which is entered.
    pub(crate) fn set_ring(&mut self, ring: u8) {
        for number in SegmentRegister::ALL {
            let code = number == SegmentRegister::Cs;
            let selector = if code { 8 } else { 16 } | u16::from(ring);
            *self.cpu.segment_mut(number) = Segment::flat(selector, code, ring);
        }
        self.cpu.cpl = ring;
    }

    /// Sets the entry of page `number` from [`PAGE`] on.
    pub(crate) fn map(&mut self, number: u32, entry: u32) {
        self.write_u32(TABLE1 + number * 4, entry);
    }

    /// That entry.
    pub(crate) fn entry(&self, number: u32) -> u32 {
        self.read_u32(TABLE1 + number * 4)
    }

    /// Writes as the host.
    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) {
        assert!(self.machine.memory.write(PhysicalAddress(u64::from(address)), bytes));
    }

    pub(crate) fn write_u32(&mut self, address: u32, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn read<const N: usize>(&self, address: u32) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(self.memory.read(PhysicalAddress(u64::from(address)), &mut bytes));
        bytes
    }

    pub(crate) fn read_u32(&self, address: u32) -> u32 {
        u32::from_le_bytes(self.read(address))
    }

    pub(crate) fn set(&mut self, register: usize, value: u32) {
        self.cpu.registers[register] = value;
    }

    pub(crate) fn get(&self, register: usize) -> u32 {
        self.cpu.registers[register]
    }

    /// Executes one instruction at [`CODE`]; its page fault, if it raises one. Another exception
    /// fails the test. EIP and ESP are then as before.
    #[track_caller]
    pub(crate) fn access(&mut self, instruction: &[u8]) -> Result<(), PageFault> {
        self.write(CODE, instruction);
        self.cpu.eip = CODE;
        self.go()
    }

    /// Executes the instruction at EIP, wherever it is, like [`Guest::access`].
    #[track_caller]
    pub(crate) fn go(&mut self) -> Result<(), PageFault> {
        let before = self.cpu.clone();
        assert_eq!(step(&mut self.machine), Outcome::Continue);
        let Some(vector) = self.raised() else { return Ok(()) };
        assert_eq!(vector, 14, "another exception");
        let esp = self.get(register::ESP);
        let fault = PageFault {
            code: self.read_u32(esp),
            address: self.cpu.cr2,
            eip: self.read_u32(esp + 4),
        };
        let (registers, cr2) = (self.cpu.registers, self.cpu.cr2);
        self.cpu = before;
        self.cpu.registers[..register::ESP].copy_from_slice(&registers[..register::ESP]);
        self.cpu.registers[register::EBP..].copy_from_slice(&registers[register::EBP..]);
        self.cpu.cr2 = cr2;
        Err(fault)
    }

    /// The vector whose handler is about to run.
    pub(crate) fn raised(&self) -> Option<u32> {
        self.cpu.eip.checked_sub(HANDLERS).filter(|&vector| vector < 32)
    }

    /// Runs up to `count` instructions by blocks.
    pub(crate) fn run(&mut self, count: u64) -> Outcome {
        self.emulator.run(&mut self.machine, count)
    }

    pub(crate) fn step(&mut self) -> Outcome {
        step(&mut self.machine)
    }
}

/// Runs `code` at [`CODE`] for `count` instructions, once by steps and once by blocks, and returns
/// both guests for the test to look at. `prepare` has the guest before.
#[track_caller]
pub(crate) fn both_ways(code: &[u8], count: u64, prepare: impl Fn(&mut Guest)) -> [Guest; 2] {
    let mut guests = [Guest::new(), Guest::new()];
    for guest in &mut guests {
        guest.write(CODE, code);
        prepare(guest);
    }
    let [stepped, blocks] = &mut guests;
    for _ in 0..count {
        stepped.step();
    }
    while blocks.counters.instructions < count && !blocks.cpu.halted {
        blocks.run(count - blocks.counters.instructions);
    }
    assert_eq!(stepped.cpu.registers, blocks.cpu.registers, "steps and blocks differ");
    assert_eq!(stepped.cpu.eip, blocks.cpu.eip, "steps and blocks differ");
    guests
}
