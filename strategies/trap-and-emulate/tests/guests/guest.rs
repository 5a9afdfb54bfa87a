//! The guest that the tests start from, and the strategy that runs it.

use crate::Native;
use machine::cpu::{Cr0, Descriptor, Segment, SegmentRegister, TableRegister, register};
use machine::{Machine, MachineConfig, PhysicalAddress, Selector};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

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
/// Where tests put the code of handlers and of user programs.
pub(crate) const MORE_CODE: u32 = 0x1_2000;
pub(crate) const DATA: u32 = 0x1_8000;
/// The page directory, and the table for the first 4 MiB.
pub(crate) const DIRECTORY: u32 = 0x2_0000;
pub(crate) const TABLE: u32 = 0x2_1000;

pub(crate) const CODE0: u16 = 0x08;
pub(crate) const DATA0: u16 = 0x10;
pub(crate) const CODE3: u16 = 0x1b;
pub(crate) const DATA3: u16 = 0x23;
/// The first selector that tests fill as they like.
pub(crate) const FREE: u16 = 0x40;

/// A process has one window: one guest at a time.
static WINDOW: Mutex<()> = Mutex::new(());

/// Machine code out of assembly lines, in the mode that the first of them names.
macro_rules! guest_code {
    ($($name:ident: $($line:literal),* $(,)?;)*) => {$(
        core::arch::global_asm!(
            ".pushsection .rodata.guest_code, \"a\", @progbits",
            concat!(stringify!($name), ":"),
            ".quad 9f - 8f",
            "8:",
            $($line,)*
            ".code64",
            "9:",
            ".popsection",
        );
        fn $name() -> &'static [u8] {
            mod symbol {
                unsafe extern "C" {
                    pub(super) static $name: u64;
                }
            }
            // SAFETY: the assembly above puts the length there, and so many bytes behind it.
            unsafe {
                let length = &raw const symbol::$name;
                std::slice::from_raw_parts(length.add(1).cast(), *length as usize)
            }
        }
    )*};
}

/// A descriptor: base, limit, access byte, and the four flag bits G, D/B, L, AVL.
pub(crate) fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    u64::from(limit & 0xffff)
        | u64::from(base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | u64::from(limit >> 16 & 15) << 48
        | u64::from(flags & 15) << 52
        | u64::from(base >> 24) << 56
}

fn flat(access: u8) -> u64 {
    descriptor(0, 0xf_ffff, access, 0xc)
}

/// A gate: type and DPL in the access byte.
pub(crate) fn gate(offset: u32, access: u8) -> u64 {
    u64::from(offset & 0xffff)
        | u64::from(CODE0) << 16
        | u64::from(access) << 40
        | u64::from(offset >> 16) << 48
}

/// A machine with tables, handlers and a TSS, at CPL 0 in flat 32-bit protected mode.
pub(crate) fn machine() -> Machine {
    let config = MachineConfig { memory_bytes: 8 << 20, ..MachineConfig::default() };
    let mut m = Machine::new(&config).unwrap();
    m.cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
    m.cpu.gdtr = TableRegister { base: GDT, limit: 0xff };
    m.cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
    m.cpu.tr = Segment::system(0x28, TSS, 0x67, 0x8b);
    write(&mut m, TSS + 4, &INNER_STACK.to_le_bytes());
    write(&mut m, TSS + 8, &u32::from(DATA0).to_le_bytes());
    // No I/O permission map.
    write(&mut m, TSS + 0x66, &0x68u16.to_le_bytes());
    for (selector, access) in [(CODE0, 0x9b), (DATA0, 0x93), (CODE3, 0xfb), (DATA3, 0xf3)] {
        write(&mut m, GDT + u32::from(selector & !7), &flat(access).to_le_bytes());
    }
    for vector in 0..256 {
        write(&mut m, IDT + vector * 8, &gate(HANDLERS + vector, 0x8e).to_le_bytes());
    }
    write(&mut m, HANDLERS, &[0xf4; 256]);
    load(&mut m, SegmentRegister::Cs, CODE0);
    load_data(&mut m, DATA0);
    m.cpu.registers[register::ESP] = STACK0;
    m.cpu.eip = CODE;
    m
}

fn write(m: &mut Machine, address: u32, bytes: &[u8]) {
    assert!(m.memory.write(PhysicalAddress(u64::from(address)), bytes));
}

fn load(m: &mut Machine, register: SegmentRegister, selector: u16) {
    let value = m.memory.read_u64(PhysicalAddress(u64::from(GDT + u32::from(selector & !7))));
    *m.cpu.segment_mut(register) = Descriptor(value).to_segment(Selector(selector));
}

fn load_data(m: &mut Machine, selector: u16) {
    for register in SegmentRegister::ALL {
        if register != SegmentRegister::Cs {
            load(m, register, selector);
        }
    }
}

