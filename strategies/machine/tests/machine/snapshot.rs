//! Machines in files: what comes back, and what files that are damaged or made up do.

use crate::hostile::{Random, act};
use machine::clock::ClockSource;
use machine::config::DiskConfig;
use machine::{
    Error, FormatError, Machine, MachineConfig, PhysicalAddress, RestoreOptions, Vector, difference,
};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tempfile::NamedTempFile;

const SECTORS: usize = 64;

fn disk(fill: u8) -> NamedTempFile {
    let mut image = NamedTempFile::new().unwrap();
    image.write_all(&vec![fill; 512 * SECTORS]).unwrap();
    image
}

fn config(disk: Option<&Path>) -> MachineConfig {
    MachineConfig {
        memory_bytes: 2 << 20,
        clock: ClockSource::Virtual,
        disk: disk.map(|path| DiskConfig { path: path.into(), read_only: false }),
        ..MachineConfig::default()
    }
}

fn save(machine: &Machine) -> Vec<u8> {
    let mut file = Vec::new();
    machine.save(&mut file).unwrap();
    file
}

fn restore(mut file: &[u8]) -> Result<Machine, Error> {
    Machine::restore(&mut file, &RestoreOptions::default())
}

/// Accesses to everything, some pages written.
fn use_machine(machine: &mut Machine, random: &mut Random, accesses: usize) {
    for _ in 0..accesses {
        act(machine, random);
        let address = PhysicalAddress(random.below(2 << 20));
        if random.below(16) == 0 {
            machine.memory.write(address, &random.next().to_le_bytes());
        }
    }
}

#[test]
fn a_restored_machine_is_saved_as_the_same_file() {
    for seed in 1..=50u64 {
        let image = disk(1);
        let mut machine = Machine::new(&config(Some(image.path()))).unwrap();
        use_machine(&mut machine, &mut Random(seed << 32 | 7), 3_000);
        machine.cpu.registers = [1, 2, 3, 4, 5, 6, 7, seed as u32];
        machine.cpu.fpu.area.0[40] = 0x55;
        let file = save(&machine);
        let restored = restore(&file).unwrap();
        assert_eq!(difference(&machine, &restored).unwrap(), [], "seed {seed}");
        assert!(save(&restored) == file, "seed {seed}");
    }
}

#[test]
fn a_restored_machine_goes_on_as_the_saved_one_does() {
    for seed in 1..=10u64 {
        let mut machine = Machine::new(&config(None)).unwrap();
        use_machine(&mut machine, &mut Random(seed << 20 | 3), 2_000);
        let mut restored = restore(&save(&machine)).unwrap();
        for machine in [&mut machine, &mut restored] {
            use_machine(machine, &mut Random(seed), 2_000);
        }
        assert!(save(&machine) == save(&restored), "seed {seed}");
    }
}

/// The moments and vectors of the next interrupts.
fn interrupts(machine: &mut Machine) -> Vec<(u64, Vector)> {
    let mut seen = Vec::new();
    while seen.len() < 50 {
        machine.wait_for_event(Duration::from_secs(1));
        machine.service();
        if machine.interrupt_requested() {
            seen.push((machine.clock().now(), machine.acknowledge_interrupt()));
            machine.bus.port_write(0xa0, 1, 0x20);
            machine.bus.port_write(0x20, 1, 0x20);
            machine.bus.port_write(0x70, 1, 0x0c);
            machine.bus.port_read(0x71, 1);
        }
    }
    seen
}

#[test]
fn timers_keep_their_phase() {
    let mut machine = Machine::new(&config(None)).unwrap();
    let writes = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfa),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xfe),
        // Channel 0 at some 1 kHz, and the periodic interrupt of the real-time clock.
        (0x43, 0x34),
        (0x40, 0xa9),
        (0x40, 0x04),
        (0x70, 0x0b),
        (0x71, 0x42),
    ];
    for (port, value) in writes {
        machine.bus.port_write(port, 1, value);
    }
    machine.service();
    machine.clock().retire(12_345);
    let mut restored = restore(&save(&machine)).unwrap();
    let expected = interrupts(&mut machine);
    assert_eq!(interrupts(&mut restored), expected);
    assert!(expected.iter().any(|(_, vector)| *vector == Vector(0x20)));
    assert!(expected.iter().any(|(_, vector)| *vector == Vector(0x28)));
}

