//! `report.html`: everything about a run on one page.
//!
//! One file without scripts and without references to anything outside it, made from the run's files
//! only. Its plots are those of [`crate::plot`], inlined. What is said in numbers here is computed in
//! [`crate::stats`].

mod html;
mod noise;
mod outcomes;
mod overview;
mod stated;
mod tables;

use crate::plot;
use crate::records::{EXPERIMENT, REPORT, Run};
use crate::stats::Comparison;
use anyhow::Context;
use html::{escape, section};
use std::path::{Path, PathBuf};

const STYLE: &str = include_str!("style.css");

/// Writes the report of the run in `dir`, and says where it is.
///
/// # Errors
/// When the run cannot be read or has no samples, or the file cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<PathBuf> {
    let run = Run::load(dir)?;
    // An older run, or one put together by hand, may lack it; the report then does without.
    let experiment = std::fs::read_to_string(dir.join(EXPERIMENT)).unwrap_or_default();
    let path = dir.join(REPORT);
    std::fs::write(&path, page(&run, &experiment)).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn page(run: &Run, experiment: &str) -> String {
    let comparison = Comparison::new(run);
    let comparison = comparison.as_ref();
    let sections = [
        overview::section(run, comparison),
        figures(run, comparison),
        tables::section(run, comparison),
        outcomes::failures(run),
        outcomes::probes(run),
        stated::section(run),
        outcomes::exits(run),
        noise::section(run),
        overview::method(run, comparison),
        overview::reproduction(run, experiment),
    ];
    let date = escape(&run.host.date);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Ringside · {date}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>Ringside</h1><p class=\"lead\">One IA-32 guest under different ways of \
         virtualizing its CPU: what each costs, and where each breaks.</p>\
         <p class=\"host\">{}</p>{}</header>\n<main>\n{}</main>\n</body>\n</html>\n",
        escape(&run.host.caption()),
        contents(),
        sections.concat(),
    )
}

fn contents() -> String {
    let links = [
        ("overview", "Overview"),
        ("figures", "Figures"),
        ("times", "Times"),
        ("failures", "Outcomes"),
        ("probes", "Probes"),
        ("stated", "Expectations"),
        ("exits", "Exits"),
        ("noise", "Noise"),
        ("method", "Method"),
        ("reproduction", "Reproduction"),
    ];
    let link = |(id, name): &(&str, &str)| format!("<a href=\"#{id}\">{name}</a>");
    format!("<nav>{}</nav>", links.iter().map(link).collect::<Vec<_>>().join(" "))
}

fn figures(run: &Run, comparison: Option<&Comparison>) -> String {
    let figure = |plot: plot::Plot| {
        // The title and the explanation stand in the picture.
        format!("<figure id=\"figure-{}\">{}</figure>\n", plot.name, plot.inline_svg())
    };
    let figures: String = plot::plots(run, comparison).into_iter().map(figure).collect();
    section("figures", "Figures", &figures)
}
