//! The heat map: strategies × sensitive instructions, and what each probe saw.

use super::frame::{self, MARGIN};
use super::scene::{Rect, Scene, Type};
use super::style::Ink;
use super::{Plot, font};
use crate::records::{ProbeOutcome, Run};

const LABELS: f64 = 185.0;
const COUNTS: f64 = 60.0;
const CELL: f64 = 15.0;
const GAP: f64 = 4.0;
const ROW: f64 = 30.0;

/// The probes of one workload.
struct Column<'a> {
    workload: &'a str,
    probes: Vec<&'a str>,
}

pub(super) fn plot(run: &Run) -> Option<Plot> {
    let columns = columns(run);
    if columns.is_empty() {
        return None;
    }
    let title = "What the guest sees of sensitive instructions".to_owned();
    let explanation = "Each cell is one probe: the guest executes the instruction and compares what \
        it sees with what the architecture says. A blank cell was not run.";
    let cells: f64 = columns.iter().map(|c| c.probes.len() as f64 * CELL + GAP).sum();
    let width = (2.0 * MARGIN + LABELS + cells + COUNTS).max(640.0);
    let (mut scene, top) = frame::begin(width, &title, explanation);
    let entries = ProbeOutcome::ALL.map(|outcome| outcome.name().to_owned());
    let mut y = frame::legend(&mut scene, top, &entries, |scene, index, (x, y)| {
        let rect = Rect { x: x - CELL / 2.0, y: y - CELL / 2.0, width: CELL, height: CELL };
        draw_cell(scene, rect, ProbeOutcome::ALL[index]);
    });
    y = draw_header(&mut scene, &columns, y);
    let counts = MARGIN + LABELS + cells + 8.0;
    scene.text((counts, y - 8.0), "right", Type::new(9.5).ink(Ink::QUIET));
    for strategy in run.strategies() {
        if run.probes.iter().any(|row| row.strategy == strategy) {
            draw_row(&mut scene, run, strategy, &columns, y + ROW / 2.0);
            y += ROW;
        }
    }
    let scene = frame::end(scene, run, y);
    Some(Plot { name: "sensitive", title, explanation, scene })
}

/// Workloads in the order of their group, probes in the order in which they were written.
fn columns(run: &Run) -> Vec<Column<'_>> {
    let listed = run.host.groups.iter().flat_map(|group| &group.workloads).map(String::as_str);
    let probed = run.probes.iter().map(|row| row.workload.as_str());
    let mut columns: Vec<Column<'_>> = Vec::new();
    for workload in listed.chain(probed) {
        if columns.iter().any(|column| column.workload == workload) {
            continue;
        }
        let mut probes: Vec<&str> = Vec::new();
        for row in run.probes.iter().filter(|row| row.workload == workload) {
            if !probes.contains(&row.probe.as_str()) {
                probes.push(&row.probe);
            }
        }
        if !probes.is_empty() {
            columns.push(Column { workload, probes });
        }
    }
    columns
}

fn draw_header(scene: &mut Scene, columns: &[Column<'_>], top: f64) -> f64 {
    let labels: Vec<Vec<String>> = columns.iter().map(labels).collect();
    let longest = labels.iter().flatten().map(|l| font::width(l, 10.0, false)).fold(0.0, f64::max);
    let bottom = top + longest + 8.0;
    let mut x = MARGIN + LABELS;
    for label in labels {
        for text in &label {
            scene.text((x + CELL / 2.0, bottom - 5.0), text, Type::new(10.0).upward());
            x += CELL;
        }
        x += GAP;
    }
    bottom
}

fn labels(column: &Column<'_>) -> Vec<String> {
    let label = |probe: &&str| match column.probes.len() {
        1 => column.workload.to_owned(),
        _ => format!("{} {probe}", column.workload),
    };
    column.probes.iter().map(label).map(|text| font::elide(&text, 10.0, 150.0)).collect()
}

fn draw_row(scene: &mut Scene, run: &Run, strategy: &str, columns: &[Column<'_>], y: f64) {
    let label = frame::label_lines(run, strategy, LABELS - 10.0);
    scene.lines((MARGIN + LABELS - 8.0, y), &label, Type::new(10.5).end());
    let mut x = MARGIN + LABELS;
    let (mut right, mut all) = (0, 0);
    for column in columns {
        for probe in &column.probes {
            let rect = Rect { x: x + 0.5, y: y - 12.0, width: CELL - 1.0, height: 24.0 };
            match outcome(run, strategy, column.workload, probe) {
                Some(outcome) => {
                    draw_cell(scene, rect, outcome);
                    all += 1;
                    right += u32::from(outcome == ProbeOutcome::Right);
                }
                None => scene.outline(rect, 0.6, Ink::GRID),
            }
            x += CELL;
        }
        x += GAP;
    }
    scene.text((x + 8.0, y), &format!("{right} of {all}"), Type::new(10.0));
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

/// A cell: lightness falls and the sign changes from right to wrong, so that colour is not needed.
fn draw_cell(scene: &mut Scene, rect: Rect, outcome: ProbeOutcome) {
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
            let tick = vec![(x - 3.4, y + 0.2), (x - 1.0, y + 2.8), (x + 3.6, y - 3.2)];
            scene.path(tick, 1.5, Ink::BLUE);
        }
        ProbeOutcome::Wrong => {
            for rise in [-3.2, 3.2] {
                scene.line((x - 3.2, y - rise), (x + 3.2, y + rise), 2.0, Ink::PAPER);
            }
        }
        ProbeOutcome::Trapped => {
            let triangle = [(0.0, -4.2), (4.4, 3.4), (-4.4, 3.4)].map(|(dx, dy)| (x + dx, y + dy));
            scene.polygon(triangle.to_vec(), Ink::BLACK);
        }
        ProbeOutcome::Unsupported => scene.line((x - 3.4, y), (x + 3.4, y), 1.6, Ink::QUIET),
    }
}
