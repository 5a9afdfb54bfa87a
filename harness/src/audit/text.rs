//! The audit on the terminal: a table of kinds, what goes wrong in words, and the list of sites.

use super::{Audit, Class, Method, Outcome, Patched, rows};
use crate::audit::image::CodeSize;
use std::fmt::Write as _;
use std::io::Write;
use strategy::StrategyId;

/// The column with numbers.
const SITES: usize = 2;

/// What was looked at, and the table.
pub(super) fn summary(audit: &Audit, name: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_summary(&mut text, audit, name);
    text
}

fn write_summary(text: &mut String, audit: &Audit, name: &str) -> std::fmt::Result {
    write_coverage(text, audit, name)?;
    if audit.sites.is_empty() {
        return writeln!(text, "\nNo privileged or sensitive instruction.");
    }
    write_table(text, audit)?;
    write_totals(text, audit)?;
    write_reasons(text, audit)
}

fn write_coverage(text: &mut String, audit: &Audit, name: &str) -> std::fmt::Result {
    let (program, coverage) = (&audit.program, &audit.coverage);
    let symbols = match program.symbols.len() {
        0 => "no symbols".to_owned(),
        1 => "1 symbol".to_owned(),
        count => format!("{count} symbols"),
    };
    writeln!(text, "{name}: {}, {symbols}", program.format)?;
    let how = match (audit.method, program.is_told_apart) {
        (Method::Sweep, true) => "linear sweep over the executable sections",
        (Method::Sweep, false) => {
            "linear sweep; nothing tells code from data, so some sites may be data"
        }
        (Method::Follow, _) => {
            "recursive traversal from the entry; code reached only through pointers is missed"
        }
    };
    writeln!(text, "{how}")?;
    let part = |bytes: u64| 100.0 * bytes as f64 / coverage.executable.max(1) as f64;
    write!(
        text,
        "{} executable bytes: {} decoded ({:.1} %) as {} instructions, {} undecodable ({:.2} %)",
        coverage.executable,
        coverage.decoded,
        part(coverage.decoded),
        coverage.instructions,
        coverage.undecodable,
        part(coverage.undecodable),
    )?;
    match coverage.skipped() {
        0 => writeln!(text),
        skipped if audit.method == Method::Sweep => {
            writeln!(text, ", {skipped} passed over as data")
        }
        skipped => writeln!(text, ", {skipped} not reached ({:.1} %)", part(skipped)),
    }?;
    if program.size == CodeSize::Bits16 {
        writeln!(
            text,
            "as 16-bit code; in real mode nothing is privileged, in virtual-8086 mode or \
                        16-bit protected mode it is"
        )?;
    }
    Ok(())
}

fn write_table(text: &mut String, audit: &Audit) -> std::fmt::Result {
    let mut head = vec!["kind".to_owned(), "class".to_owned(), "sites".to_owned()];
    head.extend(StrategyId::ALL.map(|id| id.name().to_owned()));
    let mut table = vec![head];
    for (kind, count) in audit.kinds() {
        let mut row =
            vec![kind.name().to_owned(), kind.class().name().to_owned(), count.to_string()];
        row.extend(audit.fates(kind));
        table.push(row);
    }
    writeln!(text)?;
    let columns = table[0].len();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &table {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match column {
                SITES => write!(line, "{cell:>width$}  ")?,
                _ => write!(line, "{cell:<width$}  ")?,
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_totals(text: &mut String, audit: &Audit) -> std::fmt::Result {
    let count = |patched| audit.sites.iter().filter(|(_, found)| *found == patched).count();
    let outcome = |outcome| audit.sites.iter().filter(|(site, _)| site.outcome == outcome).count();
    let classes = Class::ALL.map(|class| format!("{} {}", audit.count_class(class), class.name()));
    let outcomes = Outcome::ALL.map(|each| format!("{} {}", outcome(each), each.name()));
    let patches = Patched::ALL.map(|each| format!("{} {}", count(each), each.name()));
    let (room, crowded) = (count(Patched::Stub), count(Patched::Crowded));
    writeln!(text, "\n{} sites: {}", audit.sites.len(), classes.join(", "))?;
    writeln!(text, "trap-and-emulate: {}", outcomes.join(", "))?;
    writeln!(text, "code-patching: {}", patches.join(", "))?;
    writeln!(text, "room for a 5-byte jump: at {room} of {} sites that want one", room + crowded)
}

/// What happens at those that need not trap.
fn write_reasons(text: &mut String, audit: &Audit) -> std::fmt::Result {
    let mut kinds = audit.kinds();
    kinds.retain(|(kind, _)| kind.class() != Class::Traps);
    if kinds.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nin ring 3, without help")?;
    kinds
        .iter()
        .try_for_each(|(kind, _)| writeln!(text, "  {:<18}{}", kind.name(), kind.in_ring3()))
}

/// Writes one line for each site.
pub(super) fn list(audit: &Audit, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out)?;
    rows(audit).try_for_each(|row| {
        let place = format!("{}+{}", row.symbol, row.offset);
        let fates = format!("{}, {}", row.trap_and_emulate, row.code_patching);
        writeln!(
            out,
            "{}  {place:<40}  {:<22}  {:<34}  {:<17}  {fates}",
            row.address, row.bytes, row.instruction, row.kind
        )
    })
}
