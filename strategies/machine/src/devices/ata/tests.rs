//! The disk as drivers use it, by polling and by interrupts.

use super::*;
use crate::devices::testing::{Line, read};
use tempfile::NamedTempFile;

const SECTORS: u64 = 4096;
const READY: u8 = 0x50;
const REQUEST: u8 = 0x58;
const FAILED: u8 = 0x51;

struct Bench {
    disk: Disk,
    line: Line,
    file: NamedTempFile,
}

impl Bench {
    /// A disk each of whose sectors is filled with its number.
    fn new(read_only: bool) -> Bench {
        let file = NamedTempFile::new().unwrap();
        let contents: Vec<u8> =
            (0..SECTORS as u32).flat_map(|sector| sector.to_le_bytes().repeat(128)).collect();
        std::fs::write(file.path(), contents).unwrap();
        let line = Line::default();
        let config = DiskConfig { path: file.path().into(), read_only };
        let disk = Disk::new(Some(&config), Arc::new(line.clone())).unwrap();
        Bench { disk, line, file }
    }

    fn writable() -> Bench {
        Bench::new(false)
    }

    fn put(&mut self, offset: u32, value: u8) {
        self.disk.write(offset, &[value]);
    }

    fn get(&mut self, offset: u32) -> u8 {
        read(&mut self.disk, offset)
    }

    /// Issues a command with a 28-bit address.
    fn command(&mut self, command: u8, sector: u32, count: u8) -> u8 {
        let [low, mid, high, top] = sector.to_le_bytes();
        for (offset, value) in (2..).zip([count, low, mid, high, 0xe0 | top]) {
            self.put(offset, value);
        }
        self.put(STATUS, command);
        self.get(CONTROL)
    }

    fn word(&mut self) -> u16 {
        let mut data = [0; 2];
        self.disk.read(DATA, &mut data);
        u16::from_le_bytes(data)
    }

    fn sector(&mut self) -> Vec<u16> {
        (0..256).map(|_| self.word()).collect()
    }

    fn write_sector(&mut self, word: u16) {
        for _ in 0..256 {
            self.disk.write(DATA, &word.to_le_bytes());
        }
    }

    fn on_host(&self, sector: usize) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()[sector * 512..][..512].to_vec()
    }
}

#[test]
fn a_read_interrupts_once_a_sector_and_ends_quietly() {
    let mut bench = Bench::writable();
    assert_eq!(bench.command(0x20, 0x123, 3), REQUEST);
    for sector in 0x123..0x126 {
        assert!(bench.line.level());
        assert_eq!(bench.get(STATUS), REQUEST);
        assert!(!bench.line.level(), "reading the status takes the interrupt");
        assert_eq!(bench.sector(), [sector, 0].repeat(128));
    }
    assert!(!bench.line.level());
    assert_eq!((bench.get(STATUS), bench.line.rises()), (READY, 3));
}

#[test]
fn a_write_reaches_the_image_and_interrupts_after_each_sector() {
    let mut bench = Bench::writable();
    assert_eq!(bench.command(0x30, 7, 2), REQUEST);
    assert!(!bench.line.level(), "the first block comes without an interrupt");
    bench.write_sector(0xbeef);
    assert!(bench.line.level());
    assert_eq!(bench.get(STATUS), REQUEST);
    bench.write_sector(0xcafe);
    assert_eq!(bench.get(STATUS), READY);
    assert_eq!(bench.line.rises(), 2);
    assert_eq!(bench.on_host(7), [0xef, 0xbe].repeat(256));
    assert_eq!(bench.on_host(8), [0xfe, 0xca].repeat(256));
    assert_eq!(bench.on_host(9)[0], 9);
    assert_eq!(bench.command(0xe7, 0, 0), READY);
}

