//! A raw disk image on the host.

use crate::Error;
use crate::config::DiskConfig;
use crate::contents;
use crate::snapshot::DiskIdentity;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes in a sector.
pub(super) const SECTOR: usize = 512;

/// Sectors that 48-bit addresses reach.
const MAX_SECTORS: u64 = 1 << 48;

/// An open image.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    sectors: u64,
    read_only: bool,
}

impl Image {
    /// Opens a raw image, whose size is the disk's.
    ///
    /// # Errors
    /// When it cannot be opened as asked, or its size is not one of a disk.
    pub(super) fn open(config: &DiskConfig) -> Result<Image, Error> {
        let path = config.path.clone();
        let opened = OpenOptions::new().read(true).write(!config.read_only).open(&path);
        // Block devices tell their size only so.
        let sized = opened.and_then(|mut file| Ok((file.seek(SeekFrom::End(0))?, file)));
        let (bytes, file) = match sized {
            Ok(sized) => sized,
            Err(source) => return Err(Error::File { path, source }),
        };
        let sectors = bytes / SECTOR as u64;
        if sectors == 0 || sectors > MAX_SECTORS || !bytes.is_multiple_of(SECTOR as u64) {
            let reason = format!("a disk image of {bytes} bytes: expected a multiple of {SECTOR}");
            return Err(Error::Image { path, reason });
        }
        Ok(Image { file, path, sectors, read_only: config.read_only })
    }

    /// What this disk holds now.
    pub(super) fn identity(&self) -> Result<DiskIdentity, Error> {
        let checksum = contents::checksum(&self.file, self.sectors * SECTOR as u64);
        let checksum =
            checksum.map_err(|source| Error::File { path: self.path.clone(), source })?;
        Ok(DiskIdentity::new(&self.path, self.read_only, self.sectors, checksum))
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether all of these sectors exist.
    pub(super) fn holds(&self, first: u64, count: u64) -> bool {
        first.checked_add(count).is_some_and(|end| end <= self.sectors)
    }

    pub(super) fn read(&self, sector: u64, data: &mut [u8]) -> io::Result<()> {
        let read = self.file.read_exact_at(data, sector * SECTOR as u64);
        self.warn("read", sector, read)
    }

    pub(super) fn write(&self, sector: u64, data: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(data, sector * SECTOR as u64);
        self.warn("write", sector, written)
    }

    /// Brings what was written to stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.warn("flush", 0, self.file.sync_data())
    }

    /// The guest sees an uncorrectable error; the host's user wants to know which.
    fn warn(&self, what: &str, sector: u64, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| {
            tracing::warn!(path = %self.path.display(), what, sector, %error, "disk image failed");
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: PathBuf, read_only: bool) -> Result<Image, Error> {
        Image::open(&DiskConfig { path, read_only })
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = open("/nowhere/disk.img".into(), true).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if path.ends_with("disk.img")));
        assert!(error.to_string().starts_with("/nowhere/disk.img: "));
    }

    #[test]
    fn a_size_that_is_no_disk_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [0, 511, 513] {
            file.as_file().set_len(bytes).unwrap();
            let error = open(file.path().into(), true).unwrap_err();
            assert!(matches!(error, Error::Image { .. }), "{bytes}");
        }
        file.as_file().set_len(1024).unwrap();
        assert_eq!(open(file.path().into(), false).unwrap().sectors(), 2);
    }

    #[test]
    fn a_folder_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path().into(), true).is_err());
    }

    #[test]
    fn ranges_that_overflow_are_outside() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1024).unwrap();
        let image = open(file.path().into(), true).unwrap();
        assert!(image.holds(0, 2) && image.holds(1, 1));
        assert!(!image.holds(1, 2) && !image.holds(u64::MAX, 2));
    }
}