#[test]
fn time_on_the_hosts_clock_goes_on_from_its_moment() {
    let clock = ClockSource::Host;
    let machine = Machine::new(&MachineConfig { clock, ..config(None) }).unwrap();
    machine.clock().set_tsc(1 << 60);
    std::thread::sleep(Duration::from_millis(20));
    let file = save(&machine);
    let saved_by = machine.clock().now();
    std::thread::sleep(Duration::from_millis(50));
    let restored = restore(&file).unwrap();
    let now = restored.clock().now();
    assert!((20_000_000..saved_by + 40_000_000).contains(&now), "{now}");
    assert!(restored.clock().tsc() > 1 << 60);
}

#[test]
fn a_rom_and_what_is_below_four_gibibytes_come_back() {
    let rom = (0..0x1_8000u32).map(|at| (at >> 4) as u8).collect();
    let machine = Machine::new(&MachineConfig { rom, ..config(None) }).unwrap();
    let restored = restore(&save(&machine)).unwrap();
    let mut end = [0; 16];
    assert!(restored.memory.read(PhysicalAddress(0xffff_fff0), &mut end));
    assert_eq!(end, [0xff; 16]);
    assert_eq!(difference(&machine, &restored).unwrap(), []);
}

#[test]
fn pages_of_zeros_are_not_in_the_file() {
    let mut machine =
        Machine::new(&MachineConfig { memory_bytes: 3 << 30, ..config(None) }).unwrap();
    assert!(machine.memory.write(PhysicalAddress(0x8000_0000), &[1]));
    let length = save(&machine).len();
    assert!(length < 200 << 10, "{length}");
}

fn other_disk(error: &Error) -> bool {
    matches!(error, Error::Format(FormatError::OtherDisk { .. }))
}

