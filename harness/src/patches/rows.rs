//! Each site in words: the rows of the list and of the CSV file.

use super::Found;
use crate::audit;
use anyhow::Context;
use code_patching::{Became, Mode, Need, Site};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter};
use serde::Serialize;
use std::path::Path;

/// One site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// The mode of the run that it was found in; empty where nothing ran.
    pub mode: &'static str,
    /// The linear address, in hexadecimal.
    pub address: String,
    /// The guest's bytes, in hexadecimal.
    pub bytes: String,
    /// The instruction.
    pub instruction: String,
    /// Its kind.
    pub kind: &'static str,
    /// Who can do its work.
    pub need: &'static str,
    /// What it became: `stub`, `trap byte` or `left`.
    pub became: &'static str,
    /// What the stub does for it.
    pub way: &'static str,
    /// Where the jump to the stub is, in hexadecimal.
    pub jump: String,
    /// Bytes that the jump stands for.
    pub covers: Option<u8>,
    /// Other instructions that moved into the stub.
    pub moved: Option<u8>,
    /// Bytes of padding among those.
    pub padding: Option<u8>,
    /// Bytes of the stub.
    pub stub_bytes: Option<u32>,
    /// Why there is no jump.
    pub reason: &'static str,
    /// How often it ran, as far as that is known.
    pub runs: u64,
    /// How often in its stub, where that was counted.
    pub in_stub: Option<u64>,
    /// How often by a crossing.
    pub crossings: u64,
    /// How often by a trap.
    pub traps: u64,
}

/// All sites, by mode and address.
pub fn rows(found: &Found) -> impl Iterator<Item = Row> {
    found.sites().map(|(mode, site)| row(mode, site))
}

/// One site in words.
pub(super) fn row(mode: Option<Mode>, site: &Site) -> Row {
    let (became, jump, reason) = match site.became {
        Became::Stub(jump) => ("stub", Some(jump), ""),
        Became::TrapByte(obstacle) => ("trap byte", None, obstacle.in_words()),
        Became::Left => ("left", None, ""),
    };
    let mut words = String::new();
    NasmFormatter::new().format(&instruction(site), &mut words);
    Row {
        mode: mode.map_or("", Mode::name),
        address: format!("{:08x}", site.address),
        bytes: site.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        instruction: words,
        kind: kind(site),
        need: site.need.name(),
        became,
        way: jump.map_or("", |jump| jump.way.name()),
        jump: jump.map_or(String::new(), |jump| format!("{:08x}", jump.address)),
        covers: jump.map(|jump| jump.covers),
        moved: jump.map(|jump| jump.moved),
        padding: jump.map(|jump| jump.padding),
        stub_bytes: jump.map(|jump| jump.stub_bytes),
        reason,
        runs: site.runs.total(),
        in_stub: site.runs.in_stub,
        crossings: site.runs.crossings,
        traps: site.runs.traps,
    }
}

/// The kind of instructions that raise #UD on purpose.
pub(crate) const UNDEFINED: &str = "UD";
/// The kind of what the guest's CPU does not have, or has as something else: TZCNT, for one, is BSF.
pub(crate) const BEYOND: &str = "beyond IA-32";

/// The kind of a site, as `ringside audit` names kinds; what it does not count has three more.
#[must_use]
pub fn kind(site: &Site) -> &'static str {
    let instruction = instruction(site);
    match audit::classify(&instruction) {
        Some(kind) => kind.name(),
        None if site.need == Need::TwoPages => "in two pages",
        None if matches!(instruction.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2) => {
            UNDEFINED
        }
        None => BEYOND,
    }
}

fn instruction(site: &Site) -> Instruction {
    let bits = if site.is_32bit { 32 } else { 16 };
    Decoder::with_ip(bits, &site.bytes, site.address.into(), DecoderOptions::NONE).decode()
}

/// Writes all sites to a CSV file.
pub(super) fn write(found: &Found, path: &Path) -> anyhow::Result<()> {
    let context = || format!("{}: cannot be written", path.display());
    let mut writer = csv::Writer::from_path(path).with_context(context)?;
    for row in rows(found) {
        writer.serialize(row).with_context(context)?;
    }
    writer.flush().with_context(context)
}
