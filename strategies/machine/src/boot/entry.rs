//! The CPU's state at an image's entry.

use super::layout::EBDA;
use crate::Cpu;
use crate::cpu::{Cr0, Eflags, Segment, SegmentRegister, TableRegister};

/// The selectors of flat code and data that a boot protocol or custom gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlatSelectors {
    pub(super) code: u16,
    pub(super) data: u16,
}

impl FlatSelectors {
    /// What QEMU gives to multiboot kernels; multiboot itself leaves it open.
    pub(super) const PC: FlatSelectors = FlatSelectors { code: 0x08, data: 0x10 };
    /// `__BOOT_CS` and `__BOOT_DS` of Linux's 32-bit boot protocol.
    pub(super) const LINUX: FlatSelectors = FlatSelectors { code: 0x10, data: 0x18 };

    /// The table that holds them.
    pub(super) fn table(self) -> Vec<u8> {
        let mut table = vec![0; usize::from(self.data) + 8];
        for (selector, descriptor) in [(self.code, FLAT_CODE), (self.data, FLAT_DATA)] {
            let at = usize::from(selector);
            table[at..at + 8].copy_from_slice(&descriptor.to_le_bytes());
        }
        table
    }
}

/// 4 GiB of readable 32-bit code, accessed (Intel SDM volume 3, 3.4.5).
const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
/// 4 GiB of writable data, accessed.
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;

/// 32-bit protected mode without paging, interrupts off, all registers zero but ESP, which points to
/// the end of conventional memory: no protocol promises a stack, but a push should reach RAM.
pub(super) fn protected(cpu: &mut Cpu, entry: u32, table: u32, selectors: FlatSelectors) {
    prepare(cpu);
    cpu.cr0.insert(Cr0::PE);
    cpu.segments = [Segment::flat(selectors.data, false, 0); 6];
    *cpu.segment_mut(SegmentRegister::Cs) = Segment::flat(selectors.code, true, 0);
    cpu.gdtr = TableRegister { base: table, limit: selectors.data + 7 };
    cpu.registers[crate::cpu::register::ESP] = EBDA as u32;
    cpu.eip = entry;
}

/// Real mode at `segment:offset`, all segments the same, the stack below the entry.
pub(super) fn real(cpu: &mut Cpu, segment: u16, offset: u16) {
    prepare(cpu);
    cpu.segments = [Segment::real_mode(segment); 6];
    cpu.registers[crate::cpu::register::ESP] = u32::from(offset);
    cpu.eip = u32::from(offset);
}

/// The state after power-up, with caches on as firmware leaves them.
fn prepare(cpu: &mut Cpu) {
    *cpu = Cpu::new(cpu.model);
    cpu.registers = [0; 8];
    cpu.cr0 = Cr0::ET;
    cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
    cpu.flags.set_bits(Eflags::FIXED.bits());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selector;
    use crate::cpu::{CpuModel, Descriptor};

    #[test]
    fn the_tables_agree_with_the_hidden_parts() {
        for selectors in [FlatSelectors::PC, FlatSelectors::LINUX] {
            let mut cpu = Cpu::new(CpuModel::default());
            protected(&mut cpu, 0x10_0000, 0x9000, selectors);
            let table = selectors.table();
            assert_eq!(table.len(), usize::from(cpu.gdtr.limit) + 1);
            for segment in cpu.segments {
                let at = usize::from(segment.selector);
                let bytes: [u8; 8] = table[at..at + 8].try_into().unwrap();
                let descriptor = Descriptor(u64::from_le_bytes(bytes));
                assert_eq!(descriptor.to_segment(Selector(segment.selector)), segment);
            }
        }
    }

    #[test]
    fn nothing_of_an_earlier_run_remains() {
        let mut cpu = Cpu::new(CpuModel::default());
        cpu.halted = true;
        cpu.cpl = 3;
        cpu.cr3 = 0x1000;
        cpu.cr0.insert(Cr0::PG);
        cpu.flags.set(Eflags::IF | Eflags::VM, true);
        real(&mut cpu, 0x7c0, 0);
        assert!(!cpu.halted && cpu.cpl == 0 && cpu.cr3 == 0);
        assert_eq!((cpu.cr0, cpu.flags.bits()), (Cr0::ET, 2));
        assert_eq!(cpu.instruction_address().0, 0x7c00);
    }
}
