//! The ACPI tables that firmware leaves for kernels (ACPI specification 6.4, chapter 5).
//!
//! There is what a PC without an APIC has: the fixed hardware
//! ([`PowerManagement`](crate::devices::PowerManagement)) with its timer and the way to switch off,
//! the reset register, and a namespace ([`aml`]) with the devices on the ISA bus. No MADT: that would
//! promise interrupt controllers which are not there. Their place is where kernels look for the root
//! pointer, below the ROM, in memory that no map offers to them:
//!
//! ```text
//! 0xe0000   RSDP -> RSDT -> FADT -> FACS, DSDT
//! ```

mod aml;

use super::fault::Fault;
use super::layout;
use crate::Machine;
use crate::devices::SYSTEM_CONTROL_INTERRUPT;

/// Where the tables begin: the root pointer, on a boundary of 16 bytes (5.2.5.1).
pub(super) const START: u64 = 0xe_0000;
/// Every table begins at a multiple of this. The FACS needs it (5.2.10).
const ALIGN: usize = 64;

const ROOT_POINTER_SIZE: usize = 20;
const HEADER_SIZE: usize = 36;

/// The FADT of revision 3, the first with a reset register.
const FADT_REVISION: u8 = 3;
const FADT_SIZE: usize = 244;
/// DSDT of revision 2 and above: integers of 64 bits (5.2.11.1).
const DSDT_REVISION: u8 = 2;

/// Ports of the fixed hardware, where the bus has it.
const EVENT_PORT: u32 = 0x600;
const CONTROL_PORT: u32 = 0x604;
const TIMER_PORT: u32 = 0x608;
/// The reset control register and what resets the machine.
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 6;
/// The century in CMOS memory.
const CENTURY: u8 = 0x32;

/// Flags (5.2.9, table 5.10): WBINVD works; C1 is HLT; neither power nor sleep button nor a wake-up
/// by the clock in the fixed hardware; there is a reset register.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10;
/// IA-PC boot architecture (5.2.9.3): devices on an ISA bus, an 8042; no message-signalled interrupts.
const BOOT_ARCHITECTURE: u16 = 1 << 0 | 1 << 1 | 1 << 3;
/// Latencies from which on a kernel takes C2 and C3 for absent.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// Writes all tables.
pub(super) fn write(machine: &mut Machine) -> Result<(), Fault> {
    layout::write(machine, "the ACPI tables", START, &tables())
}

/// All tables, as they lie from [`START`] on.
fn tables() -> Vec<u8> {
    let mut memory = Memory(vec![0; ROOT_POINTER_SIZE]);
    let control = memory.place(&control_structure());
    let namespace = memory.place(&table(*b"DSDT", DSDT_REVISION, &aml::namespace()));
    let description = memory.place(&table(*b"FACP", FADT_REVISION, &fixed(control, namespace)));
    let root = memory.place(&table(*b"RSDT", 1, &description.to_le_bytes()));
    memory.0[..ROOT_POINTER_SIZE].copy_from_slice(&root_pointer(root));
    memory.0
}

/// The tables so far.
struct Memory(Vec<u8>);

impl Memory {
    /// Appends a table and returns its address.
    fn place(&mut self, table: &[u8]) -> u32 {
        let at = self.0.len().next_multiple_of(ALIGN);
        self.0.resize(at, 0);
        self.0.extend(table);
        START as u32 + at as u32
    }
}

/// The root pointer of ACPI 1.0 (5.2.5.3): it leads to tables with addresses of 32 bits.
fn root_pointer(root: u32) -> [u8; ROOT_POINTER_SIZE] {
    let mut pointer = [0; ROOT_POINTER_SIZE];
    pointer[..8].copy_from_slice(b"RSD PTR ");
    pointer[9..15].copy_from_slice(MAKER);
    pointer[16..].copy_from_slice(&root.to_le_bytes());
    pointer[8] = checksum(&pointer);
    pointer
}

const MAKER: &[u8; 6] = b"RINGSD";

