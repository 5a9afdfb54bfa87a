//! Experiments and virtual machines as TOML describes them, checked before anything happens.
//!
//! Every mistake (an unknown key, a wrong type, a size that makes no sense, a file that is not
//! there) becomes one [`ConfigError`] that names file, line, key, and the nearest valid key.

mod error;
mod experiment;
mod options;
mod suggest;
mod target;
mod units;
mod vm;

pub use error::{ConfigError, Source};
pub use experiment::{BUILTIN, Experiment, Overrides};
pub use target::Target;
pub(crate) use target::variant;
pub use units::{Size, Time};
pub use vm::{Kind, Vm, VmOptions, split_module};

use std::path::Path;

/// Reads the text of a configuration file.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        path: path.to_owned(),
        line: None,
        message: format!("cannot be read: {error}"),
    })
}
