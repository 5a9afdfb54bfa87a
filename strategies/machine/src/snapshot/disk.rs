//! By what a disk is known again. Its contents are read, not its date: a copy is as good, and what
//! was written to meanwhile is not.

use crate::Error;
use crate::config::DiskConfig;
use crate::sections::FormatError;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A disk at the moment in which its machine was saved.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct DiskIdentity {
    path: Vec<u8>,
    read_only: bool,
    sectors: u64,
    checksum: u32,
}

impl DiskIdentity {
    /// The disk at `path`.
    pub(crate) fn new(path: &Path, read_only: bool, sectors: u64, checksum: u32) -> DiskIdentity {
        let path = path.as_os_str().as_bytes().to_vec();
        DiskIdentity { path, read_only, sectors, checksum }
    }

    fn path(&self) -> PathBuf {
        OsString::from_vec(self.path.clone()).into()
    }

    /// The disk where it was.
    pub(super) fn config(&self) -> DiskConfig {
        DiskConfig { path: self.path(), read_only: self.read_only }
    }
}

impl fmt::Display for DiskIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        write!(f, "{} ({} sectors, checksum {:08x})", path.display(), self.sectors, self.checksum)
    }
}

/// Refuses a disk that is not the machine's.
pub(super) fn check(
    saved: Option<&DiskIdentity>,
    present: Option<&DiskIdentity>,
) -> Result<(), Error> {
    let contents = |disk: &DiskIdentity| (disk.sectors, disk.checksum);
    if saved.map(contents) == present.map(contents) {
        return Ok(());
    }
    let name = |disk: Option<&DiskIdentity>| disk.map_or("none".to_owned(), ToString::to_string);
    Err(FormatError::OtherDisk { expected: name(saved), found: name(present) }.into())
}
