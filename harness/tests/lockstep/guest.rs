//! Workloads on two machines in the same state.

use machine::boot::{BootSource, ImageKind, Kernel};
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig};
use tempfile::NamedTempFile;
use workloads::Workload;

/// The machines of a comparison, with the disk as long as it has to live.
pub(crate) struct Pair {
    pub(crate) leader: Machine,
    pub(crate) reference: Machine,
    pub(crate) disk: NamedTempFile,
}

impl Pair {
    pub(crate) fn boot(name: &str, iterations: u32) -> Pair {
        let all = workloads::all();
        let workload = all.iter().find(|each| each.name == name).expect("a workload");
        let image = workload.assemble(iterations).unwrap();
        let disk = NamedTempFile::new().unwrap();
        std::fs::write(disk.path(), workloads::disk_image(image.disk_sectors)).unwrap();
        let boot = || machine(workload, &image.bytes, (image.disk_sectors > 0).then_some(&disk));
        Pair { leader: boot(), reference: boot(), disk }
    }
}

fn machine(workload: &Workload, bytes: &[u8], disk: Option<&NamedTempFile>) -> Machine {
    let disk = disk.map(|disk| DiskConfig { path: disk.path().to_owned(), read_only: true });
    let config = MachineConfig { memory_bytes: workload.memory_bytes, disk, ..Default::default() };
    let mut machine = Machine::new(&config).unwrap();
    let kernel = Kernel { path: workload.name.into(), bytes: bytes.to_vec() };
    let kind = Some(ImageKind::Multiboot);
    machine::boot::load(&mut machine, &BootSource { kernel, kind, ..Default::default() }).unwrap();
    machine
}
