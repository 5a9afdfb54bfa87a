//! The BIOS data area at 0x400 and the extended one: what kernels read of it.
//!
//! No BIOS runs, so nothing keeps these fields up to date; they hold what a BIOS would have left
//! when it started the boot loader.

use super::fault::Fault;
use super::layout::{self, EBDA};
use crate::Machine;

/// Where the area begins.
const START: u64 = 0x400;
/// Bytes in it.
const SIZE: usize = 0x100;

/// Equipment (INT 11h): a numeric coprocessor, 80x25 colour text, one serial port.
const EQUIPMENT: u16 = 1 << 1 | 2 << 4 | 1 << 9;
/// KiB of conventional memory (INT 12h), up to the extended BIOS data area.
pub(super) const CONVENTIONAL_KIB: u16 = (EBDA / 1024) as u16;

/// Writes both areas.
pub(super) fn write(machine: &mut Machine, boot_disk: bool) -> Result<(), Fault> {
    layout::write(machine, "the BIOS data area", START, &area(boot_disk))?;
    // The extended area begins with its size in KiB.
    layout::write(machine, "the extended BIOS data area", EBDA, &[1])
}

fn area(boot_disk: bool) -> [u8; SIZE] {
    let mut area = [0; SIZE];
    let mut byte = |address: u64, value: u8| area[(address - START) as usize] = value;
    byte(0x449, 3); // video mode: 80x25 text
    byte(0x465, 0x29); // CGA mode register
    byte(0x466, 0x30); // CGA palette register
    byte(0x475, u8::from(boot_disk)); // hard disks
    byte(0x484, 24); // text rows, less one
    byte(0x487, 0x60); // EGA: 256 KiB of video memory
    byte(0x488, 0xf9); // EGA feature bits and switches
    byte(0x489, 0x51); // VGA active, 400 scan lines
    byte(0x496, 0x10); // a keyboard of 101 keys
    let mut word = |address: u64, value: u16| {
        byte(address, value as u8);
        byte(address + 1, (value >> 8) as u8);
    };
    word(0x400, 0x3f8); // COM1; the other serial and the parallel ports are absent
    word(0x40e, (EBDA >> 4) as u16); // segment of the extended BIOS data area
    word(0x410, EQUIPMENT);
    word(0x413, CONVENTIONAL_KIB);
    word(0x41a, 0x1e); // keyboard buffer: head
    word(0x41c, 0x1e); // keyboard buffer: tail
    word(0x44a, 80); // text columns
    word(0x44c, 0x1000); // bytes in a video page
    word(0x460, 0x0607); // cursor shape: scan lines 6 to 7
    word(0x463, 0x3d4); // CRT controller port
    word(0x480, 0x1e); // keyboard buffer: start
    word(0x482, 0x3e); // keyboard buffer: end
    word(0x485, 16); // scan lines in a character
    area
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MachineConfig, PhysicalAddress};

    #[test]
    fn kernels_find_the_fields_where_a_pc_has_them() {
        let mut machine = Machine::new(&MachineConfig::default()).unwrap();
        assert!(machine.memory.write(PhysicalAddress(0x46c), &[0xff; 5]));
        write(&mut machine, true).unwrap();
        let word = |at| machine.memory.read_u32(PhysicalAddress(at)) & 0xffff;
        assert_eq!((word(0x400), word(0x402), word(0x408)), (0x3f8, 0, 0));
        assert_eq!((word(0x40e), word(0x410), word(0x413)), (0x9fc0, 0x222, 639));
        assert_eq!((word(0x449) & 0xff, word(0x44a), word(0x463)), (3, 80, 0x3d4));
        assert_eq!((word(0x475) & 0xff, word(0x484) & 0xff, word(0x485)), (1, 24, 16));
        assert_eq!(machine.memory.read_u32(PhysicalAddress(0x46c)), 0);
        assert_eq!(word(0x9_fc00) & 0xff, 1);
    }
}
