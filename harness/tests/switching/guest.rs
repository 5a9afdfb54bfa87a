//! A workload's guest in this process, and whether it came to its right result.

use machine::boot::{BootSource, ImageKind, Kernel};
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig, RestoreOptions};
use ringside::guest::{End, Report};
use ringside::records::Outcome;
use std::time::Instant;
use strategy::Stop;
use tempfile::NamedTempFile;
use workloads::{Image, Workload};

/// A guest that has been booted.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    /// What machines that are gone have reported.
    reported: Vec<(u8, Instant)>,
    checksum: u32,
    /// Its disk, as long as it lives.
    _disk: NamedTempFile,
}

impl Guest {
    pub(crate) fn boot(workload: &Workload, iterations: u32) -> Result<Guest, String> {
        let image = workload.assemble(iterations).map_err(|error| error.to_string())?;
        let Image { bytes, checksum, disk_sectors } = image;
        let disk = NamedTempFile::new().map_err(|error| error.to_string())?;
        std::fs::write(disk.path(), workloads::disk_image(disk_sectors))
            .map_err(|error| error.to_string())?;
        let disk_config = DiskConfig { path: disk.path().to_owned(), read_only: true };
        let config = MachineConfig {
            memory_bytes: workload.memory_bytes,
            disk: (disk_sectors > 0).then_some(disk_config),
            ..MachineConfig::default()
        };
        let mut machine = Machine::new(&config).map_err(|error| error.to_string())?;
        let kernel = Kernel { path: workload.name.into(), bytes };
        let kind = Some(ImageKind::Multiboot);
        let source = BootSource { kernel, kind, ..BootSource::default() };
        machine::boot::load(&mut machine, &source).map_err(|error| error.to_string())?;
        Ok(Guest { machine, reported: Vec::new(), checksum, _disk: disk })
    }

    /// Saves the machine and goes on with what is restored from that. What strategies know of it is old
    /// then.
    pub(crate) fn save_and_restore(&mut self) -> Result<(), String> {
        let mut file = Vec::new();
        self.machine.save(&mut file).map_err(|error| error.to_string())?;
        self.collect();
        let restored = Machine::restore(&mut file.as_slice(), &RestoreOptions::default());
        self.machine = restored.map_err(|error| error.to_string())?;
        Ok(())
    }

    fn collect(&mut self) {
        let marks = self.machine.bus.devices.debug_console.take_marks();
        self.reported.extend(marks.into_iter().map(|mark| (mark.byte, mark.at)));
    }

    /// Whether a guest that stopped so has reported what it must.
    pub(crate) fn check(&mut self, stop: Stop) -> Result<(), String> {
        let end = match stop {
            Stop::Exit(value) => End::Exit(value),
            stop => End::Died(format!("{stop} at EIP {:#010x}", self.machine.cpu.eip)),
        };
        self.collect();
        let report = Report::new(Instant::now(), end, self.reported.drain(..));
        let verdict = report.verdict(self.checksum);
        match verdict.outcome {
            Outcome::Ok => Ok(()),
            other => Err(format!("{}: {}", other.name(), verdict.detail)),
        }
    }
}
