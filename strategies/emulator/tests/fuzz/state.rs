//! Random starting states: mode, ring, descriptors, page tables, control registers, IDT.

use crate::random::Random;
use machine::cpu::{
    Cpu, CpuModel, Cr0, Cr4, Descriptor, Eflags, InterruptShadow, Segment, SegmentRegister,
    TableRegister, register,
};
use machine::{Machine, PhysicalAddress, Selector};

/// The memory that a case starts from; what lies behind it is zero.
pub(crate) const BYTES: usize = 0x2_0000;
pub(crate) const CODE: u32 = 0x1_0000;
const GDT: u32 = 0x1000;
const IDT: u32 = 0x2000;
const TSS: u32 = 0x3000;
const LDT: u32 = 0x3c00;
const HANDLERS: u32 = 0x4000;
/// Page directory (or PDPT), then page tables.
pub(crate) const TABLES: std::ops::Range<usize> = 0x5000..0x8000;

const CODE32: u16 = 0x08;
const CODE16: u16 = 0x28;
const TSS_SELECTOR: u16 = 0x48;
const LDT_SELECTOR: u16 = 0x50;

/// Memory and CPU before the first instruction.
pub(crate) struct Start {
    pub(crate) memory: Vec<u8>,
    pub(crate) cpu: Cpu,
}

impl Start {
    /// The state that `seed` stands for, with `code` where execution begins.
    pub(crate) fn new(random: &mut Random, code: &[u8]) -> Start {
        let mut start = Start { memory: vec![0; BYTES], cpu: Cpu::new(CpuModel::Pentium4) };
        start.fill_data(random);
        start.make_descriptors(random);
        start.make_handlers(random);
        let mode = random.below(8);
        match mode {
            0 => start.real_mode(random),
            1 => start.virtual_8086(random),
            _ => start.protected(random, mode < 4),
        }
        start.registers(random);
        start.place_code(random, code);
        if mode != 0 && random.one_in(2) {
            start.page_tables(random);
        }
        start.spoil(random);
        start
    }

    /// Copies the state into a machine.
    pub(crate) fn install(&self, machine: &mut Machine) {
        assert!(machine.memory.write(PhysicalAddress(0), &self.memory));
        machine.cpu = self.cpu.clone();
        machine.tlb.flush();
    }

    fn put(&mut self, address: u32, bytes: &[u8]) {
        let address = address as usize;
        self.memory[address..address + bytes.len()].copy_from_slice(bytes);
    }

    fn fill_data(&mut self, random: &mut Random) {
        for at in (0x8000..0x8800).step_by(8) {
            let value = random.next();
            self.put(at, &value.to_le_bytes());
        }
        for at in (0..0x400).step_by(4) {
            let handler = if random.one_in(8) { random.u32() } else { HANDLERS + at / 4 };
            self.put(at, &(handler >> 4 << 16 | handler & 15).to_le_bytes());
        }
    }

    /// Code and data of each ring, at indices 1 to 4 (32 bits) and 5 to 8 (16 bits): even rings'
    /// data follows from the code's selector plus 0x60.
    fn make_descriptors(&mut self, random: &mut Random) {
        for ring in 0..4u64 {
            let rights = |kind: u64| (kind | ring << 5) << 40;
            let tables = [
                (CODE32, 0x00cf_0000_0000_ffff | rights(0x9b)),
                (CODE16, 0x0000_0000_0000_ffff | rights(0x9b)),
                (CODE32 + 0x60, 0x00cf_0000_0000_ffff | rights(0x93)),
                (CODE16 + 0x60, 0x0000_0000_0000_ffff | rights(0x93)),
            ];
            for (first, descriptor) in tables {
                self.put(GDT + u32::from(first) + ring as u32 * 8, &descriptor.to_le_bytes());
            }
        }
        let tss = 0x0000_8b00_0000_0067 | u64::from(TSS) << 16;
        self.put(GDT + u32::from(TSS_SELECTOR), &tss.to_le_bytes());
        let ldt = 0x0000_8200_0000_007f | u64::from(LDT) << 16;
        self.put(GDT + u32::from(LDT_SELECTOR), &ldt.to_le_bytes());
        for at in (0xb0..0x100).step_by(8).map(|at| GDT + at).chain((LDT..LDT + 0x80).step_by(8)) {
            let descriptor = random_descriptor(random);
            self.put(at, &descriptor.to_le_bytes());
        }
        self.make_tss(random);
    }

    fn make_tss(&mut self, random: &mut Random) {
        for ring in 0..3u32 {
            let selector = (u32::from(CODE32) + 0x60 + ring * 8) | ring;
            self.put(TSS + 4 + ring * 8, &(0xa000 + ring * 0x800).to_le_bytes());
            self.put(TSS + 8 + ring * 8, &selector.to_le_bytes());
        }
        let map = random.choose(&[0x68u16, 0x60, 0xffff]);
        self.put(TSS + 0x66, &map.to_le_bytes());
    }

