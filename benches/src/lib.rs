//! What the benches have in common: a small guest in flat 32-bit protected mode.

use machine::cpu::{Cr0, Segment, SegmentRegister, register};
use machine::{Machine, MachineConfig, PhysicalAddress};

/// Where a bench's guest code lies.
pub const CODE: u32 = 0x10_0000;
/// Where its data lies; EBX points there.
pub const DATA: u32 = 0x20_0000;

/// A machine with 16 MiB in flat protected mode, with `code` at [`CODE`].
///
/// # Panics
/// When the host gives no memory.
#[must_use]
pub fn guest(code: &[u8]) -> Machine {
    let config = MachineConfig { memory_bytes: 16 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config).expect("16 MiB of guest memory");
    machine.cpu.cr0 |= Cr0::PE;
    for register in SegmentRegister::ALL {
        let code = register == SegmentRegister::Cs;
        *machine.cpu.segment_mut(register) = Segment::flat(if code { 8 } else { 16 }, code, 0);
    }
    machine.cpu.eip = CODE;
    machine.cpu.registers[register::EBX] = DATA;
    machine.cpu.registers[register::ESP] = 0x30_0000;
    machine.cpu.registers[register::ECX] = 1;
    assert!(machine.memory.write(PhysicalAddress(u64::from(CODE)), code));
    machine
}

/// `instruction` sixteen times, then a jump back: for running it without end.
#[must_use]
pub fn endless(instruction: &[u8]) -> Vec<u8> {
    let mut code = instruction.repeat(16);
    let distance = -(code.len() as i32 + 5);
    code.push(0xe9);
    code.extend(distance.to_le_bytes());
    code
}

/// Identity page tables for the first 16 MiB, with 4 KiB pages, from physical address 0x1000 on;
/// paging is switched on.
///
/// # Panics
/// Never: the tables fit.
pub fn switch_paging_on(machine: &mut Machine) {
    for directory in 0..4u32 {
        let table = 0x2000 + directory * 0x1000;
        let entry = (table | 7).to_le_bytes();
        assert!(machine.memory.write(PhysicalAddress(0x1000 + u64::from(directory) * 4), &entry));
        for page in 0..1024u32 {
            let entry = ((directory << 22 | page << 12) | 7).to_le_bytes();
            let at = PhysicalAddress(u64::from(table + page * 4));
            assert!(machine.memory.write(at, &entry));
        }
    }
    machine.cpu.cr3 = 0x1000;
    machine.cpu.cr0 |= Cr0::PG;
    machine.tlb.flush();
}
