//! What a user can choose about code patching.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// When an instruction is patched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Before it is executed for the first time: no code runs that has not been examined.
    #[default]
    Prescan,
    /// When it has trapped often enough (US patent 7,210,144). What does not trap goes wrong.
    OnTrap,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 2] = [Mode::Prescan, Mode::OnTrap];

    /// The name in TOML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Prescan => "prescan",
            Mode::OnTrap => "on-trap",
        }
    }
}

/// How code is patched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// When.
    pub mode: Mode,
    /// In on-trap mode, the traps of an instruction before it is patched.
    pub threshold: NonZeroU64,
}

impl Options {
    /// The threshold when nothing is said: what a patch costs, in traps.
    ///
    /// Nobody knows how often an instruction will still trap. If it is patched when its traps have cost
    /// as much as the patch will, both together cost at most twice what would have been best in
    /// hindsight (the ski-rental bound; Karlin et al., "Competitive Snoopy Caching", 1988). A patch is
    /// the examination of what is reached from there, a stub, and the page hidden and shown again: with
    /// 1 to 100 patches a page, that took as long as 20 to 40 traps of CLI.
    pub const DEFAULT_THRESHOLD: NonZeroU64 = NonZeroU64::new(32).unwrap();
}

impl Default for Options {
    fn default() -> Options {
        Options { mode: Mode::default(), threshold: Options::DEFAULT_THRESHOLD }
    }
}
