//! The sites of an audit: a bar for each kind, and beside it what each strategy does there.

use super::frame::{self, MARGIN};
use super::scene::{Rect, Scene, Type};
use super::style::{self, Hatch, Ink};
use super::{font, format, render};
use crate::audit::{Audit, Class, Kind};
use anyhow::Context;
use std::path::Path;
use strategy::StrategyId;

const WIDTH: f64 = 1180.0;
const LABELS: f64 = 122.0;
const BARS: f64 = 270.0;
const NUMBERS: f64 = 50.0;
const ROW: f64 = 19.0;
/// A bar of one site among thousands is still to be seen.
const THINNEST: f64 = 1.5;
/// How wide the columns of the strategies are, in their order.
const COLUMNS: [f64; StrategyId::ALL.len()] = [84.0, 160.0, 170.0, 100.0, 188.0];

/// The picture of an audit of the image `name`.
#[must_use]
pub fn scene(audit: &Audit, name: &str) -> Scene {
    let shown = font::elide(name, 15.0, WIDTH / 2.0);
    let title = format!("Privileged and sensitive instructions in {shown}");
    let subtitle = "Bars: how often each kind stands in the code, coloured by what it does when the \
        guest's kernel runs in ring 3. Beside them: what each strategy does there; numbers where \
        sites differ.";
    let (mut scene, top) = frame::begin(WIDTH, &title, subtitle);
    let entries = Class::ALL.map(|class| {
        format!("{}: {}", class.meaning(), format::count(audit.count_class(class) as f64))
    });
    let mut y = frame::legend(&mut scene, top, &entries, |scene, index, (x, y)| {
        let rect = Rect { x: x - 9.0, y: y - 6.5, width: 18.0, height: 13.0 };
        fill(scene, rect, Class::ALL[index]);
    });
    y = draw_head(&mut scene, y + 4.0);
    let kinds = audit.kinds();
    let most = kinds.iter().map(|&(_, count)| count).max().unwrap_or(1);
    for (index, &(kind, count)) in kinds.iter().enumerate() {
        frame::band(&mut scene, index, (MARGIN, WIDTH - MARGIN), y + ROW / 2.0, ROW);
        draw_row(&mut scene, audit, (kind, count), most, y + ROW / 2.0);
        y += ROW;
    }
    frame::end_with(scene, &caption(audit, name), y)
}

/// Draws the picture into `path`: a PNG if its name ends so, or else an SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn save_audit(audit: &Audit, name: &str, path: &Path) -> anyhow::Result<()> {
    render::save(&scene(audit, name), path)
        .with_context(|| format!("{}: cannot be written", path.display()))
}

fn caption(audit: &Audit, name: &str) -> String {
    let coverage = &audit.coverage;
    let part = |bytes: u64| format::percent(bytes as f64 / coverage.executable.max(1) as f64);
    format!(
        "{name}: {}; {} of {} executable bytes decoded, {} undecodable. A count of code as it lies \
         in the image, not of executions. hardware-assist: VT-x as KVM sets it up.",
        audit.program.format,
        part(coverage.decoded),
        coverage.executable,
        part(coverage.undecodable),
    )
}

/// Classes differ by hatching as well as by colour.
fn fill(scene: &mut Scene, rect: Rect, class: Class) {
    let (ink, hatch) = match class {
        Class::Silent => (Ink::VERMILION, Hatch::None),
        Class::Operands => (Ink::YELLOW, Hatch::Rising),
        Class::Traps => (Ink::SKY, Hatch::Falling),
    };
    style::area(scene, rect, ink, hatch);
}

fn draw_head(scene: &mut Scene, top: f64) -> f64 {
    let y = top + 10.0;
    let face = Type::new(9.5).ink(Ink::QUIET);
    scene.text((MARGIN + LABELS, y), "sites", face);
    for (id, x) in StrategyId::ALL.iter().zip(columns()) {
        scene.text((x, y), id.name(), face);
    }
    top + 20.0
}

/// Where the columns of the strategies begin.
fn columns() -> impl Iterator<Item = f64> {
    let first = MARGIN + LABELS + BARS + NUMBERS;
    COLUMNS.iter().scan(first, |x, width| {
        let left = *x;
        *x += width;
        Some(left)
    })
}

fn draw_row(scene: &mut Scene, audit: &Audit, (kind, count): (Kind, usize), most: usize, y: f64) {
    scene.text((MARGIN + LABELS - 8.0, y), kind.name(), Type::new(10.0).end());
    let width = (BARS * count as f64 / most as f64).max(THINNEST);
    let left = MARGIN + LABELS;
    fill(scene, Rect { x: left, y: y - 6.0, width, height: 12.0 }, kind.class());
    scene.text((left + width + 5.0, y), &count.to_string(), Type::new(9.5));
    for ((fate, x), width) in audit.fates(kind).iter().zip(columns()).zip(COLUMNS) {
        let fate = font::elide(fate, 9.5, width - 8.0);
        scene.text((x, y), &fate, Type::new(9.5));
    }
}
