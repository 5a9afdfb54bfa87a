//! The files that guests boot from, in a folder that goes away with us.

use anyhow::Context;
use std::collections::HashMap;
use std::path::PathBuf;
use tempfile::TempDir;
use workloads::{Image, Workload};

/// A guest's files and what it must report.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The multiboot image.
    pub image: PathBuf,
    /// The disk, if the guest needs one.
    pub disk: Option<PathBuf>,
    /// The checksum that the guest must report.
    pub checksum: u32,
}

/// The folder.
pub(super) struct Scratch {
    folder: TempDir,
    disks: HashMap<u32, PathBuf>,
}

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Scratch> {
        let folder = tempfile::Builder::new().prefix("ringside-").tempdir();
        let folder = folder.context("no folder for temporary files")?;
        Ok(Scratch { folder, disks: HashMap::new() })
    }

    /// Writes the image that does `iterations` iterations of the workload.
    pub(super) fn files(&mut self, workload: &Workload, iterations: u32) -> anyhow::Result<Files> {
        let Image { bytes, checksum, disk_sectors } = workload.assemble(iterations)?;
        let image = self.folder.path().join(format!("{}.bin", workload.name));
        std::fs::write(&image, bytes)
            .with_context(|| format!("{} cannot be written", image.display()))?;
        let disk = match disk_sectors {
            0 => None,
            sectors => Some(self.disk(sectors)?),
        };
        Ok(Files { image, disk, checksum })
    }

    fn disk(&mut self, sectors: u32) -> anyhow::Result<PathBuf> {
        if let Some(path) = self.disks.get(&sectors) {
            return Ok(path.clone());
        }
        let path = self.folder.path().join(format!("{sectors}-sectors.img"));
        std::fs::write(&path, workloads::disk_image(sectors))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        self.disks.insert(sectors, path.clone());
        Ok(path)
    }
}
