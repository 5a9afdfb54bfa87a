//! The guest that the tests start from, and the comparison that they end with.

use binary_translation::BinaryTranslation;
use interpretation::Interpretation;
use machine::clock::ClockSource;
use machine::cpu::{
    CpuModel, Cr0, Cr4, Descriptor, Segment, SegmentRegister, TableRegister, access, register,
};
use machine::{Machine, MachineConfig, PhysicalAddress, Selector};
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

const GDT: u32 = 0x1000;
const IDT: u32 = 0x2000;
const TSS: u32 = 0x3000;
const HANDLERS: u32 = 0x4000;
const INNER_STACK: u32 = 0x7000;
pub(crate) const STACK: u32 = 0x9800;
pub(crate) const CODE: u32 = 0x1_0000;
pub(crate) const DATA: u32 = 0x1_8000;
pub(crate) const PAGE_DIRECTORY: u32 = 0x2_0000;
pub(crate) const PAGE_TABLE: u32 = 0x2_1000;
/// A second address space, equal to the first.
pub(crate) const OTHER_DIRECTORY: u32 = 0x2_2000;
pub(crate) const OTHER_TABLE: u32 = 0x2_3000;
/// The page table of the last 4 MiB.
pub(crate) const HIGH_TABLE: u32 = 0x2_4000;

const CODE0: u16 = 0x08;
pub(crate) const CODE3: u16 = 0x1b;
const DATA0: u16 = 0x10;
const DATA3: u16 = 0x23;
const TASK: u16 = 0x28;
/// Each test ends far before.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guest before it runs.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
}

impl Guest {
    /// In ring 0 without paging; each exception ends in a HLT with interrupts off.
    pub(crate) fn new() -> Guest {
        let config = MachineConfig {
            memory_bytes: 4 << 20,
            cpu: CpuModel::Pentium4,
            clock: ClockSource::Virtual,
            ..MachineConfig::default()
        };
        let mut guest = Guest { machine: Machine::new(&config).expect("a machine") };
        for (number, descriptor) in descriptors().into_iter().enumerate() {
            guest.write(GDT + 8 * number as u32, &descriptor.to_le_bytes());
        }
        for vector in 0..256 {
            let rights = if matches!(vector, 3 | 4 | 0x80) { 0xee00 } else { 0x8e00 };
            guest.write_u32(IDT + 8 * vector, u32::from(CODE0) << 16 | (HANDLERS + 8 * vector));
            guest.write_u32(IDT + 8 * vector + 4, rights);
            guest.write(HANDLERS + 8 * vector, &[0xf4; 8]);
        }
        guest.write_u32(TSS + 4, INNER_STACK);
        guest.write_u32(TSS + 8, DATA0.into());
        guest.write_u32(TSS + 0x64, 0x68 << 16);
        let cpu = &mut guest.machine.cpu;
        cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE | Cr0::MP;
        cpu.cr4 = Cr4::OSFXSR | Cr4::OSXMMEXCPT;
        cpu.gdtr = TableRegister { base: GDT, limit: 0x7f };
        cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
        cpu.tr = Segment::system(TASK, TSS, 0x67, access::TSS32_BUSY);
        cpu.registers = [0x1111_1111, 3, 0x3333_3333, DATA, STACK, DATA + 0x40, DATA, DATA + 0x80];
        cpu.eip = CODE;
        guest.enter_ring(0);
        guest
    }

    /// Changes the ring that it starts in.
    pub(crate) fn enter_ring(&mut self, ring: u8) {
        let (code, data) = if ring == 0 { (CODE0, DATA0) } else { (CODE3, DATA3) };
        for register in SegmentRegister::ALL {
            let is_code = register == SegmentRegister::Cs;
            let selector = if is_code { code } else { data };
            *self.machine.cpu.segment_mut(register) = Segment::flat(selector, is_code, ring);
        }
        self.machine.cpu.cpl = ring;
    }

