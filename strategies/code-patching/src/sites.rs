//! What has been patched, for those who want to look.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Stubs that were made.
    pub stubs: u64,
    /// Sites for which there was no room.
    pub without_room: u64,
}

/// A site: an instruction that cannot run as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Site {
    /// Its linear address.
    pub address: u32,
    /// The guest's bytes there.
    pub bytes: Vec<u8>,
    /// Whether it is 32-bit code.
    pub is_32bit: bool,
    /// What has to be done about it.
    pub need: Need,
    /// What it became.
    pub became: Became,
    /// How often it ran.
    pub runs: Runs,
}

/// What has to be done about an instruction before it may run in ring 3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// A stub can do its work on the virtual CPU.
    Stub,
    /// The monitor has to do it.
    Monitor,
    /// It raises #UD, or overlaps with another instruction: a byte that traps is enough.
    Trap,
    /// It is ordinary, but lies in two pages, and only one of them is in the executable copy.
    TwoPages,
}

impl Need {
    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Need::Stub => "virtual CPU",
            Need::Monitor => "monitor",
            Need::Trap => "trap",
            Need::TwoPages => "two pages",
        }
    }
}

/// What a site became.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Became {
    /// Part of a stub, to which a jump leads.
    Stub(Jump),
    /// One byte that traps.
    TrapByte(Obstacle),
    /// It stays as it is: it has not trapped often enough yet.
    Left,
}

/// A jump to a stub, and what it took the place of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Jump {
    /// The linear address of the jump.
    pub address: u32,
    /// Bytes of the guest's code that it stands for, padding included.
    pub covers: u8,
    /// Other instructions that moved into the stub as well.
    pub moved: u8,
    /// Bytes of padding among those that it stands for.
    pub padding: u8,
    /// Bytes of the stub.
    pub stub_bytes: u32,
    /// What the stub does for this site.
    pub way: Way,
}

/// What a stub does for a site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The work, on the virtual CPU.
    Virtual,
    /// It leaves for the monitor, without a signal.
    Crossing,
    /// It has the instruction as it is.
    Copy,
}

impl Way {
    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Way::Virtual => "virtual",
            Way::Crossing => "crossing",
            Way::Copy => "copy",
        }
    }
}

/// Why a site has no jump to a stub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// None is wanted: it raises #UD, or overlaps with another instruction.
    NotWanted,
    /// Its segments are not flat, or it is 16-bit code.
    Segments,
    /// A neighbour that would have to move is branched to.
    Target,
    /// A neighbour cannot be encoded elsewhere (LOOP, JECXZ, a 16-bit branch), or there are too many.
    Immovable,
    /// Control does not go on to five bytes, and behind it is no padding.
    End,
    /// The jump would reach into the page behind.
    Page,
    /// What is behind is not known to be code.
    Unknown,
    /// The guest uses all addresses at which the stub could lie.
    Addresses,
}

impl Obstacle {
    /// In words, for tables and CSV files.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Obstacle::NotWanted => "none is wanted",
            Obstacle::Segments => "segments are not flat or 16-bit",
            Obstacle::Target => "a neighbour is branched to",
            Obstacle::Immovable => "a neighbour cannot move",
            Obstacle::End => "control ends before five bytes",
            Obstacle::Page => "the page ends before five bytes",
            Obstacle::Unknown => "what is behind is not known to be code",
            Obstacle::Addresses => "no address is free for a stub",
        }
    }
}

/// How often a site ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Runs {
    /// In its stub, without leaving it or before leaving it; unknown where that is not counted.
    pub in_stub: Option<u64>,
    /// By a crossing.
    pub crossings: u64,
    /// By a trap.
    pub traps: u64,
}

impl Runs {
    /// All of them, as far as they are known. A stub that counts does so before it crosses.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.in_stub.unwrap_or(0).max(self.crossings) + self.traps
    }
}

/// What the monitor had counted at a moment of the guest's run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Moment {
    /// Since the guest began to run.
    pub at: Duration,
    /// Instructions that trapped; page faults and interrupts are none.
    pub traps: u64,
    /// Crossings from stubs.
    pub crossings: u64,
    /// Stubs that were made.
    pub patches: u64,
    /// Sites that were found.
    pub sites: u64,
}
