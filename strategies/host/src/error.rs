//! What can fail when the host is asked for something.

use std::io;

/// A failure of the host, or a request that the CPU refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A facility that compatibility mode rests on is missing.
    #[error("this host cannot run 32-bit code natively: {0}")]
    Missing(&'static str),
    /// A host facility failed.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The calling thread is set up for compatibility mode already.
    #[error("compatibility mode is in use on this thread already")]
    Busy,
    /// No LDT entry is free.
    #[error("the host's local descriptor table is full")]
    LdtFull,
    /// The CPU refused a selector of the state that was to be entered.
    #[error("the CPU refused to enter compatibility mode: trap {trap}, error code {code:#x}")]
    EntryRefused {
        /// The exception's vector.
        trap: u8,
        /// Its error code: the offending selector.
        code: u32,
    },
}

impl Error {
    /// The last operating-system error, from `what`.
    pub(crate) fn last(what: &'static str) -> Error {
        Error::Host { what, source: io::Error::last_os_error() }
    }
}