#[test]
fn the_disk_must_be_the_same_wherever_it_is() {
    let (image, copy, other) = (disk(1), disk(1), disk(2));
    let file = save(&Machine::new(&config(Some(image.path()))).unwrap());
    let restore_with = |path: &Path| {
        let disk = Some(DiskConfig { path: path.into(), read_only: true });
        Machine::restore(&mut file.as_slice(), &RestoreOptions { disk })
    };
    assert!(restore_with(copy.path()).is_ok());
    let error = restore_with(other.path()).unwrap_err();
    assert!(other_disk(&error), "{error}");
    for path in [image.path(), other.path()] {
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    image.as_file().set_len(512 * 32).unwrap();
    let error = restore(&file).unwrap_err();
    assert!(other_disk(&error), "{error}");
    drop(image);
    let error = restore(&file).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[test]
fn a_disk_in_place_of_none_is_refused() {
    let image = disk(1);
    let file = save(&Machine::new(&config(None)).unwrap());
    let disk = Some(DiskConfig { path: image.path().into(), read_only: true });
    let error = Machine::restore(&mut file.as_slice(), &RestoreOptions { disk }).unwrap_err();
    assert!(error.to_string().contains("expected none"), "{error}");
}

#[test]
fn a_transfer_in_the_middle_of_a_sector_goes_on() {
    let image = disk(0x77);
    let mut machine = Machine::new(&config(Some(image.path()))).unwrap();
    for (port, value) in
        [(0x1f2, 2), (0x1f3, 0), (0x1f4, 0), (0x1f5, 0), (0x1f6, 0xe0), (0x1f7, 0x20)]
    {
        machine.bus.port_write(port, 1, value);
    }
    let words = |machine: &mut Machine, count| {
        (0..count).all(|_| machine.bus.port_read(0x1f0, 2) == 0x7777)
    };
    assert!(words(&mut machine, 100));
    let mut restored = restore(&save(&machine)).unwrap();
    assert!(words(&mut restored, 412));
    assert_eq!(restored.bus.port_read(0x1f7, 1), 0x50);
}

#[test]
fn input_that_waits_is_not_lost() {
    let mut machine = Machine::new(&config(None)).unwrap();
    machine.bus.devices.input().send_serial(b"waiting");
    let mut restored = restore(&save(&machine)).unwrap();
    restored.service();
    let mut received = Vec::new();
    while restored.bus.port_read(0x3fd, 1) & 1 != 0 {
        received.push(restored.bus.port_read(0x3f8, 1) as u8);
    }
    assert_eq!(received, b"waiting");
    machine.service();
}

/// A file of a machine in the middle of everything, without much memory in it.
fn busy() -> (Vec<u8>, NamedTempFile) {
    let image = disk(3);
    let mut machine = Machine::new(&config(Some(image.path()))).unwrap();
    for _ in 0..2_000 {
        act(&mut machine, &mut Random(77));
    }
    for (port, value) in
        [(0x1f2, 9), (0x1f6, 0xe0), (0x1f7, 0xec), (0x43, 0x36), (0x40, 9), (0x40, 9)]
    {
        machine.bus.port_write(port, 1, value);
    }
    machine.memory.write(PhysicalAddress(0x10_0000), &[0x90; 5000]);
    (save(&machine), image)
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let (file, _image) = busy();
    let near_section_ends =
        (0..file.len()).step_by(1009).chain(0..600).chain(file.len() - 40..file.len());
    for length in near_section_ends {
        let error = restore(&file[..length]).unwrap_err();
        assert!(matches!(error, Error::Format(FormatError::Truncated { .. })), "{length}: {error}");
    }
}

#[test]
fn damaged_files_are_refused_with_the_section_that_is() {
    let (file, _image) = busy();
    let mut random = Random(4711);
    for _ in 0..300 {
        let mut damaged = file.clone();
        let at = random.below(file.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
        assert!(restore(&damaged).is_err(), "byte {at}");
    }
    let mut damaged = file.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let message = restore(&damaged).unwrap_err().to_string();
    assert!(message.starts_with("section end is damaged: expected checksum"), "{message}");
}

#[test]
fn a_newer_file_says_so() {
    let (mut file, _image) = busy();
    file[8] = 99;
    let checksum = crc32fast::hash(&file[..12]);
    file[12..16].copy_from_slice(&checksum.to_le_bytes());
    let message = restore(&file).unwrap_err().to_string();
    assert_eq!(message, "a saved machine of version 99: expected version 2");
}

/// The file's sections: where their payloads lie.
fn payloads(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = 16;
    let mut found = Vec::new();
    while at < file.len() {
        let length = u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
        found.push(at + 16..at + 16 + length);
        at += 16 + length;
    }
    found
}

/// Changes a few bytes of a section, mostly near its ends (the middle of the devices is video memory),
/// and makes its checksum right again.
fn forge(file: &mut [u8], payload: std::ops::Range<usize>, random: &mut Random) {
    let length = payload.len() as u64;
    for _ in 0..=random.below(3) {
        let offset = match random.below(4) {
            0 => random.below(length),
            1 => length - 1 - random.below(length.min(200)),
            _ => random.below(length.min(600)),
        };
        let value = if random.below(2) == 0 { random.next() as u8 } else { 0xff };
        file[payload.start + offset as usize] = value;
    }
    let head = payload.start - 16;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&file[head..head + 12]);
    checksum.update(&file[payload.clone()]);
    file[head + 12..payload.start].copy_from_slice(&checksum.finalize().to_le_bytes());
}

#[test]
fn forged_files_are_refused_or_make_machines_that_do_no_harm() {
    let (file, _image) = busy();
    let sections = payloads(&file);
    let mut random = Random(0x1234_5678_9abc);
    let mut restored = 0;
    for _ in 0..1_500 {
        let mut forged = file.clone();
        // Half of the time the devices are meant; the last section is empty.
        let some = random.below(sections.len() as u64 - 1) as usize;
        let index = if random.below(2) == 0 { 4 } else { some };
        forge(&mut forged, sections[index].clone(), &mut random);
        let Ok(mut machine) = restore(&forged) else { continue };
        restored += 1;
        for _ in 0..200 {
            act(&mut machine, &mut random);
        }
        save(&machine);
    }
    assert!(restored > 100, "only {restored} came back");
}
