//! The guest that the tests start from, and what they ask of it.

use emulator::{Outcome, step};
use machine::cpu::{Cr0, Descriptor, Segment, SegmentRegister, TableRegister, register};
use machine::{Machine, MachineConfig, PhysicalAddress, Selector};
use std::ops::{Deref, DerefMut};

pub(crate) const GDT: u32 = 0x1000;
pub(crate) const IDT: u32 = 0x2000;
pub(crate) const TSS: u32 = 0x3000;
/// Vector v's handler is at `HANDLERS + v`; every byte there is a HLT.
pub(crate) const HANDLERS: u32 = 0x4000;
/// Where the stack of ring 0 begins, and that which the TSS names.
pub(crate) const STACK0: u32 = 0x8000;
pub(crate) const INNER_STACK: u32 = 0x9000;
pub(crate) const STACK3: u32 = 0xb000;
pub(crate) const CODE: u32 = 0x1_0000;
pub(crate) const DATA: u32 = 0x1_8000;

pub(crate) const CODE0: u16 = 0x08;
pub(crate) const DATA0: u16 = 0x10;
pub(crate) const CODE3: u16 = 0x1b;
pub(crate) const DATA3: u16 = 0x23;
pub(crate) const TASK: u16 = 0x28;
/// The first selector that tests fill as they like.
pub(crate) const FREE: u16 = 0x40;

/// Bits of an access byte.
pub(crate) const PRESENT: u8 = 0x80;

/// A descriptor: base, limit, access byte, and the four flag bits G, D/B, L, AVL.
pub(crate) fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    u64::from(limit & 0xffff)
        | u64::from(base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | u64::from(limit >> 16 & 15) << 48
        | u64::from(flags & 15) << 52
        | u64::from(base >> 24) << 56
}

/// A flat 32-bit segment with an access byte.
pub(crate) fn flat(access: u8) -> u64 {
    descriptor(0, 0xf_ffff, access, 0xc)
}

/// A gate: type and DPL in the access byte.
pub(crate) fn gate(selector: u16, offset: u32, access: u8, parameters: u8) -> u64 {
    u64::from(offset & 0xffff)
        | u64::from(selector) << 16
        | u64::from(parameters) << 32
        | u64::from(access) << 40
        | u64::from(offset >> 16) << 48
}

/// A machine with tables, handlers and a TSS, at CPL 0 in flat 32-bit protected mode.
pub(crate) struct Guest(Machine);

impl Deref for Guest {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.0
    }
}

impl Guest {
    /// In ring 0.
    pub(crate) fn new() -> Guest {
        let config = MachineConfig { memory_bytes: 4 << 20, ..MachineConfig::default() };
        let mut guest = Guest(Machine::new(&config).unwrap());
        guest.cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
        guest.cpu.gdtr = TableRegister { base: GDT, limit: 0xff };
        guest.cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
        guest.set_descriptor(CODE0, flat(0x9b));
        guest.set_descriptor(DATA0, flat(0x93));
        guest.set_descriptor(CODE3, flat(0xfb));
        guest.set_descriptor(DATA3, flat(0xf3));
        guest.set_descriptor(TASK, descriptor(TSS, 0x67, 0x8b, 0));
        guest.cpu.tr = Segment::system(TASK, TSS, 0x67, 0x8b);
        guest.write_u32(TSS + 4, INNER_STACK);
        guest.write_u32(TSS + 8, u32::from(DATA0));
        for vector in 0..=255u8 {
            guest.set_gate(vector, gate(CODE0, handler(vector), 0x8e, 0));
        }
        guest.write(HANDLERS, &[0xf4; 256]);
        guest.load(SegmentRegister::Cs, CODE0);
        guest.use_data(DATA0);
        guest.cpu.registers[register::ESP] = STACK0;
        guest.cpu.eip = CODE;
        guest
    }

    /// In ring 3.
    pub(crate) fn in_ring3() -> Guest {
        let mut guest = Guest::new();
        guest.load(SegmentRegister::Cs, CODE3);
        guest.use_data(DATA3);
        guest.cpu.cpl = 3;
        guest.cpu.registers[register::ESP] = STACK3;
        guest
    }

    /// In real mode at `CODE` (CS 0x1000, IP 0) with a stack at 0x8000.
    pub(crate) fn in_real_mode() -> Guest {
        let mut guest = Guest::new();
        guest.cpu.cr0 = Cr0::ET;
        guest.cpu.segments = [Segment::real_mode(0); 6];
        *guest.cpu.segment_mut(SegmentRegister::Cs) = Segment::real_mode(0x1000);
        guest.cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
        guest.cpu.eip = 0;
        guest
    }

    /// Turns paging on, the first 4 MiB mapped one to one for all, with the tables at 0x20000.
    pub(crate) fn enable_paging(&mut self) {
        self.write_u32(0x2_0000, 0x2_1007);
        for page in 0..1024 {
            self.write_u32(0x2_1000 + page * 4, page << 12 | 7);
        }
        self.cpu.cr3 = 0x2_0000;
        self.cpu.cr0 |= Cr0::PG;
        self.tlb.flush();
    }

