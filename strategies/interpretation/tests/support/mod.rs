//! Workloads as guests, and what they report.

use interpretation::Interpretation;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::clock::ClockSource;
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig};
use std::io::Write;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};
use tempfile::NamedTempFile;
use workloads::protocol::Transcript;
use workloads::{Image, Workload};

/// A workload that is ready to run, with its disk.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    pub(crate) image: Image,
    _disk: Option<NamedTempFile>,
}

/// The workload of this name, assembled for so many iterations, on a machine that was just made.
pub(crate) fn boot(name: &str, iterations: u32, clock: ClockSource) -> Guest {
    let all = workloads::all();
    let workload = all.iter().find(|workload| workload.name == name).expect("a workload");
    let image = workload.assemble(iterations).unwrap();
    let disk = (image.disk_sectors > 0).then(|| disk(image.disk_sectors));
    let machine = machine(workload, &image, disk.as_ref(), clock);
    Guest { machine, image, _disk: disk }
}

fn disk(sectors: u32) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&workloads::disk_image(sectors)).unwrap();
    file
}

fn machine(
    workload: &Workload,
    image: &Image,
    disk: Option<&NamedTempFile>,
    clock: ClockSource,
) -> Machine {
    let mut machine = Machine::new(&MachineConfig {
        memory_bytes: workload.memory_bytes,
        clock,
        disk: disk.map(|file| DiskConfig { path: file.path().into(), read_only: true }),
        ..MachineConfig::default()
    })
    .unwrap();
    let kernel = Kernel { path: workload.name.into(), bytes: image.bytes.clone() };
    let kind = Some(ImageKind::Multiboot);
    machine::boot::load(&mut machine, &BootSource { kernel, kind, ..BootSource::default() })
        .unwrap();
    machine
}

/// Runs a machine under a new interpreter.
pub(crate) fn run(machine: &mut Machine, limit: &Limit) -> Stop {
    Interpretation::new().run(machine, limit).unwrap()
}

/// A limit that no test should reach.
pub(crate) fn a_minute() -> Limit {
    Limit::until(Instant::now() + Duration::from_secs(60))
}

/// What a guest wrote to the debug console since the last time.
pub(crate) fn console(machine: &mut Machine) -> Vec<u8> {
    machine.bus.devices.debug_console.take_marks().into_iter().map(|mark| mark.byte).collect()
}

/// The checksum in a console's output.
pub(crate) fn checksum(console: &[u8]) -> Option<u32> {
    Transcript::read(console.iter().map(|&byte| (byte, ()))).result
}
