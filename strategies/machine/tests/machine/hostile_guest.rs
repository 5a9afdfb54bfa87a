//! A guest that does what it likes with all ports, and must not bring the monitor down.

use crate::hostile::{Random, act};
use machine::clock::ClockSource;
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig};
use std::io::Write;

#[test]
fn random_accesses_to_all_ports_do_no_harm() {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(&vec![0x5a; 512 * 64]).unwrap();
    for seed in 1..=8u64 {
        println!("seed {seed}");
        let config = MachineConfig {
            memory_bytes: 1 << 20,
            clock: ClockSource::Virtual,
            disk: Some(DiskConfig { path: image.path().into(), read_only: seed % 2 == 0 }),
            ..MachineConfig::default()
        };
        let mut machine = Machine::new(&config).unwrap();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..100_000 {
            act(&mut machine, &mut random);
        }
        let screen = machine.bus.devices.vga.text_screen();
        assert_eq!(screen.lines().len(), 25);
        assert_eq!(std::fs::metadata(image.path()).unwrap().len(), 512 * 64);
    }
}