    /// Takes a page out of the page table.
    pub(crate) fn unmap(&mut self, address: u32) {
        self.write_u32(0x2_1000 + (address >> 12) * 4, 0);
        self.tlb.flush();
    }

    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) {
        assert!(self.0.memory.write(PhysicalAddress(u64::from(address)), bytes));
    }

    pub(crate) fn write_u16(&mut self, address: u32, value: u16) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn write_u32(&mut self, address: u32, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn read_u16(&self, address: u32) -> u16 {
        self.read_u32(address) as u16
    }

    pub(crate) fn read_u32(&self, address: u32) -> u32 {
        self.memory.read_u32(PhysicalAddress(u64::from(address)))
    }

    pub(crate) fn read_u64(&self, address: u32) -> u64 {
        self.memory.read_u64(PhysicalAddress(u64::from(address)))
    }

    pub(crate) fn set_descriptor(&mut self, selector: u16, value: u64) {
        self.write(GDT + u32::from(selector & !7), &value.to_le_bytes());
    }

    /// A descriptor's access byte as it is in the GDT now.
    pub(crate) fn access_byte(&self, selector: u16) -> u8 {
        (self.read_u64(GDT + u32::from(selector & !7)) >> 40) as u8
    }

    pub(crate) fn set_gate(&mut self, vector: u8, value: u64) {
        self.write(IDT + u32::from(vector) * 8, &value.to_le_bytes());
    }

    /// Loads a segment register from the GDT without any check.
    pub(crate) fn load(&mut self, register: SegmentRegister, selector: u16) {
        let value = self.read_u64(GDT + u32::from(selector & !7));
        *self.cpu.segment_mut(register) = Descriptor(value).to_segment(Selector(selector));
    }

    fn use_data(&mut self, selector: u16) {
        for register in SegmentRegister::ALL {
            if register != SegmentRegister::Cs {
                self.load(register, selector);
            }
        }
    }

    pub(crate) fn selector(&self, register: SegmentRegister) -> u16 {
        self.cpu.segment(register).selector
    }

    pub(crate) fn set(&mut self, register: usize, value: u32) {
        self.cpu.registers[register] = value;
    }

    pub(crate) fn get(&self, register: usize) -> u32 {
        self.cpu.registers[register]
    }

    pub(crate) fn set_flags(&mut self, bits: u32) {
        self.cpu.flags.set_bits(bits);
    }

    pub(crate) fn flags(&self) -> u32 {
        self.cpu.flags.bits()
    }

    /// Puts code at CS:EIP.
    pub(crate) fn code(&mut self, bytes: &[u8]) {
        let at = self.cpu.instruction_address().0;
        self.write(at, bytes);
    }

    pub(crate) fn step(&mut self) -> Outcome {
        step(&mut self.0)
    }

    /// Puts one instruction at CS:EIP and executes it.
    pub(crate) fn execute(&mut self, bytes: &[u8]) {
        self.code(bytes);
        assert_eq!(self.step(), Outcome::Continue, "{bytes:02x?}");
    }

    /// The doubleword `index` slots above the top of the current stack.
    pub(crate) fn stack(&self, index: u32) -> u32 {
        self.read_u32(self.stack_address() + index * 4)
    }

    /// The word `index` slots above the top of the current stack.
    pub(crate) fn stack16(&self, index: u32) -> u16 {
        self.read_u16(self.stack_address() + index * 2)
    }

    fn stack_address(&self) -> u32 {
        let stack = self.cpu.segment(SegmentRegister::Ss);
        let mask = if stack.is_32bit() { u32::MAX } else { 0xffff };
        stack.base.wrapping_add(self.cpu.registers[register::ESP] & mask)
    }

    /// Executes one instruction that has to raise `vector` with this error code, by an instruction
    /// that stays where it is.
    #[track_caller]
    pub(crate) fn faults(&mut self, bytes: &[u8], vector: u8, code: Option<u16>) {
        let eip = self.cpu.eip;
        self.code(bytes);
        assert_eq!(self.step(), Outcome::Continue, "{bytes:02x?}");
        assert_eq!(self.cpu.eip, handler(vector), "{bytes:02x?}: another vector");
        let frame = match code {
            Some(code) => {
                assert_eq!(self.stack(0), u32::from(code), "{bytes:02x?}: another error code");
                1
            }
            None => 0,
        };
        assert_eq!(self.stack(frame), eip, "{bytes:02x?}: another EIP");
    }

    /// Executes one instruction that has to raise #GP with this error code.
    #[track_caller]
    pub(crate) fn protects(&mut self, bytes: &[u8], code: u16) {
        self.faults(bytes, 13, Some(code));
    }
}

/// The handler's EIP of a vector.
pub(crate) fn handler(vector: u8) -> u32 {
    HANDLERS + u32::from(vector)
}
