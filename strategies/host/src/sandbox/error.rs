//! What can keep a process out of the sandbox.

use std::io;

/// Why a process could not be confined. It must not run a guest then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused something.
    #[error("sandbox: {what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The filter could not be made, or the kernel does not take it.
    #[error("sandbox: seccomp: {0}")]
    Filter(#[from] seccompiler::Error),
    /// Landlock is there and failed all the same.
    #[error("sandbox: Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
}

impl Error {
    /// Turns the host's error into one that says what was attempted.
    pub(super) fn host<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Error {
        move |source| Error::Host { what, source: source.into() }
    }
}

impl From<seccompiler::BackendError> for Error {
    fn from(error: seccompiler::BackendError) -> Error {
        Error::Filter(error.into())
    }
}
