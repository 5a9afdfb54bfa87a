//! The command block registers, each with the value that was written before (for 48-bit addresses),
//! and the address and count that they make.

use super::geometry::Geometry;

/// Device register: the slave is selected.
const SLAVE: u8 = 0x10;
/// Device register: the address is a sector number.
const LBA: u8 = 0x40;
/// Bits of the device register that always read as ones.
const OBSOLETE: u8 = 0xa0;

/// How wide a command's address and count are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Width {
    /// 28-bit or cylinder, head, sector; counts to 256.
    Short,
    /// The EXT commands: 48-bit, counts to 65536.
    Extended,
}

/// A register and its previous value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Paired {
    current: u8,
    previous: u8,
}

impl Paired {
    fn write(&mut self, value: u8) {
        *self = Paired { current: value, previous: self.current };
    }

    pub(super) fn read(self, previous: bool) -> u8 {
        if previous { self.previous } else { self.current }
    }
}

/// The registers from features (offset 1) to device (offset 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct TaskFile {
    /// Features, count, and the address from its low byte up.
    registers: [Paired; 5],
    device: u8,
}

impl TaskFile {
    /// What a disk shows after a reset or a diagnostic: its signature (ATA/ATAPI-6, 9.12).
    pub(super) fn signature() -> TaskFile {
        let mut task = TaskFile { registers: [Paired::default(); 5], device: 0 };
        task.registers[1].current = 1;
        task.registers[2].current = 1;
        task
    }

    pub(super) fn write(&mut self, offset: u32, value: u8) {
        match offset {
            1..=5 => self.registers[offset as usize - 1].write(value),
            _ => self.device = value,
        }
    }

    /// Count or address register.
    pub(super) fn read(&self, offset: u32, previous: bool) -> u8 {
        match offset {
            1..=5 => self.registers[offset as usize - 1].read(previous),
            _ => self.device | OBSOLETE,
        }
    }

    pub(super) fn features(&self) -> u8 {
        self.registers[0].current
    }

    pub(super) fn selects_slave(&self) -> bool {
        self.device & SLAVE != 0
    }

    /// The low four bits of the device register.
    pub(super) fn head(&self) -> u8 {
        self.device & 15
    }

    /// The count register as it stands.
    pub(super) fn raw_count(&self) -> u8 {
        self.registers[1].current
    }

    pub(super) fn set_raw_count(&mut self, value: u8) {
        self.registers[1].current = value;
    }

    /// How many sectors: 0 stands for the most there can be.
    pub(super) fn count(&self, width: Width) -> u64 {
        let Paired { current, previous } = self.registers[1];
        let (count, most) = match width {
            Width::Short => (u64::from(current), 0x100),
            Width::Extended => (u64::from(u16::from_be_bytes([previous, current])), 0x1_0000),
        };
        if count == 0 { most } else { count }
    }

    /// The first sector, if the address can be one.
    pub(super) fn sector(&self, width: Width, geometry: Geometry) -> Option<u64> {
        let [_, _, low, mid, high] = self.registers;
        let bytes = |top: [u8; 5]| {
            u64::from_be_bytes([0, 0, top[0], top[1], top[2], top[3], top[4], low.current])
        };
        match width {
            Width::Extended => {
                let top = [high.previous, mid.previous, low.previous, high.current, mid.current];
                Some(bytes(top))
            }
            Width::Short if self.device & LBA != 0 => {
                Some(bytes([0, 0, self.head(), high.current, mid.current]))
            }
            Width::Short => {
                let cylinder = u16::from_be_bytes([high.current, mid.current]);
                geometry.sector(cylinder, self.head(), low.current)
            }
        }
    }

    /// Shows the sector at which a command failed, as its address would be written.
    pub(super) fn set_sector(&mut self, sector: u64, width: Width, geometry: Geometry) {
        let [_, _, fifth, fourth, third, second, first, zeroth] = sector.to_be_bytes();
        let [_, _, low, mid, high] = &mut self.registers;
        if width == Width::Short && self.device & LBA == 0 {
            let (cylinder, head, in_track) = geometry.address(sector);
            [high.current, mid.current] = cylinder.to_be_bytes();
            low.current = in_track;
            self.device = self.device & 0xf0 | head & 15;
            return;
        }
        (low.current, mid.current, high.current) = (zeroth, first, second);
        match width {
            Width::Short => self.device = self.device & 0xf0 | third & 15,
            Width::Extended => {
                (low.previous, mid.previous, high.previous) = (third, fourth, fifth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(writes: &[(u32, u8)]) -> TaskFile {
        let mut task = TaskFile::signature();
        for &(offset, value) in writes {
            task.write(offset, value);
        }
        task
    }

    #[test]
    fn a_28_bit_address_has_its_top_in_the_device_register() {
        let task = task(&[(2, 0), (3, 0x78), (4, 0x56), (5, 0x34), (6, 0xe2)]);
        assert_eq!(task.sector(Width::Short, Geometry::DEFAULT), Some(0x0234_5678));
        assert_eq!(task.count(Width::Short), 256);
    }

    #[test]
    fn a_48_bit_address_has_its_top_in_the_previous_values() {
        let mut task = task(&[(2, 1), (2, 2), (3, 6), (3, 3), (4, 5), (4, 2), (5, 4), (5, 1)]);
        assert_eq!(task.sector(Width::Extended, Geometry::DEFAULT), Some(0x0405_0601_0203));
        assert_eq!(task.count(Width::Extended), 0x102);
        assert_eq!([task.read(3, true), task.read(3, false)], [6, 3]);
        task.set_sector(0xa1a2_a3a4_a5a6, Width::Extended, Geometry::DEFAULT);
        assert_eq!(task.sector(Width::Extended, Geometry::DEFAULT), Some(0xa1a2_a3a4_a5a6));
    }

    #[test]
    fn a_failing_sector_is_shown_in_the_command_s_own_form() {
        for device in [0xa0, 0xe0] {
            let mut task = task(&[(6, device)]);
            task.set_sector(123_456, Width::Short, Geometry::DEFAULT);
            assert_eq!(task.sector(Width::Short, Geometry::DEFAULT), Some(123_456));
        }
    }

    #[test]
    fn the_signature_is_a_disk_s() {
        let task = TaskFile::signature();
        assert_eq!([2, 3, 4, 5].map(|offset| task.read(offset, false)), [1, 1, 0, 0]);
        assert!(!task.selects_slave());
    }
}