/// A machine and the strategy that runs it.
pub(crate) struct Guest {
    pub(crate) strategy: Native,
    machine: Machine,
    _window: MutexGuard<'static, ()>,
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
    /// In ring 0.
    pub(crate) fn new() -> Guest {
        let window = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
        Guest { strategy: crate::native(), machine: machine(), _window: window }
    }

    /// In ring 0, about to execute `code`.
    pub(crate) fn with(code: &[u8]) -> Guest {
        let mut guest = Guest::new();
        guest.write(CODE, code);
        guest
    }

    /// In ring 3.
    pub(crate) fn in_ring3(code: &[u8]) -> Guest {
        let mut guest = Guest::with(code);
        guest.enter_ring3();
        guest
    }

    pub(crate) fn enter_ring3(&mut self) {
        self.load(SegmentRegister::Cs, CODE3);
        load_data(&mut self.machine, DATA3);
        self.cpu.cpl = 3;
        self.cpu.registers[register::ESP] = STACK3;
    }

    pub(crate) fn machine_and_strategy(&mut self) -> (&mut Machine, &mut Native) {
        (&mut self.machine, &mut self.strategy)
    }

    /// Another machine in place of this guest's; the strategy stays.
    pub(crate) fn replace(&mut self, code: &[u8]) {
        self.machine = machine();
        self.write(CODE, code);
    }

    /// Turns paging on, the first 4 MiB mapped one to one for all, nothing accessed yet.
    pub(crate) fn enable_paging(&mut self) {
        self.write_u32(DIRECTORY, TABLE | 7);
        for page in 0..1024 {
            self.write_u32(TABLE + page * 4, page << 12 | 7);
        }
        self.cpu.cr3 = DIRECTORY;
        self.cpu.cr0 |= Cr0::PG;
        self.tlb.flush();
    }

    /// Where the entry is that maps `linear`.
    pub(crate) fn entry(linear: u32) -> u32 {
        TABLE + (linear >> 12) * 4
    }

    pub(crate) fn map(&mut self, linear: u32, entry: u32) {
        self.write_u32(Guest::entry(linear), entry);
    }

    pub(crate) fn mapped(&self, linear: u32) -> u32 {
        self.read_u32(Guest::entry(linear))
    }

    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) {
        write(&mut self.machine, address, bytes);
    }

    pub(crate) fn write_u32(&mut self, address: u32, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn read_u32(&self, address: u32) -> u32 {
        self.memory.read_u32(PhysicalAddress(u64::from(address)))
    }

    pub(crate) fn set_descriptor(&mut self, selector: u16, value: u64) {
        self.write(GDT + u32::from(selector & !7), &value.to_le_bytes());
    }

    /// A handler with code of its own for a vector that any privilege may call.
    pub(crate) fn set_handler(&mut self, vector: u8, code: &[u8]) {
        self.set_gate(vector, gate(MORE_CODE, 0xee));
        self.write(MORE_CODE, code);
    }

    pub(crate) fn set_gate(&mut self, vector: u8, value: u64) {
        self.write(IDT + u32::from(vector) * 8, &value.to_le_bytes());
    }

    /// Loads a segment register from the GDT without any check.
    pub(crate) fn load(&mut self, register: SegmentRegister, selector: u16) {
        load(&mut self.machine, register, selector);
    }

    pub(crate) fn set(&mut self, register: usize, value: u32) {
        self.cpu.registers[register] = value;
    }

    pub(crate) fn get(&self, register: usize) -> u32 {
        self.cpu.registers[register]
    }

    /// The doubleword `index` slots above the top of the current stack.
    pub(crate) fn stack(&self, index: u32) -> u32 {
        let base = self.cpu.segment(SegmentRegister::Ss).base;
        self.read_u32(base.wrapping_add(self.get(register::ESP)) + index * 4)
    }

    /// Runs until the guest stops, for seconds at most.
    pub(crate) fn run(&mut self) -> Stop {
        let limit = Limit::until(Instant::now() + Duration::from_secs(20));
        self.strategy.run(&mut self.machine, &limit).unwrap()
    }

    /// Runs until the guest writes to the exit port.
    #[track_caller]
    pub(crate) fn exits(&mut self) -> u8 {
        match self.run() {
            Stop::Exit(value) => value,
            other => panic!("{other}: {:x?}", self.cpu),
        }
    }

    /// Runs until the handler of `vector` stops the guest; the error code and the EIP that it finds
    /// on its stack have to be these.
    #[track_caller]
    pub(crate) fn raises(&mut self, vector: u8, code: Option<u32>, eip: u32) {
        let stop = self.run();
        let (found, handler) = (self.cpu.eip, HANDLERS + u32::from(vector) + 1);
        assert_eq!((stop, found), (Stop::Halted, handler), "another vector: {:x?}", self.cpu);
        let frame = match code {
            Some(code) => {
                assert_eq!(self.stack(0), code, "another error code");
                1
            }
            None => 0,
        };
        assert_eq!(self.stack(frame), eip, "another EIP");
    }
}
