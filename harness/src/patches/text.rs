//! Sites on the terminal: the list, and totals by kind.

use super::rows::{Row, row};
use super::{Course, Found};
use crate::plot::format;
use code_patching::Site;
use std::collections::BTreeMap;
use std::fmt::Write;

/// All that is said about what was found.
pub(super) fn all(found: &Found, name: &str, most: usize) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match found {
        Found::Image { sites, is_swept } => {
            let _ = writeln!(text, "{name}: {}", how(*is_swept));
            write_image(&mut text, sites, most)
        }
        Found::Courses(courses) => {
            courses.iter().try_for_each(|course| write_course(&mut text, name, course, most))
        }
    };
    text
}

/// How an image was examined.
pub(crate) fn how(is_swept: bool) -> &'static str {
    match is_swept {
        true => "all of its executable bytes were examined; nothing ran",
        false => {
            "examined from its entry; nothing ran, and code reached only through pointers is missed"
        }
    }
}

fn write_image(text: &mut String, sites: &[Site], most: usize) -> std::fmt::Result {
    let rows: Vec<Row> = sites.iter().map(|site| row(None, site)).collect();
    write_rows(text, &rows, most, false)?;
    write_totals(text, &rows, false)
}

fn write_course(text: &mut String, name: &str, course: &Course, most: usize) -> std::fmt::Result {
    let mode = course.options.mode;
    let last = course.moments.last().copied().unwrap_or_default();
    let time = format::time(last.at.as_secs_f64() * 1e9);
    writeln!(text, "{name}, {}: ran for {time}{}", course.title(), course.end_in_words())?;
    writeln!(
        text,
        "{} traps, {} crossings, {} stubs made for {} sites",
        last.traps, last.crossings, last.patches, last.sites
    )?;
    let mut rows: Vec<Row> = course.sites.iter().map(|site| row(Some(mode), site)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.runs));
    write_rows(text, &rows, most, true)?;
    write_totals(text, &rows, true)?;
    writeln!(text)
}

/// A line for each of the first sites.
fn write_rows(text: &mut String, rows: &[Row], most: usize, ran: bool) -> std::fmt::Result {
    if rows.is_empty() {
        return writeln!(text, "\nNo site.");
    }
    let counts = if ran {
        format!("{:>12} {:>10} {:>10}  ", "runs", "crossings", "traps")
    } else {
        String::new()
    };
    writeln!(text, "\n{counts}{:<8}  {:<20}  {:<34}  became", "address", "bytes", "instruction")?;
    for row in rows.iter().take(most) {
        if ran {
            write!(text, "{:>12} {:>10} {:>10}  ", runs(row), row.crossings, row.traps)?;
        }
        let instruction = cut(&row.instruction, 34);
        writeln!(
            text,
            "{}  {:<20}  {instruction:<34}  {}",
            row.address,
            cut(&row.bytes, 20),
            fate(row)
        )?;
    }
    match rows.len().saturating_sub(most) {
        0 => Ok(()),
        rest => writeln!(text, "... and {rest} more (--most lists more, --csv all)"),
    }
}

/// How often it ran; at least, where its stub was not counted.
fn runs(row: &Row) -> String {
    let uncounted = row.way == "copy";
    if uncounted { "?".to_owned() } else { row.runs.to_string() }
}

fn cut(text: &str, length: usize) -> String {
    match text.chars().count() {
        count if count <= length => text.to_owned(),
        _ => text.chars().take(length - 1).chain(['…']).collect(),
    }
}

/// What became of a site, in words.
fn fate(row: &Row) -> String {
    let (Some(covers), Some(moved), Some(bytes)) = (row.covers, row.moved, row.stub_bytes) else {
        return match row.reason {
            "" => row.became.to_owned(),
            reason => format!("{}: {reason}", row.became),
        };
    };
    let neighbours = match moved {
        0 => String::new(),
        1 => ", 1 neighbour moved".to_owned(),
        more => format!(", {more} neighbours moved"),
    };
    let padding = match row.padding {
        Some(padding @ 1..) => format!(", {padding} of padding"),
        _ => String::new(),
    };
    let at = if row.jump == row.address { String::new() } else { format!(" at {}", row.jump) };
    format!("jump{at} for {covers} bytes{neighbours}{padding}; stub of {bytes}, {}", row.way)
}

/// What a kind's sites came to.
#[derive(Default)]
struct Total {
    sites: usize,
    ways: [usize; 5],
    runs: u64,
    crossings: u64,
    traps: u64,
}

/// What a site may have become, as totals and plots tell it.
pub(crate) const FATES: [&str; 5] = ["virtual", "crossing", "copy", "trap byte", "left"];

/// Which of [`FATES`] a site has.
pub(crate) fn fate_of(row: &Row) -> usize {
    let name = if row.way.is_empty() { row.became } else { row.way };
    FATES.iter().position(|&fate| fate == name).unwrap_or(FATES.len() - 1)
}

fn write_totals(text: &mut String, rows: &[Row], ran: bool) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        for kind in [row.kind, "all"] {
            let total = totals.entry(kind).or_default();
            total.sites += 1;
            total.ways[fate_of(row)] += 1;
            total.runs += row.runs;
            total.crossings += row.crossings;
            total.traps += row.traps;
        }
        if !row.reason.is_empty() {
            *reasons.entry(row.reason).or_default() += 1;
        }
    }
    let mut kinds: Vec<(&str, Total)> = totals.into_iter().collect();
    kinds.sort_by_key(|(name, total)| (*name == "all", std::cmp::Reverse(total.sites)));
    let head = FATES.map(|fate| format!("{fate:>10}")).concat();
    let counts = if ran {
        format!("{:>14}{:>12}{:>10}", "runs", "crossings", "traps")
    } else {
        String::new()
    };
    writeln!(text, "\n{:<18}{:>7}{head}{counts}", "kind", "sites")?;
    for (name, total) in kinds {
        let ways = total.ways.map(|count| format!("{count:>10}")).concat();
        write!(text, "{name:<18}{:>7}{ways}", total.sites)?;
        if ran {
            write!(text, "{:>14}{:>12}{:>10}", total.runs, total.crossings, total.traps)?;
        }
        writeln!(text)?;
    }
    if !reasons.is_empty() {
        writeln!(text, "\nno jump to a stub, for")?;
        for (reason, count) in reasons {
            writeln!(text, "{count:>7}  {reason}")?;
        }
    }
    Ok(())
}
