//! What a user can choose about binary translation.

use serde::{Deserialize, Serialize};

/// How the guest's ring 3 is run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// As its kernel is.
    #[default]
    Translated,
    /// Natively, as VMware ran it (US patent 6,397,242). What reads the host's tables, selectors, flags
    /// or time stamps there goes wrong.
    Direct,
}

impl User {
    /// All of them.
    pub const ALL: [User; 2] = [User::Translated, User::Direct];

    /// The name in TOML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            User::Translated => "translated",
            User::Direct => "direct",
        }
    }
}

/// How code is translated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// How the guest's ring 3 is run.
    pub user: User,
}
