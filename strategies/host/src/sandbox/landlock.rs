//! Landlock: no access to any file, TCP port or abstract socket, no signal to a process outside.
//!
//! The filter forbids the calls already. This holds should one of them slip through, and it is
//! checked at another place in the kernel. Best effort: what the kernel does not know is left out.

use super::Error;
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use std::fmt;

/// The newest interface that was tried with this.
const KNOWN: ABI = ABI::V7;

/// What the kernel made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Landlock {
    /// Everything is denied; the version of the kernel's interface.
    Full(i32),
    /// The kernel knows of files at least, but not of all that was asked for.
    Partial(i32),
    /// The kernel has none, or it is switched off.
    Missing,
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Landlock::Full(version) => write!(f, "Landlock (ABI {version})"),
            Landlock::Partial(version) => write!(f, "Landlock in part (ABI {version})"),
            Landlock::Missing => f.write_str("no Landlock in this kernel"),
        }
    }
}

/// Denies everything to the calling thread and those that it starts.
pub(super) fn restrict() -> Result<Landlock, Error> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .restrict_self()?;
    let version = super::facilities::landlock_version().unwrap_or(0);
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) | (_, LandlockStatus::NotEnabled) => Landlock::Missing,
        (RulesetStatus::PartiallyEnforced, _) => Landlock::Partial(version),
        (RulesetStatus::FullyEnforced, _) => Landlock::Full(version),
    })
}