    /// The IDT and the handlers' code.
    fn make_handlers(&mut self, random: &mut Random) {
        for vector in 0..64u32 {
            let kind = random.choose(&[0x8eu64, 0xee, 0x8f, 0x86, 0xe7, 0x85]);
            let selector = match kind & 0xf {
                5 => TSS_SELECTOR,
                6 | 7 => CODE16,
                _ => CODE32,
            };
            let mut gate =
                u64::from(HANDLERS + vector * 4) | u64::from(selector) << 16 | kind << 40;
            if random.one_in(12) {
                gate ^= 1 << random.below(64);
            }
            self.put(IDT + vector * 8, &gate.to_le_bytes());
        }
        for at in (HANDLERS..HANDLERS + 0x100).step_by(4) {
            let code = random.choose(&[[0xcf; 4], [0x83, 0xc4, 4, 0xcf], [0x90, 0x90, 0xf4, 0xcf]]);
            self.put(at, &code);
        }
    }

    fn real_mode(&mut self, random: &mut Random) {
        self.cpu.cr0 = Cr0::ET | Cr0::NE;
        for number in SegmentRegister::ALL {
            let selector = random.choose(&[0x0, 0x800, 0x900, 0x1000, 0xfff0]);
            *self.cpu.segment_mut(number) = Segment::real_mode(selector);
        }
        *self.cpu.segment_mut(SegmentRegister::Cs) = Segment::real_mode(0x1000);
        self.cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
    }

    fn virtual_8086(&mut self, random: &mut Random) {
        self.protected_tables();
        self.cpu.cpl = 3;
        for number in SegmentRegister::ALL {
            let selector = random.choose(&[0x0, 0x800, 0x1000]);
            let mut segment = Segment::real_mode(selector);
            segment.set_attributes(segment.attributes() | 3 << 5);
            *self.cpu.segment_mut(number) = segment;
        }
        let mut code = Segment::real_mode(0x1000);
        code.set_attributes(code.attributes() | 3 << 5);
        *self.cpu.segment_mut(SegmentRegister::Cs) = code;
        self.cpu.flags.set(Eflags::VM, true);
    }

    fn protected_tables(&mut self) {
        self.cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
        self.cpu.gdtr = TableRegister { base: GDT, limit: 0xff };
        self.cpu.idtr = TableRegister { base: IDT, limit: 0x1ff };
        self.cpu.tr = Segment::system(TSS_SELECTOR, TSS, 0x67, 0x8b);
        self.cpu.ldtr = Segment::system(LDT_SELECTOR, LDT, 0x7f, 0x82);
    }

    fn load(&mut self, number: SegmentRegister, selector: u16) {
        let at = (GDT + u32::from(selector & !7)) as usize;
        let bytes = self.memory[at..at + 8].try_into().expect("eight bytes");
        let descriptor = Descriptor(u64::from_le_bytes(bytes));
        *self.cpu.segment_mut(number) = descriptor.to_segment(Selector(selector));
    }

    fn protected(&mut self, random: &mut Random, narrow: bool) {
        self.protected_tables();
        let ring = random.choose(&[0, 0, 0, 1, 2, 3, 3]);
        self.cpu.cpl = ring as u8;
        let first = if narrow { CODE16 } else { CODE32 };
        self.load(SegmentRegister::Cs, (first + ring * 8) | ring);
        let stack = random.choose(&[CODE32, CODE32, CODE16]);
        self.load(SegmentRegister::Ss, (stack + 0x60 + ring * 8) | ring);
        let data = [SegmentRegister::Ds, SegmentRegister::Es, SegmentRegister::Fs];
        for number in data.into_iter().chain([SegmentRegister::Gs]) {
            let data = random.choose(&[CODE32, CODE32, CODE16]);
            self.load(number, (data + 0x60 + ring * 8) | ring);
        }
        if narrow {
            // The 64 KiB of a 16-bit segment begin at the code.
            self.cpu.segment_mut(SegmentRegister::Cs).base = CODE;
        }
        if random.one_in(8) {
            let number = random.choose(&SegmentRegister::ALL);
            let random_segment = Descriptor(random_descriptor(random)).to_segment(Selector(0xb3));
            if number != SegmentRegister::Cs {
                *self.cpu.segment_mut(number) = random_segment;
            }
        }
    }

