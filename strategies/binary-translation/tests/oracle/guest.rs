//! The guest that cases run in, made anew for each of them on one machine.
//!
//! Exceptions go through an IDT to addresses that tell the vector, where HLT waits with interrupts
//! off: both sides stop there, with all that is known about the exception in registers and on the
//! stack.

use crate::case::Code;
use crate::layout::{CODE, DATA, DATA_BYTES, PAGE, STACK};
use crate::scene::{ARENA, ARENA_PAGES, Extra};
use crate::twist::Twisted;
use machine::clock::ClockSource;
use machine::cpu::{CpuModel, Cr0, Cr4, Segment, SegmentRegister, TableRegister, access, register};
use machine::{Cpu, Machine, MachineConfig, PhysicalAddress};

// Physical addresses.
const PAGE_DIRECTORY: u32 = 0x1000;
const ARENA_TABLE: u32 = 0x2000;
const KERNEL_TABLE: u32 = 0x3000;
const ARENA_START: u32 = 0x1_0000;
const KERNEL_PAGES: u32 = 0x2_0000;
/// All that a case can touch.
const START: u32 = PAGE_DIRECTORY;
const END: u32 = KERNEL_PAGES + KERNEL_BYTES;

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
const HLT: u8 = 0xf4;

pub(crate) const KERNEL_CODE: u16 = 0x08;
pub(crate) const KERNEL_DATA: u16 = 0x10;
const TASK: u16 = 0x18;
pub(crate) const USER_CODE: u16 = 0x23;
pub(crate) const USER_DATA: u16 = 0x2b;
pub(crate) const FS_BASED: u16 = 0x33;
pub(crate) const GS_LIMITED: u16 = 0x3b;

/// The base of segments that have one: small, since operands are addresses in the arena.
const BASE: u32 = 0x18;
/// Vectors that user code may call by INT.
const USER_VECTORS: [u32; 3] = [3, 4, 0x80];

/// A machine for cases.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    template: Vec<u8>,
    cpu: Cpu,
}

impl Guest {
    pub(crate) fn new() -> Guest {
        let config = MachineConfig {
            memory_bytes: 1 << 20,
            cpu: CpuModel::Pentium4,
            clock: ClockSource::Virtual,
            ..MachineConfig::default()
        };
        let machine = Machine::new(&config).expect("a machine");
        let mut cpu = machine.cpu.clone();
        set_up(&mut cpu);
        Guest { machine, template: template(), cpu }
    }

