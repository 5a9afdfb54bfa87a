//! The time of an iteration of every workload under every strategy, and what gave no time.

use super::axis::LogAxis;
use super::frame::{self, MARGIN};
use super::scene::{Scene, Type};
use super::style::{self, Ink};
use super::{Plot, font, format};
use crate::records::{Outcome, Run};

const WIDTH: f64 = 1000.0;
const LABELS: f64 = 185.0;
const COLUMN: f64 = 17.0;
const ROW: f64 = 17.0;
const HEADING: f64 = 28.0;

pub(super) fn plot(run: &Run) -> Option<Plot> {
    let strategies = run.strategies();
    let title = "Time of one iteration".to_owned();
    let explanation = "Medians with 95 % confidence intervals (with fewer than six samples, their \
        range); most are narrower than the markers. To the right, what gave no time: W wrong \
        result, C crashed, U unsupported, T timeout, · not run.";
    let (mut scene, top) = frame::begin(WIDTH, &title, explanation);
    let y = frame::strategy_legend(&mut scene, top, run, &strategies) + 6.0;
    let right = WIDTH - MARGIN - COLUMN * strategies.len() as f64 - 16.0;
    let bounds = run.summary.iter().flat_map(|row| [row.low, row.high]).flatten();
    let axis = LogAxis::fitting(bounds, MARGIN + LABELS, right);
    let groups = run.groups();
    let height: f64 = groups.iter().map(|(_, w)| HEADING + w.len() as f64 * ROW).sum();
    let columns: Vec<(&str, f64)> = strategies
        .iter()
        .enumerate()
        .map(|(index, &name)| (name, right + 16.0 + COLUMN * (index as f64 + 0.5)))
        .collect();

    let mut y = y + 6.0;
    axis.labels(&mut scene, y, format::time_mark);
    for &(strategy, x) in &columns {
        style::point(&mut scene, (x, y), 4.0, frame::style_of(run, strategy));
    }
    y += 8.0;
    let (grid_top, grid_bottom) = (y, y + height);
    for (group, workloads) in groups {
        scene.line((MARGIN, y), (WIDTH - MARGIN, y), 0.8, Ink::RULE);
        scene.text((MARGIN, y + HEADING / 2.0 + 1.0), group, Type::new(11.5).bold());
        y += HEADING;
        for (index, _) in workloads.iter().enumerate() {
            let middle = y + ROW * (index as f64 + 0.5);
            frame::band(&mut scene, index, (MARGIN, WIDTH - MARGIN), middle, ROW);
        }
        for workload in workloads {
            draw_row(&mut scene, run, &axis, (&columns, workload), y + ROW / 2.0);
            y += ROW;
        }
    }
    let mut scene = with_grid_below(scene, &axis, grid_top, grid_bottom);
    axis.labels(&mut scene, y + 9.0, format::time_mark);
    let scene = frame::end(scene, run, y + 12.0);
    Some(Plot { name: "times", title, explanation, scene })
}

/// Puts the grid over the bands and below everything else.
fn with_grid_below(mut scene: Scene, axis: &LogAxis, top: f64, bottom: f64) -> Scene {
    let mut grid = Scene::new(scene.width, "");
    axis.grid(&mut grid, top, bottom);
    let is_band = |shape: &super::scene::Shape| {
        matches!(shape, super::scene::Shape::Polygon { ink: Ink::BAND, .. })
    };
    let (bands, rest): (Vec<_>, Vec<_>) = scene.shapes.into_iter().partition(is_band);
    scene.shapes = bands.into_iter().chain(grid.shapes).chain(rest).collect();
    scene
}

fn draw_row(
    scene: &mut Scene,
    run: &Run,
    axis: &LogAxis,
    (columns, workload): (&[(&str, f64)], &str),
    y: f64,
) {
    let label = font::elide(workload, 10.0, LABELS - 12.0);
    scene.text((MARGIN + LABELS - 10.0, y), &label, Type::new(10.0).end());
    for (index, &(strategy, x)) in columns.iter().enumerate() {
        let row = run.summary_of(strategy, workload);
        let look = frame::style_of(run, strategy);
        if let Some((row, ns)) = row.and_then(|row| Some((row, row.ns_per_iteration?))) {
            // A little apart, so that equal times do not hide each other.
            let y = y + (index as f64 - (columns.len() - 1) as f64 / 2.0) * 0.9;
            let ends = [row.low.unwrap_or(ns), row.high.unwrap_or(ns)].map(|ns| axis.x(ns));
            scene.line((ends[0], y), (ends[1], y), 1.2, look.ink);
            style::point(scene, (axis.x(ns), y), 3.6, look);
        }
        let (letter, face) = match row.map(|row| row.outcome) {
            Some(Outcome::Ok) => continue,
            Some(Outcome::Wrong) => ("W", Type::new(9.5).bold().ink(Ink::VERMILION)),
            Some(Outcome::Crashed) => ("C", Type::new(9.5).bold().ink(Ink::VERMILION)),
            Some(Outcome::Unsupported) => ("U", Type::new(9.5).ink(Ink::QUIET)),
            Some(Outcome::Timeout) => ("T", Type::new(9.5).bold().ink(Ink::BLUE)),
            None => ("·", Type::new(9.5).ink(Ink::QUIET)),
        };
        scene.text((x, y), letter, face.middle());
    }
}