    /// Maps the first 4 MiB one to one for all rings, and the last page to 0x6000.
    pub(crate) fn enable_paging(&mut self) {
        for (directory, table) in [(PAGE_DIRECTORY, PAGE_TABLE), (OTHER_DIRECTORY, OTHER_TABLE)] {
            self.write_u32(directory, table | 7);
            self.write_u32(directory + 4 * 1023, HIGH_TABLE | 7);
            for page in 0..1024 {
                self.write_u32(table + 4 * page, page << 12 | 7);
            }
        }
        self.write_u32(HIGH_TABLE + 4 * 1023, 0x6007);
        self.machine.cpu.cr3 = PAGE_DIRECTORY;
        self.machine.cpu.cr0 |= Cr0::PG;
    }

    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) {
        assert!(self.machine.memory.write(PhysicalAddress(address.into()), bytes));
    }

    pub(crate) fn write_u32(&mut self, address: u32, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    /// Puts pieces of code one behind the other at CODE, and an end behind them: #UD.
    pub(crate) fn code(&mut self, pieces: &[&[u8]]) {
        let code = [&pieces.concat()[..], &[0x0f, 0x0b]].concat();
        self.write(CODE, &code);
    }

    /// Replaces a vector's handler.
    pub(crate) fn handler(&mut self, vector: u32, code: &[u8]) {
        assert!(code.len() <= 0x40);
        let at = 0x5000 + 0x40 * (vector & 0x1f);
        self.write(at, code);
        self.write_u32(IDT + 8 * vector, u32::from(CODE0) << 16 | at);
    }

    /// Lets a handler count in the doubleword at 0x8000 and return.
    pub(crate) fn count(&mut self, vector: u32) {
        // inc dword [0x8000]; iretd
        self.handler(vector, &[0xff, 0x05, 0x00, 0x80, 0x00, 0x00, 0xcf]);
    }

    pub(crate) fn set(&mut self, register: usize, value: u32) {
        self.machine.cpu.registers[register] = value;
    }

    /// All pointers lead to one place.
    pub(crate) fn point_to(&mut self, address: u32) {
        for number in [register::EBX, register::EBP, register::ESI, register::EDI] {
            self.set(number, address);
        }
    }

    /// Loads a segment register from the GDT without any check.
    pub(crate) fn load(&mut self, register: SegmentRegister, selector: u16) {
        let at = PhysicalAddress((GDT + u32::from(selector & !7)).into());
        let descriptor = Descriptor(self.machine.memory.read_u64(at));
        *self.machine.cpu.segment_mut(register) = descriptor.to_segment(Selector(selector));
    }
}

/// Behind the five that everything needs, and a TSS: some to run into.
fn descriptors() -> [u64; 16] {
    [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x0000_8b00_0000_0067 | (TSS as u64) << 16,
        // 16-bit code at CODE; conforming code; execute-only code.
        0x0000_9b01_0000_ffff,
        0x00cf_9f00_0000_ffff,
        0x00cf_9900_0000_ffff,
        // Not present; a limit of one page; expand-down; a base just below 4 GiB.
        0x00cf_1300_0000_ffff,
        0x0040_9300_0000_0fff,
        0x00cf_9700_0000_00ff,
        0xffcf_93ff_fffc_ffff,
        // A call gate to CODE + 0x200, a free TSS, read-only data of ring 3.
        0x0001_ec00_0008_0200,
        0x0000_8900_3100_0067,
        0x00cf_f100_0000_ffff,
    ]
}

/// The sides, used again from case to case: what one machine has left must not show on the next.
pub(crate) struct Sides {
    interpretation: Interpretation,
    translators: [(&'static str, BinaryTranslation); 2],
}

impl Sides {
    /// Nothing where the host cannot translate.
    pub(crate) fn new() -> Option<Sides> {
        let innocent = BinaryTranslation::new().ok()?;
        let guilty = BinaryTranslation::with_all_sites_guilty().ok()?;
        Some(Sides {
            interpretation: Interpretation::new(),
            translators: [("translated", innocent), ("translated, all guilty", guilty)],
        })
    }

    /// Runs what `set_up` makes on all sides, and returns how interpretation ended, in what state.
    #[track_caller]
    pub(crate) fn compare(&mut self, name: &str, set_up: impl Fn(&mut Guest)) -> (Stop, Guest) {
        let mut expected = Guest::new();
        set_up(&mut expected);
        self.interpretation = Interpretation::new();
        let limit = || Limit::until(Instant::now() + PATIENCE);
        let stop = self.interpretation.run(&mut expected.machine, &limit()).expect("a run");
        assert!(stop != Stop::Limit, "{name}: no end");
        for (side, translator) in &mut self.translators {
            let mut guest = Guest::new();
            set_up(&mut guest);
            let found = translator.run(&mut guest.machine, &limit());
            let found = found.unwrap_or_else(|error| panic!("{name}, {side}: {error}"));
            if stop == Stop::TripleFault {
                // What is left in registers has no meaning.
                guest.machine.cpu = expected.machine.cpu.clone();
            }
            let differences = machine::difference(&expected.machine, &guest.machine);
            let differences: Vec<_> = differences
                .expect("two machines")
                .iter()
                .take(8)
                .map(ToString::to_string)
                .collect();
            assert!(
                found == stop && differences.is_empty(),
                "{name}, {side}: {stop} and {found}; interpretation first: {differences:#?}"
            );
        }
        (stop, expected)
    }
}

/// One guest.
#[track_caller]
pub(crate) fn compare(name: &str, set_up: impl Fn(&mut Guest)) -> Option<Guest> {
    Sides::new().map(|mut sides| sides.compare(name, set_up).1)
}
