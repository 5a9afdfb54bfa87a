//! What can go wrong when a machine is made or an image is loaded.

use crate::FormatError;
use std::path::PathBuf;

/// Failures of making a machine. Running a guest never fails for the guest's reasons.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory size makes no sense.
    #[error("memory of {bytes} bytes: expected a multiple of 4 KiB from 1 MiB to 3 GiB")]
    MemorySize {
        /// The size asked for.
        bytes: u64,
    },
    /// The host did not give memory.
    #[error("the host gave no memory for the guest: {0}")]
    HostMemory(String),
    /// A file could not be opened, read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// A saved machine or a recorded log cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A boot image is damaged, of another kind, or does not fit.
    #[error("{path}: {reason}")]
    Image {
        /// The image's file, or what it is called where it has none.
        path: PathBuf,
        /// What was expected and what was found, with the address.
        reason: String,
    },
}
