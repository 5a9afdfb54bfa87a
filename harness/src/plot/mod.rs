//! The pictures of a run, drawn from its files only.
//!
//! Each plot is a function from a [`Run`] to a [`Scene`], a list of shapes that knows no file format;
//! `render` turns scenes into SVG and PNG. So that one picture serves all readers, colours are
//! those of Okabe and Ito, and nothing is told by colour alone: strategies differ by marker, exit
//! kinds by hatching and number, probe outcomes by symbol and lightness.

mod audit;
mod axis;
mod exit_time;
mod exits;
mod font;
pub mod format;
mod frame;
mod patches;
mod render;
mod scene;
mod sensitive;
mod slowdown;
mod style;
mod times;

pub use audit::{save_audit, scene as audit_scene};
pub use patches::{save_patches, scene as patches_scene};
pub(crate) use render::escape;
pub use scene::{Scene, TextBox};

use crate::records::Run;
use crate::stats::Comparison;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The folder for plots within a run's folder.
pub const FOLDER: &str = "plots";

/// A plot of a run.
pub struct Plot {
    /// The name of its files, without the extension.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: String,
    /// How to read it.
    pub explanation: &'static str,
    /// The picture.
    pub scene: Scene,
}

impl Plot {
    /// The picture as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        render::svg(&self.scene)
    }

    /// The picture as an element for HTML, which knows SVG without its namespace.
    #[must_use]
    pub fn inline_svg(&self) -> String {
        self.svg().replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
    }
}

/// All plots that the run has data for, in the order in which a reader wants them.
#[must_use]
pub fn plots(run: &Run, comparison: Option<&Comparison>) -> Vec<Plot> {
    let all = [
        comparison.and_then(|comparison| slowdown::plot(run, comparison)),
        sensitive::plot(run),
        exits::plot(run),
        exit_time::plot(run),
        times::plot(run),
    ];
    all.into_iter().flatten().collect()
}

/// Draws all plots of the run in `dir` as SVG and PNG, and says which files it wrote.
///
/// # Errors
/// When the run cannot be read or has no samples, or a file cannot be written.
pub fn draw(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let run = Run::load(dir)?;
    let folder = dir.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for plot in plots(&run, Comparison::new(&run).as_ref()) {
        let svg = folder.join(plot.name).with_extension("svg");
        std::fs::write(&svg, plot.svg()).with_context(|| svg.display().to_string())?;
        let png = folder.join(plot.name).with_extension("png");
        render::png(&plot.scene, &png).with_context(|| png.display().to_string())?;
        files.extend([svg, png]);
    }
    Ok(files)
}