#[test]
fn the_data_port_takes_four_bytes_at_a_time() {
    let mut bench = Bench::writable();
    bench.command(0x20, 0x321, 1);
    for _ in 0..128 {
        let mut data = [0; 4];
        bench.disk.read(DATA, &mut data);
        assert_eq!(u32::from_le_bytes(data), 0x321);
    }
    assert_eq!(bench.get(STATUS), READY);
}

#[test]
fn multiple_mode_moves_blocks() {
    let mut bench = Bench::writable();
    assert_eq!(bench.command(0xc4, 0, 4), FAILED, "not switched on");
    assert_eq!(bench.command(0xc6, 0, 3), FAILED, "no power of two");
    assert_eq!(bench.command(0xc6, 0, 4), READY);
    let before = bench.line.rises();
    bench.get(STATUS);
    assert_eq!(bench.command(0xc4, 10, 6), REQUEST);
    for block in [10..14, 14..16] {
        bench.get(STATUS);
        for sector in block {
            assert_eq!(bench.sector()[0], sector);
        }
    }
    assert_eq!(bench.line.rises() - before, 2);
    bench.command(0xc5, 20, 4);
    (0..4).for_each(|_| bench.write_sector(0x5a5a));
    assert_eq!(bench.on_host(23), [0x5a; 512]);
}

#[test]
fn extended_commands_use_the_previous_values() {
    let mut bench = Bench::writable();
    for (offset, value) in [(2, 0), (2, 1), (3, 0), (3, 0x45), (4, 0), (4, 0x03), (5, 0), (5, 0)] {
        bench.put(offset, value);
    }
    bench.put(DEVICE, 0x40);
    bench.put(STATUS, 0x24);
    assert_eq!(bench.sector()[0], 0x345);
    bench.put(3, 1);
    bench.put(3, 0);
    bench.put(STATUS, 0x24);
    assert_eq!((bench.get(STATUS), bench.get(ERROR)), (FAILED, 0x10), "beyond the disk");
    bench.put(CONTROL, 0x80);
    assert_eq!(bench.get(3), 1);
    bench.put(CONTROL, 0);
    assert_eq!(bench.get(3), 0);
}

#[test]
fn cylinder_addresses_follow_the_parameters() {
    let mut bench = Bench::writable();
    let mut read_at = |cylinder: u8, head: u8, sector: u8| {
        for (offset, value) in [(2, 1), (3, sector), (4, cylinder), (5, 0), (6, 0xa0 | head)] {
            bench.put(offset, value);
        }
        bench.put(STATUS, 0x20);
        (bench.get(STATUS) == REQUEST).then(|| bench.sector()[0])
    };
    assert_eq!(read_at(1, 2, 3), Some((16 + 2) * 63 + 2));
    assert_eq!(read_at(0, 0, 0), None);
    bench.put(2, 17);
    bench.put(6, 0xa3);
    bench.put(STATUS, 0x91);
    let mut read_at = |cylinder: u8, head: u8, sector: u8| {
        for (offset, value) in [(2, 1), (3, sector), (4, cylinder), (5, 0), (6, 0xa0 | head)] {
            bench.put(offset, value);
        }
        bench.put(STATUS, 0x20);
        (bench.get(STATUS) == REQUEST).then(|| bench.sector()[0])
    };
    assert_eq!(read_at(1, 2, 3), Some((4 + 2) * 17 + 2));
    assert_eq!(read_at(1, 4, 3), None);
}

#[test]
fn sectors_beyond_the_end_are_not_found() {
    let mut bench = Bench::writable();
    for (sector, count) in [(SECTORS as u32, 1), (SECTORS as u32 - 1, 2), (0x0fff_ffff, 0)] {
        for command in [0x20, 0x30, 0x40] {
            assert_eq!(bench.command(command, sector, count), FAILED);
            assert_eq!(bench.get(ERROR), 0x10);
        }
    }
    assert_eq!(bench.command(0x40, SECTORS as u32 - 1, 1), READY);
    assert_eq!(bench.command(0x70, SECTORS as u32, 0), FAILED, "seek");
}