    /// Makes everything as it is before the case.
    pub(crate) fn load(&mut self, twisted: &Twisted, code: &Code) {
        let Twisted { case, scene, .. } = twisted;
        let mut memory = self.template.clone();
        let mut put = |at: u32, bytes: &[u8]| {
            let at = (at - START) as usize;
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(ARENA_START + CODE, &code.page);
        put(ARENA_START + DATA, &case.data);
        put(ARENA_START + STACK, &case.stack);
        for (number, entry) in scene.pages.iter().enumerate() {
            let entry = if *entry == 0 { 0 } else { ARENA_START + entry };
            put(ARENA_TABLE + 4 * number as u32, &entry.to_le_bytes());
        }
        assert!(self.machine.memory.write(PhysicalAddress(START.into()), &memory));
        self.machine.cpu = self.start(twisted);
        self.machine.tlb.flush();
        self.machine.counters = machine::counters::Counters::default();
    }

    fn start(&self, twisted: &Twisted) -> Cpu {
        let Twisted { case, scene, .. } = twisted;
        let mut cpu = self.cpu.clone();
        cpu.registers = case.registers;
        cpu.eip = ARENA.wrapping_add(case.start);
        cpu.fpu = case.fpu.clone();
        cpu.cr0.set(Cr0::WP, scene.write_protect);
        let ring = if scene.ring0 { 0 } else { 3 };
        cpu.cpl = ring;
        // In ring 0 interrupts stay off: HLT would wait for one.
        let interrupts = if scene.ring0 { 0 } else { 0x200 };
        cpu.flags.set_bits(case.eflags | 2 | interrupts | scene.io_privilege << 12);
        let (code, data) =
            if scene.ring0 { (KERNEL_CODE, KERNEL_DATA) } else { (USER_CODE, USER_DATA) };
        for register in SegmentRegister::ALL {
            let segment = match register {
                SegmentRegister::Cs => Segment::flat(code, true, ring),
                SegmentRegister::Fs => extra(scene.fs, data, ring),
                SegmentRegister::Gs => extra(scene.gs, data, ring),
                _ => Segment::flat(data, false, ring),
            };
            *cpu.segment_mut(register) = segment;
        }
        cpu
    }

    /// The exception that ended the case, if one did.
    pub(crate) fn vector(&self) -> Option<u8> {
        let vector = self.machine.cpu.eip.wrapping_sub(KERNEL + HANDLERS) / 4;
        u8::try_from(vector).ok()
    }

    /// The EIP that the exception's frame shows.
    pub(crate) fn fault_address(&self) -> Option<u32> {
        let vector = self.vector()?;
        let has_code = matches!(vector, 8 | 10..=14 | 17);
        let stack = self.machine.cpu.registers[register::ESP] + if has_code { 4 } else { 0 };
        let at = stack
            .checked_sub(KERNEL)
            .map(|at| KERNEL_PAGES + at)
            .or_else(|| stack.checked_sub(ARENA).map(|at| ARENA_START + at))?;
        Some(self.machine.memory.read_u32(PhysicalAddress(at.into())))
    }

    /// All memory that a case can touch.
    pub(crate) fn memory(&self) -> Vec<u8> {
        let mut memory = vec![0; (END - START) as usize];
        assert!(self.machine.memory.read(PhysicalAddress(START.into()), &mut memory));
        memory
    }

    /// The physical address of a place in [`Guest::memory`].
    pub(crate) fn address_of(at: usize) -> u32 {
        START + at as u32
    }

    /// Bytes of the arena.
    pub(crate) fn arena(&self, offset: u32, bytes: &mut [u8]) -> bool {
        let fits = offset as usize + bytes.len() <= ARENA_PAGES * PAGE as usize;
        let at = PhysicalAddress((ARENA_START + offset).into());
        fits && self.machine.memory.read(at, bytes)
    }
}

fn extra(kind: Extra, data: u16, ring: u8) -> Segment {
    let rights = access::WRITABLE
        | access::PRESENT
        | access::NOT_SYSTEM
        | access::ACCESSED
        | 3 << 5
        | access::DEFAULT_BIG;
    match kind {
        Extra::Null => Segment::null(0),
        Extra::Flat => Segment::flat(data, false, ring),
        Extra::Based => Segment::new(FS_BASED, BASE, u32::MAX, rights | access::GRANULARITY),
        Extra::Limited => Segment::new(
            GS_LIMITED,
            BASE,
            (ARENA + DATA + DATA_BYTES - 0x800) | 0xfff,
            rights | access::GRANULARITY,
        ),
    }
}

/// Paging, and everything that guests can be shown is on.
fn set_up(cpu: &mut Cpu) {
    cpu.cr0 = Cr0::PE | Cr0::PG | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::AM;
    cpu.cr3 = PAGE_DIRECTORY;
    cpu.cr4 = Cr4::DE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    cpu.gdtr = TableRegister { base: KERNEL + GDT, limit: 0x3f };
    cpu.idtr = TableRegister { base: KERNEL + IDT, limit: 0x7ff };
    cpu.tr = Segment::system(TASK, KERNEL + TSS, 0x67, access::TSS32_BUSY);
    cpu.ldtr = Segment::null(0);
}

/// Descriptor and page tables.
fn template() -> Vec<u8> {
    let mut memory = vec![0; (END - START) as usize];
    let mut put = |at: u32, bytes: &[u8]| {
        let at = (at - START) as usize;
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    };
    for (number, descriptor) in descriptors().into_iter().enumerate() {
        put(KERNEL_PAGES + GDT + 8 * number as u32, &descriptor.to_le_bytes());
    }
    for vector in 0..256 {
        put(KERNEL_PAGES + IDT + 8 * vector, &interrupt_gate(vector).to_le_bytes());
        put(KERNEL_PAGES + HANDLERS + 4 * vector, &[HLT; 4]);
    }
    let mut doubleword = |at: u32, value: u32| put(at, &value.to_le_bytes());
    doubleword(KERNEL_PAGES + TSS + 4, KERNEL + KERNEL_STACK);
    doubleword(KERNEL_PAGES + TSS + 8, KERNEL_DATA.into());
    // No I/O bitmap: it would begin past the limit.
    doubleword(KERNEL_PAGES + TSS + 0x64, 0x68 << 16);
    doubleword(PAGE_DIRECTORY + (KERNEL >> 22) * 4, KERNEL_TABLE | 0x23);
    doubleword(PAGE_DIRECTORY + (ARENA >> 22) * 4, ARENA_TABLE | 0x27);
    for at in (0..KERNEL_BYTES).step_by(PAGE as usize) {
        let index = (KERNEL + at) >> 12 & 0x3ff;
        doubleword(KERNEL_TABLE + index * 4, (KERNEL_PAGES + at) | 0x63);
    }
    memory
}

fn descriptors() -> [u64; 8] {
    let base = u64::from(BASE) << 16;
    let limit = u64::from(ARENA + DATA + DATA_BYTES - 0x800) >> 12;
    let limit = limit & 0xffff | (limit & 0xf_0000) << 32;
    [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_0000_0067 | u64::from((KERNEL + TSS) & 0xff_ffff) << 16 | 0x6b << 56,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00cf_f300_0000_ffff | base,
        0x00c0_f300_0000_0000 | base | limit,
    ]
}

fn interrupt_gate(vector: u32) -> u64 {
    let dpl = if USER_VECTORS.contains(&vector) { 3 } else { 0 };
    let target = u64::from(KERNEL + HANDLERS + 4 * vector);
    target & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | (0x8e00 | dpl << 13) << 32
        | (target & 0xffff_0000) << 32
}