    fn registers(&mut self, random: &mut Random) {
        for value in &mut self.cpu.registers {
            *value = random.interesting();
        }
        self.cpu.registers[register::ESP] = match random.below(8) {
            0 => random.interesting(),
            1 => random.below(8),
            _ => 0x9000 + random.below(64) * 4,
        };
        if random.one_in(2) {
            self.cpu.registers[register::ECX] = random.below(40);
        }
        let mut flags = random.u32() & 0xed5;
        for (bit, times) in [(Eflags::TF, 8), (Eflags::RF, 16), (Eflags::NT, 8), (Eflags::AC, 4)] {
            flags |= if random.one_in(times) { bit.bits() } else { 0 };
        }
        flags |= random.below(4) << 12;
        let kept = self.cpu.flags.bits() & Eflags::VM.bits();
        self.cpu.flags.set_bits(flags & !Eflags::VM.bits() | kept);
        for byte in &mut self.cpu.fpu.area.0[32..288] {
            *byte = random.byte();
        }
        if random.one_in(4) {
            self.cpu.fpu.area.0[0] = random.byte();
            self.cpu.fpu.set_mxcsr(random.u32() & 0xffff);
        }
    }

    /// Code at the start of a page, across two, or anywhere.
    fn place_code(&mut self, random: &mut Random, code: &[u8]) {
        let offset = match random.below(4) {
            0 => 0,
            1 => 0x1000 - random.below(20),
            2 => random.below(0x1f00),
            _ => random.below(0x100),
        };
        let room = BYTES - (CODE + offset) as usize;
        self.put(CODE + offset, &code[..code.len().min(room)]);
        let base = self.cpu.segment(SegmentRegister::Cs).base;
        self.cpu.eip = (CODE + offset).wrapping_sub(base);
    }

    /// The first 256 KiB one to one and again behind, some entries spoilt.
    fn page_tables(&mut self, random: &mut Random) {
        let first = TABLES.start as u32;
        let wide = random.one_in(2);
        let size = if wide { 8 } else { 4 };
        if wide {
            self.put(first, &u64::from((first + 0x1000) | 1).to_le_bytes());
            self.cpu.pdptes = [u64::from((first + 0x1000) | 1), 0, 0, 0];
            self.put(first + 0x1000, &u64::from((first + 0x2000) | 7).to_le_bytes());
            self.put(first + 0x1008, &0xe7u64.to_le_bytes());
        } else {
            self.put(first, &((first + 0x2000) | 7).to_le_bytes());
            self.put(first + 4, &0xe7u32.to_le_bytes());
        }
        for page in 0..64 {
            let mut entry = u64::from((page % 32) << 12 | 7);
            if random.one_in(10) {
                entry ^= 1 << random.choose(&[0, 0, 1, 1, 2, 2, 5, 6, 12, 13, 36, 63]);
            }
            let bytes = entry.to_le_bytes();
            self.put(first + 0x2000 + page * size, &bytes[..size as usize]);
        }
        self.cpu.cr3 = first;
        self.cpu.cr0 |= Cr0::PG;
        self.cpu.cr0.set(Cr0::WP, random.one_in(2));
        self.cpu.cr4.set(Cr4::PAE, wide);
        self.cpu.cr4.set(Cr4::PSE, random.one_in(2));
        self.cpu.cr4.set(Cr4::PGE, random.one_in(4));
    }

    /// Control and debug registers and the odd damage.
    fn spoil(&mut self, random: &mut Random) {
        self.cpu.cr4 |= Cr4::OSFXSR | Cr4::OSXMMEXCPT;
        let bits = [Cr0::AM, Cr0::TS, Cr0::EM, Cr0::MP, Cr0::NE];
        for bit in bits {
            if random.one_in(8) {
                self.cpu.cr0.toggle(bit);
            }
        }
        if random.one_in(8) {
            self.cpu.debug[7] = 0x400 | random.u32() & 0xffff_23ff;
            for number in 0..4 {
                self.cpu.debug[number] = CODE + random.below(16);
            }
        }
        if random.one_in(16) {
            self.cpu.idtr =
                TableRegister { base: random.interesting(), limit: random.u32() as u16 };
        }
        if random.one_in(16) {
            self.cpu.gdtr.limit = random.below(0x100) as u16;
        }
        if random.one_in(16) {
            self.cpu.interrupt_shadow =
                random.choose(&[InterruptShadow::Sti, InterruptShadow::MovSs]);
        }
        if random.one_in(16) {
            let limit = self.cpu.eip.saturating_add(random.below(40));
            self.cpu.segment_mut(SegmentRegister::Cs).set_limit(limit);
        }
    }
}

fn random_descriptor(random: &mut Random) -> u64 {
    let base = u64::from(random.choose(&[0u32, 0x8000, 0x1_0000, 0xffff_f000]));
    let limit = u64::from(random.choose(&[0u32, 0xfff, 0x67, 0xf_ffff, 0x1_0000]));
    let rights = u64::from(random.byte() | if random.one_in(4) { 0 } else { 0x80 });
    let flags = u64::from(random.byte() >> 4);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | rights << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | base >> 24 << 56
}