/// A table with the common header (5.2.6).
fn table(signature: [u8; 4], revision: u8, contents: &[u8]) -> Vec<u8> {
    let length = (HEADER_SIZE + contents.len()) as u32;
    let mut table = Vec::from(signature);
    table.extend(length.to_le_bytes());
    table.extend([revision, 0]);
    table.extend(MAKER);
    table.extend(b"RINGSIDE");
    // Revision of the table, and who made it.
    table.extend(1u32.to_le_bytes());
    table.extend(b"RING");
    table.extend(1u32.to_le_bytes());
    table.extend(contents);
    table[9] = checksum(&table);
    table
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The firmware control structure, FACS (5.2.10). No header, no checksum.
fn control_structure() -> [u8; 64] {
    let mut structure = [0; 64];
    structure[..4].copy_from_slice(b"FACS");
    structure[4] = 64;
    structure
}

/// The contents of the fixed description table, FADT (5.2.9), behind its header.
fn fixed(control: u32, namespace: u32) -> Vec<u8> {
    let mut table = [0; FADT_SIZE];
    let mut put = |offset: usize, value: &[u8]| {
        table[offset..offset + value.len()].copy_from_slice(value);
    };
    put(36, &control.to_le_bytes());
    put(40, &namespace.to_le_bytes());
    // SMI_CMD stays 0: ACPI mode is always on.
    put(46, &u16::from(SYSTEM_CONTROL_INTERRUPT).to_le_bytes());
    put(56, &EVENT_PORT.to_le_bytes());
    put(64, &CONTROL_PORT.to_le_bytes());
    put(76, &TIMER_PORT.to_le_bytes());
    // Bytes in the blocks of events, control and timer.
    put(88, &[4, 2]);
    put(91, &[4]);
    put(96, &NO_C2.to_le_bytes());
    put(98, &NO_C3.to_le_bytes());
    put(108, &[CENTURY]);
    put(109, &BOOT_ARCHITECTURE.to_le_bytes());
    put(112, &FLAGS.to_le_bytes());
    put(116, &port_of_a_byte(RESET_PORT));
    put(128, &[RESET_VALUE]);
    table[HEADER_SIZE..].to_vec()
}

/// A generic address (5.2.3.2): a byte at a port.
fn port_of_a_byte(port: u64) -> [u8; 12] {
    let mut address = [0; 12];
    address[..4].copy_from_slice(&[1, 8, 0, 1]);
    address[4..].copy_from_slice(&port.to_le_bytes());
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MachineConfig, PhysicalAddress};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The table that a pointer leads to.
    fn follow(tables: &[u8], pointer: u32) -> &[u8] {
        let at = (u64::from(pointer) - START) as usize;
        &tables[at..at + word(tables, at + 4) as usize]
    }

    #[test]
    fn the_pointers_lead_from_table_to_table_and_every_sum_is_right() {
        let tables = tables();
        assert_eq!(sum(&tables[..ROOT_POINTER_SIZE]), 0);
        let root = follow(&tables, word(&tables, 16));
        assert_eq!((&root[..4], root.len(), sum(root)), (&b"RSDT"[..], 40, 0));
        let fixed = follow(&tables, word(root, 36));
        assert_eq!((&fixed[..4], fixed.len(), sum(fixed)), (&b"FACP"[..], FADT_SIZE, 0));
        let control = follow(&tables, word(fixed, 36));
        assert_eq!((&control[..4], control.len()), (&b"FACS"[..], 64));
        assert_eq!(word(fixed, 36) % 64, 0);
        let namespace = follow(&tables, word(fixed, 40));
        assert_eq!((&namespace[..4], sum(namespace)), (&b"DSDT"[..], 0));
    }

    #[test]
    fn the_ports_are_those_of_the_devices() {
        let mut machine = Machine::new(&MachineConfig::default()).unwrap();
        let bus = &mut machine.bus;
        // ACPI mode, in the control register.
        assert_eq!(bus.port_read(CONTROL_PORT as u16, 2), 1);
        bus.port_write(EVENT_PORT as u16 + 2, 2, 0x400);
        assert_eq!(bus.port_read(EVENT_PORT as u16, 4), 0x400_0000);
        assert!(bus.port_read(TIMER_PORT as u16, 4) < 1 << 24);
        bus.port_write(RESET_PORT as u16, 1, RESET_VALUE.into());
        assert_eq!(machine.service(), Some(crate::signals::Request::Reset));
    }

    #[test]
    fn kernels_find_them_where_they_look() {
        let mut machine = Machine::new(&MachineConfig::default()).unwrap();
        write(&mut machine).unwrap();
        let mut found = [0; 8];
        assert!(machine.memory.read(PhysicalAddress(START), &mut found));
        assert_eq!((&found, START % 16), (b"RSD PTR ", 0));
    }
}
