//! Every workload under interpretation, the reference: it must report the checksum that the host
//! computed, every probe right, and no fault. Nothing is excused here.

use interpretation::Interpretation;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig};
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};
use workloads::protocol::Transcript;
use workloads::{Image, Workload, disk_image};

/// Far beyond what any of them takes, on a busy host too.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Runs a workload; why it stopped and everything it wrote.
fn run(workload: &Workload, image: &Image) -> (Stop, Transcript<Instant>) {
    let disk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(disk.path(), disk_image(image.disk_sectors)).unwrap();
    let disk_config = DiskConfig { path: disk.path().to_owned(), read_only: true };
    let config = MachineConfig {
        memory_bytes: workload.memory_bytes,
        disk: (image.disk_sectors > 0).then_some(disk_config),
        ..MachineConfig::default()
    };
    let mut machine = Machine::new(&config).unwrap();
    let kernel = Kernel { path: workload.name.into(), bytes: image.bytes.clone() };
    let kind = Some(ImageKind::Multiboot);
    let source = BootSource { kernel, kind, ..BootSource::default() };
    machine::boot::load(&mut machine, &source).unwrap();
    let limit = Limit::until(Instant::now() + TIME_LIMIT);
    let stop = Interpretation::new().run(&mut machine, &limit).unwrap();
    let marks = machine.bus.devices.debug_console.take_marks();
    (stop, Transcript::read(marks.into_iter().map(|mark| (mark.byte, mark.at))))
}

/// What is wrong with a run, if anything.
fn complaint(workload: &Workload, iterations: u32) -> Option<String> {
    let image = workload.assemble(iterations).unwrap();
    let (stop, transcript) = run(workload, &image);
    let right = stop == Stop::Exit(0)
        && transcript.result == Some(image.checksum)
        && transcript.measured.is_some()
        && transcript.fault.is_none()
        && transcript.other.is_empty();
    let wrong: Vec<_> =
        transcript.probes.iter().filter(|probe| probe.difference.is_some()).collect();
    (!right || !wrong.is_empty()).then(|| {
        let Transcript { result, fault, other, .. } = &transcript;
        format!(
            "{}({iterations}): {stop}, result {result:x?} for {:x}, {fault:x?}, {other:?}, {wrong:x?}",
            workload.name, image.checksum
        )
    })
}

#[test]
fn every_workload_is_right_under_interpretation() {
    let complaints: Vec<String> = workloads::all()
        .iter()
        .flat_map(|workload| [1, workload.first_iterations].map(|n| complaint(workload, n)))
        .flatten()
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_sensitive_workload_has_a_probe() {
    let sensitive = workloads::all().into_iter().filter(|w| w.group == workloads::Group::Sensitive);
    for workload in sensitive {
        let (_, transcript) = run(&workload, &workload.assemble(1).unwrap());
        assert!(!transcript.probes.is_empty(), "{}", workload.name);
        let mut names: Vec<_> = transcript.probes.iter().map(|probe| &probe.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{}: two probes have the same name", workload.name);
    }
}
