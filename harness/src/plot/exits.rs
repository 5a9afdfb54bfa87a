//! Exits by kind: for each workload and strategy a bar of shares, and how many there are.

use super::frame::{self, MARGIN};
use super::scene::{Rect, Scene, Type};
use super::style::{self, Hatch, Ink};
use super::{Plot, font, format};
use crate::records::{ExitRow, Run};

const WIDTH: f64 = 1100.0;
const LABELS: f64 = 175.0;
const NUMBERS: f64 = 52.0;
const ROW: f64 = 17.0;
const HEADING: f64 = 26.0;

pub(super) fn plot(run: &Run) -> Option<Plot> {
    let has_exits =
        |name: &&str| run.exits.iter().any(|row| row.strategy == *name && row.count > 0);
    let strategies: Vec<&str> = run.strategies().into_iter().filter(has_exits).collect();
    if strategies.is_empty() {
        return None;
    }
    let title = "Exits by kind".to_owned();
    let explanation = "Bars: the share of each kind among the exits of the measured part; the \
        numbers in them are those of the legend. Beside them: all exits in one iteration.";
    let (mut scene, top) = frame::begin(WIDTH, &title, explanation);
    let kinds = kinds(run);
    let entries: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut y = frame::legend(&mut scene, top, &entries, |scene, index, (x, y)| {
        let rect = Rect { x: x - 9.0, y: y - 6.5, width: 18.0, height: 13.0 };
        draw_share(scene, rect, kinds[index]);
    });
    let panels = panels(&strategies);
    y = draw_heads(&mut scene, run, &panels, y + 4.0);
    for (group, workloads) in run.groups() {
        let present = |name: &&str| run.exits.iter().any(|row| row.workload == *name);
        let workloads: Vec<&str> = workloads.into_iter().filter(present).collect();
        if workloads.is_empty() {
            continue;
        }
        scene.text((MARGIN, y + HEADING / 2.0 + 2.0), group, Type::new(11.5).bold());
        y += HEADING;
        for (index, workload) in workloads.iter().enumerate() {
            frame::band(&mut scene, index, (MARGIN, WIDTH - MARGIN), y + ROW / 2.0, ROW);
            draw_row(&mut scene, run, &panels, workload, y + ROW / 2.0);
            y += ROW;
        }
    }
    let scene = frame::end(scene, run, y);
    Some(Plot { name: "exits", title, explanation, scene })
}

/// A strategy and the horizontal extent of its bars.
struct Panel<'a> {
    strategy: &'a str,
    left: f64,
    width: f64,
}

fn panels<'a>(strategies: &[&'a str]) -> Vec<Panel<'a>> {
    let step = (WIDTH - 2.0 * MARGIN - LABELS) / strategies.len() as f64;
    let panel = |(index, &strategy): (usize, &&'a str)| Panel {
        strategy,
        left: MARGIN + LABELS + step * index as f64,
        width: step - NUMBERS - 10.0,
    };
    strategies.iter().enumerate().map(panel).collect()
}

/// The kinds that happened, in the order of the list.
fn kinds(run: &Run) -> Vec<&str> {
    let happened = run.exits.iter().filter(|row| row.count > 0);
    let mut kinds: Vec<&str> = happened.map(|row| row.kind.as_str()).collect();
    kinds.sort_by_key(|kind| (style::kind_look(kind).0, *kind));
    kinds.dedup();
    kinds
}

fn draw_heads(scene: &mut Scene, run: &Run, panels: &[Panel<'_>], top: f64) -> f64 {
    for panel in panels {
        let lines = frame::label_lines(run, panel.strategy, panel.width + NUMBERS);
        scene.lines((panel.left, top + 18.0), &lines, Type::new(10.5));
        let right = panel.left + panel.width + 6.0;
        scene.text((right, top + 42.0), "per iter.", Type::new(9.0).ink(Ink::QUIET));
        for (part, label) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
            let at = (panel.left + panel.width * part, top + 42.0);
            let face = Type::new(9.0).ink(Ink::QUIET);
            match label {
                "0" => scene.text(at, label, face),
                "50 %" if panel.width > 110.0 => scene.text(at, label, face.middle()),
                "100 %" => scene.text(at, label, face.end()),
                _ => {}
            }
        }
    }
    top + 48.0
}

fn draw_row(scene: &mut Scene, run: &Run, panels: &[Panel<'_>], workload: &str, y: f64) {
    let label = font::elide(workload, 10.0, LABELS - 12.0);
    scene.text((MARGIN + LABELS - 10.0, y), &label, Type::new(10.0).end());
    for panel in panels {
        let is_here = |row: &&ExitRow| row.strategy == panel.strategy && row.workload == workload;
        let mut rows: Vec<&ExitRow> = run.exits.iter().filter(is_here).collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by_key(|row| style::kind_look(&row.kind).0);
        let total: f64 = rows.iter().map(|row| row.count as f64).sum();
        let mut x = panel.left;
        for row in rows.iter().filter(|row| row.count > 0) {
            let width = panel.width * row.count as f64 / total;
            draw_share(scene, Rect { x, y: y - 6.0, width, height: 12.0 }, &row.kind);
            x += width;
        }
        let sum: f64 = rows.iter().map(|row| row.per_iteration).sum();
        let at = (panel.left + panel.width + 6.0, y);
        scene.text(at, &format::count(sum), Type::new(9.5));
    }
}

fn draw_share(scene: &mut Scene, rect: Rect, kind: &str) {
    let (number, ink, hatch) = style::kind_look(kind);
    style::area(scene, rect, ink, hatch);
    let number = number.to_string();
    let room = font::width(&number, 8.5, true) + 3.0;
    if rect.width < room + 1.0 {
        return;
    }
    let at = (rect.x + rect.width / 2.0, rect.y + rect.height / 2.0);
    if hatch != Hatch::None {
        let plate =
            Rect { x: at.0 - room / 2.0, y: rect.y + 1.0, width: room, height: rect.height - 2.0 };
        scene.rect(plate, ink);
    }
    scene.text(at, &number, Type::new(8.5).bold().middle().ink(ink.contrast()));
}