#[test]
fn a_read_only_disk_aborts_writes() {
    let mut bench = Bench::new(true);
    for command in [0x30, 0x34] {
        assert_eq!(bench.command(command, 3, 1), FAILED);
        assert_eq!(bench.get(ERROR), 0x04);
        assert!(bench.line.level());
    }
    assert_eq!(bench.command(0x20, 3, 1), REQUEST);
}

#[test]
fn an_image_that_shrank_gives_uncorrectable_errors_at_the_sector() {
    let mut bench = Bench::writable();
    bench.file.as_file().set_len(512 * 100).unwrap();
    bench.command(0x20, 99, 3);
    bench.sector();
    assert_eq!((bench.get(STATUS), bench.get(ERROR), bench.get(3)), (FAILED, 0x40, 100));
    assert_eq!(bench.command(0x40, 98, 4), FAILED);
    assert_eq!(bench.get(3), 100);
}

#[test]
fn identify_tells_the_size() {
    let mut bench = Bench::writable();
    assert_eq!(bench.command(0xec, 0, 0), REQUEST);
    let words = bench.sector();
    assert_eq!(u64::from(words[60]), SECTORS);
    assert_eq!(words[49], 0x0200);
    assert_eq!(bench.get(STATUS), READY);
}

#[test]
fn unknown_commands_and_features_abort() {
    let mut bench = Bench::writable();
    for command in [0x00, 0x08, 0xa0, 0xc8, 0xff] {
        assert_eq!(bench.command(command, 0, 0), FAILED);
        assert_eq!(bench.get(ERROR), 0x04);
    }
    bench.put(ERROR, 0x03);
    assert_eq!(bench.command(0xef, 0, 0x0b), READY);
    assert_eq!(bench.command(0xef, 0, 0x45), FAILED, "no UDMA");
}

#[test]
fn a_software_reset_shows_the_signature() {
    let mut bench = Bench::writable();
    bench.command(0x20, 5, 1);
    bench.put(CONTROL, 0x04);
    assert_eq!(bench.get(CONTROL), 0x80);
    bench.put(CONTROL, 0x00);
    assert_eq!([STATUS, ERROR, 2, 3, 4, 5].map(|o| bench.get(o)), [READY, 1, 1, 1, 0, 0]);
    assert!(!bench.line.level());
}

#[test]
fn interrupts_can_be_switched_off() {
    let mut bench = Bench::writable();
    bench.put(CONTROL, 0x02);
    bench.command(0x20, 5, 1);
    assert!(!bench.line.level());
    bench.put(CONTROL, 0x00);
    assert!(bench.line.level(), "it stood all the time");
}

#[test]
fn an_absent_slave_answers_with_nothing() {
    let mut bench = Bench::writable();
    bench.put(DEVICE, 0xb0);
    assert_eq!([STATUS, CONTROL, ERROR, 2, 3].map(|offset| bench.get(offset)), [0; 5]);
    bench.put(STATUS, 0xec);
    assert_eq!(bench.get(STATUS), 0);
    assert!(!bench.line.level());
    bench.put(STATUS, 0x90);
    assert_eq!((bench.get(ERROR), bench.get(DEVICE) & 0x10), (1, 0), "a diagnostic is for both");
}

#[test]
fn without_a_disk_the_bus_floats() {
    let line = Line::default();
    let mut disk = Disk::new(None, Arc::new(line.clone())).unwrap();
    disk.write(STATUS, &[0xec]);
    assert_eq!([read(&mut disk, STATUS), read(&mut disk, CONTROL)], [0xff; 2]);
    assert!(!line.level());
}

#[test]
fn a_machine_reset_keeps_the_disk() {
    let mut bench = Bench::writable();
    bench.command(0x20, 5, 1);
    bench.disk.reset();
    assert!(!bench.line.level());
    assert_eq!(bench.get(STATUS), READY);
    bench.command(0x20, 5, 1);
    assert_eq!(bench.word(), 5);
}
