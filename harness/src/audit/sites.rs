//! Each site in words: the rows of the list and of the CSV file.

use super::decode::{Site, instruction};
use super::image::Program;
use super::{Audit, Patched};
use anyhow::Context;
use iced_x86::{Formatter, GasFormatter};
use serde::Serialize;
use std::path::Path;

/// One site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SiteRow {
    /// The linear address, in hexadecimal.
    pub address: String,
    /// The symbol before it; without one, the section.
    pub symbol: String,
    /// How far behind it, in hexadecimal.
    pub offset: String,
    /// The instruction's bytes, in hexadecimal.
    pub bytes: String,
    /// The instruction, in AT&T syntax as kernels' sources have it.
    pub instruction: String,
    /// The kind.
    pub kind: &'static str,
    /// Its class.
    pub class: &'static str,
    /// What it does in ring 3.
    pub in_ring3: &'static str,
    /// Where Intel's manual describes it.
    pub manual: &'static str,
    /// What interpretation does.
    pub interpretation: &'static str,
    /// What trap-and-emulate makes of it.
    pub trap_and_emulate: &'static str,
    /// What code patching makes of it.
    pub code_patching: &'static str,
    /// What binary translation makes of it.
    pub binary_translation: &'static str,
    /// What VT-x does with it.
    pub hardware_assist: String,
}

/// All sites, by address.
pub fn rows(audit: &Audit) -> impl Iterator<Item = SiteRow> + '_ {
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_uppercase_hex(false);
    audit
        .sites
        .iter()
        .map(move |(site, patched)| row(&audit.program, &mut formatter, site, *patched))
}

fn row(program: &Program, formatter: &mut GasFormatter, site: &Site, patched: Patched) -> SiteRow {
    let piece = &program.pieces[site.piece];
    let address = piece.address.wrapping_add(site.offset as u32);
    let (symbol, start) = match program.symbols.at(address, piece.address) {
        Some(symbol) => (symbol.name.clone(), symbol.address),
        None => (piece.name.clone(), piece.address),
    };
    let bytes = &piece.bytes[site.offset..site.offset + site.length];
    let mut words = String::new();
    if let Some(found) = instruction(program, (site.piece, site.offset), usize::MAX, site.size) {
        formatter.format(&found, &mut words);
    }
    let kind = site.kind;
    SiteRow {
        address: format!("{address:08x}"),
        symbol,
        offset: format!("{:#x}", address - start),
        bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        instruction: words,
        kind: kind.name(),
        class: kind.class().name(),
        in_ring3: kind.in_ring3(),
        manual: kind.sdm(),
        interpretation: "executed",
        trap_and_emulate: site.outcome.name(),
        code_patching: patched.name(),
        binary_translation: kind.translation().name(),
        hardware_assist: kind.hardware().to_string(),
    }
}

/// Writes all sites to a CSV file.
pub(super) fn write(audit: &Audit, path: &Path) -> anyhow::Result<()> {
    let context = || format!("{}: cannot be written", path.display());
    let mut writer = csv::Writer::from_path(path).with_context(context)?;
    for row in rows(audit) {
        writer.serialize(row).with_context(context)?;
    }
    writer.flush().with_context(context)
}
