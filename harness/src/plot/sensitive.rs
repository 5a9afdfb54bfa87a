//! The heat map: sensitive instructions × strategies, and what each probe saw.

use super::frame::{self, MARGIN};
use super::scene::{Rect, Scene, Type};
use super::style::Ink;
use super::{Plot, font};
use crate::records::{ProbeOutcome, Run};

const LABELS: f64 = 110.0;
const CELL: f64 = 10.0;
const GAP: f64 = 16.0;
const ROW: f64 = 17.0;
const HEADER: f64 = 58.0;
/// The narrowest column: a strategy's label has to fit above it.
const NARROWEST: f64 = 130.0;

/// The probes of one workload, a row of the map.
struct Row<'a> {
    workload: &'a str,
    probes: Vec<&'a str>,
}

pub(super) fn plot(run: &Run) -> Option<Plot> {
    let rows = rows(run);
    let most = rows.iter().map(|row| row.probes.len()).max()?;
    let title = "What the guest sees of sensitive instructions".to_owned();
    let explanation = "Each mark is one probe: the guest executes the instruction, in ring 0 or \
        ring 3, and compares what it sees with what the architecture says. A blank was not run.";
    let strategies = run.strategies().into_iter();
    let probed = |strategy: &&str| run.probes.iter().any(|row| row.strategy == *strategy);
    let strategies: Vec<&str> = strategies.filter(probed).collect();
    let column = (most as f64 * CELL).max(NARROWEST);
    let columns = strategies.len() as f64 * (column + GAP);
    let width = (2.0 * MARGIN + LABELS + columns).max(640.0);
    let (mut scene, top) = frame::begin(width, &title, explanation);
    let entries = ProbeOutcome::ALL.map(|outcome| outcome.name().to_owned());
    let top = frame::legend(&mut scene, top, &entries, |scene, index, (x, y)| {
        draw_mark(scene, mark_at(x - CELL / 2.0, y), ProbeOutcome::ALL[index]);
    });
    let first = top + HEADER;
    draw_labels(&mut scene, &rows, first, width);
    for (number, strategy) in strategies.iter().enumerate() {
        let x = MARGIN + LABELS + number as f64 * (column + GAP);
        draw_column(&mut scene, run, strategy, &rows, (x, first), column);
    }
    let scene = frame::end(scene, run, first + rows.len() as f64 * ROW);
    Some(Plot { name: "sensitive", title, explanation, scene })
}

/// Workloads in the order of their group, probes in the order in which they were written.
fn rows(run: &Run) -> Vec<Row<'_>> {
    let listed = run.host.groups.iter().flat_map(|group| &group.workloads).map(String::as_str);
    let probed = run.probes.iter().map(|row| row.workload.as_str());
    let mut rows: Vec<Row<'_>> = Vec::new();
    for workload in listed.chain(probed) {
        if rows.iter().any(|row| row.workload == workload) {
            continue;
        }
        let mut probes: Vec<&str> = Vec::new();
        for row in run.probes.iter().filter(|row| row.workload == workload) {
            if !probes.contains(&row.probe.as_str()) {
                probes.push(&row.probe);
            }
        }
        if !probes.is_empty() {
            rows.push(Row { workload, probes });
        }
    }
    rows
}

/// The workloads' names, and a band behind every other row.
fn draw_labels(scene: &mut Scene, rows: &[Row<'_>], top: f64, width: f64) {
    for (number, row) in rows.iter().enumerate() {
        let y = top + number as f64 * ROW;
        if number % 2 == 0 {
            let band = Rect { x: MARGIN, y, width: width - 2.0 * MARGIN, height: ROW };
            scene.rect(band, Ink::GRID.tint(0.45));
        }
        let label = font::elide(row.workload, 10.5, LABELS - 14.0);
        scene.text((MARGIN + LABELS - 10.0, y + ROW / 2.0), &label, Type::new(10.5).end());
    }
}

fn draw_column(
    scene: &mut Scene,
    run: &Run,
    strategy: &str,
    rows: &[Row<'_>],
    (left, top): (f64, f64),
    width: f64,
) {
    let (mut right, mut all) = (0, 0);
    for (number, row) in rows.iter().enumerate() {
        let y = top + (number as f64 + 0.5) * ROW;
        for (place, probe) in row.probes.iter().enumerate() {
            let mark = mark_at(left + place as f64 * CELL, y);
            match outcome(run, strategy, row.workload, probe) {
                Some(outcome) => {
                    draw_mark(scene, mark, outcome);
                    all += 1;
                    right += u32::from(outcome == ProbeOutcome::Right);
                }
                None => scene.outline(mark, 0.6, Ink::GRID),
            }
        }
    }
    let label = frame::label_lines(run, strategy, width);
    scene.lines((left, top - 36.0), &label, Type::new(10.5).bold());
    let count = format!("{right} of {all} right");
    scene.text((left, top - 9.0), &count, Type::new(9.5).ink(Ink::QUIET));
}

/// The place of a mark whose left edge is at `x` and whose middle at `y`.
fn mark_at(x: f64, y: f64) -> Rect {
    Rect { x: x + 0.5, y: y - 7.0, width: CELL - 1.0, height: 14.0 }
}

fn outcome(run: &Run, strategy: &str, workload: &str, probe: &str) -> Option<ProbeOutcome> {
    let is_it = |row: &&crate::records::ProbeRow| {
        row.strategy == strategy && row.workload == workload && row.probe == probe
    };
    // Of repeated runs the worst counts.
    run.probes.iter().filter(is_it).map(|row| row.outcome).max_by_key(|&outcome| match outcome {
        ProbeOutcome::Right => 0,
        ProbeOutcome::Unsupported => 1,
        ProbeOutcome::Trapped => 2,
        ProbeOutcome::Wrong => 3,
    })
}

/// A mark: lightness falls and the sign changes from right to wrong, so that colour is not needed.
fn draw_mark(scene: &mut Scene, rect: Rect, outcome: ProbeOutcome) {
    let (x, y) = (rect.x + rect.width / 2.0, rect.y + rect.height / 2.0);
    let fill = match outcome {
        ProbeOutcome::Right => Ink::SKY.tint(0.35),
        ProbeOutcome::Wrong => Ink::VERMILION.tint(0.95),
        ProbeOutcome::Trapped => Ink::YELLOW.tint(0.9),
        ProbeOutcome::Unsupported => Ink(215, 215, 215),
    };
    scene.rect(rect, fill);
    match outcome {
        ProbeOutcome::Right => {
            let tick = vec![(x - 2.8, y + 0.2), (x - 0.9, y + 2.4), (x + 2.9, y - 2.6)];
            scene.path(tick, 1.2, Ink::BLUE);
        }
        ProbeOutcome::Wrong => {
            for rise in [-2.6, 2.6] {
                scene.line((x - 2.6, y - rise), (x + 2.6, y + rise), 1.6, Ink::PAPER);
            }
        }
        ProbeOutcome::Trapped => {
            let triangle = [(0.0, -3.4), (3.4, 2.8), (-3.4, 2.8)].map(|(dx, dy)| (x + dx, y + dy));
            scene.polygon(triangle.to_vec(), Ink::BLACK);
        }
        ProbeOutcome::Unsupported => scene.line((x - 2.8, y), (x + 2.8, y), 1.4, Ink::QUIET),
    }
}
