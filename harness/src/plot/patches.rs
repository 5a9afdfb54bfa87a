//! The sites of code patching: by kind and by what they became, and below that what was counted as the
//! guest warmed up.

use super::axis::LogAxis;
use super::frame::{self, MARGIN};
use super::scene::{Rect, Scene, Type};
use super::style::{self, Hatch, Ink, Look};
use super::{font, format, render};
use crate::patches::{BEYOND, Course, FATES, Found, Row, UNDEFINED, fate_of, how, rows};
use anyhow::Context;
use code_patching::{Mode, Moment};
use std::path::Path;

const WIDTH: f64 = 980.0;
const LABELS: f64 = 122.0;
const ROW: f64 = 19.0;
/// Beside the bars: sites and runs.
const NUMBERS: f64 = 92.0;
/// A bar of one site among thousands is still to be seen.
const THINNEST: f64 = 1.5;
/// A chart of counts over time: its height, and the room for its labels.
const CHART: f64 = 190.0;
const CHART_LABELS: f64 = 44.0;
const GAP: f64 = 22.0;

/// The sites of one run, or of an image.
struct Panel {
    head: String,
    rows: Vec<Row>,
    left: f64,
    width: f64,
    /// Whether anything ran.
    ran: bool,
}

/// The picture of what was found in `name`.
#[must_use]
pub fn scene(found: &Found, name: &str) -> Scene {
    let shown = font::elide(name, 15.0, WIDTH / 2.0);
    let title = format!("Code patching: the sites of {shown}");
    let subtitle = "Bars: instructions that cannot run as they are, by kind, and what each became. \
        virtual: a stub does its work on the virtual CPU; crossing: a stub leaves for the monitor; copy: \
        a stub has it as it is; trap byte: one byte that traps; left: it has not trapped often enough. Bars with a gap are cut.";
    let (mut scene, top) = frame::begin(WIDTH, &title, subtitle);
    let panels = panels(found);
    let all = || panels.iter().flat_map(|panel| &panel.rows);
    let entries = FATES.map(|fate| fate.to_owned());
    let mut y = frame::legend(&mut scene, top, &entries, |scene, index, (x, y)| {
        fill(scene, Rect { x: x - 9.0, y: y - 6.5, width: 18.0, height: 13.0 }, index);
    });
    y = draw_heads(&mut scene, &panels, y + 4.0);
    let kinds = kinds(all());
    let most = most(&panels, &kinds);
    for (index, kind) in kinds.iter().enumerate() {
        frame::band(&mut scene, index, (MARGIN, WIDTH - MARGIN), y + ROW / 2.0, ROW);
        let label = font::elide(kind, 10.0, LABELS - 12.0);
        scene.text((MARGIN + LABELS - 8.0, y + ROW / 2.0), &label, Type::new(10.0).end());
        for panel in &panels {
            draw_bar(&mut scene, panel, kind, most, y + ROW / 2.0);
        }
        y += ROW;
    }
    if let Found::Courses(courses) = found {
        y = draw_charts(&mut scene, courses, y + 18.0);
    }
    frame::end_with(scene, &caption(found, name), y)
}

/// Draws the picture into `path`: a PNG if its name ends so, or else an SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn save_patches(found: &Found, name: &str, path: &Path) -> anyhow::Result<()> {
    render::save(&scene(found, name), path)
        .with_context(|| format!("{}: cannot be written", path.display()))
}

fn caption(found: &Found, name: &str) -> String {
    match found {
        Found::Image { is_swept, .. } => format!("{name}: {}.", how(*is_swept)),
        Found::Courses(courses) => {
            let course = |course: &Course| {
                let last = course.moments.last().copied().unwrap_or_default();
                let time = format::time(last.at.as_secs_f64() * 1e9);
                format!("{}: ran for {time}{}", course.title(), course.end_in_words())
            };
            let courses = courses.iter().map(course).collect::<Vec<_>>().join("; ");
            format!("{name}. {courses}. Stubs counted their runs, which makes them slower.")
        }
    }
}

fn panels(found: &Found) -> Vec<Panel> {
    let all: Vec<Row> = rows(found).collect();
    let heads: Vec<(String, &str)> = match found {
        Found::Image { .. } => vec![(String::new(), "")],
        Found::Courses(courses) => {
            courses.iter().map(|course| (course.title(), course.options.mode.name())).collect()
        }
    };
    let width = (WIDTH - 2.0 * MARGIN - LABELS) / heads.len().max(1) as f64;
    let panel = |(index, (head, mode)): (usize, (String, &str))| Panel {
        ran: !mode.is_empty(),
        head,
        rows: all.iter().filter(|row| row.mode == mode).cloned().collect(),
        left: MARGIN + LABELS + width * index as f64,
        width: width - 14.0,
    };
    heads.into_iter().enumerate().map(panel).collect()
}

/// The kinds that there are, the most frequent first.
fn kinds<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<&'static str> {
    let mut counts: Vec<(usize, &'static str)> = Vec::new();
    for row in rows {
        match counts.iter_mut().find(|(_, kind)| *kind == row.kind) {
            Some((count, _)) => *count += 1,
            None => counts.push((1, row.kind)),
        }
    }
    counts.sort_by_key(|&(count, kind)| (is_beside(kind), std::cmp::Reverse(count), kind));
    counts.into_iter().map(|(_, kind)| kind).collect()
}

/// Kinds of which a kernel has thousands and that nobody wants a stub for: they come last, and their
/// bars are cut.
fn is_beside(kind: &str) -> bool {
    [UNDEFINED, BEYOND].contains(&kind)
}

/// The sites of the longest bar.
fn most(panels: &[Panel], kinds: &[&str]) -> usize {
    let longest = |beside: bool| {
        let kinds = kinds.iter().filter(move |kind| is_beside(kind) == beside);
        let counts = kinds.flat_map(|kind| panels.iter().map(move |p| of_kind(p, kind).count()));
        counts.max().filter(|&count| count > 0)
    };
    longest(false).or_else(|| longest(true)).unwrap_or(1)
}

fn of_kind<'a>(panel: &'a Panel, kind: &str) -> impl Iterator<Item = &'a Row> {
    panel.rows.iter().filter(move |row| row.kind == kind)
}

/// What a site became, by colour and hatching.
fn fill(scene: &mut Scene, rect: Rect, fate: usize) {
    const LOOKS: [(Ink, Hatch); FATES.len()] = [
        (Ink::GREEN, Hatch::None),
        (Ink::SKY, Hatch::Rising),
        (Ink::YELLOW, Hatch::None),
        (Ink::VERMILION, Hatch::Falling),
        (Ink::RULE, Hatch::None),
    ];
    let (ink, hatch) = LOOKS[fate];
    style::area(scene, rect, ink, hatch);
}

fn draw_heads(scene: &mut Scene, panels: &[Panel], top: f64) -> f64 {
    let face = Type::new(9.5).ink(Ink::QUIET);
    let y = top + if panels.iter().any(|panel| panel.ran) { 28.0 } else { 10.0 };
    for panel in panels {
        let head = font::elide(&panel.head, 11.5, panel.width);
        if panel.ran {
            scene.text((panel.left, top + 10.0), &head, Type::new(11.5).bold());
            scene.text((panel.left + panel.width, y), "runs", face.end());
        }
        scene.text((panel.left, y), "sites", face);
    }
    y + 10.0
}

fn draw_bar(scene: &mut Scene, panel: &Panel, kind: &str, most: usize, y: f64) {
    let count = of_kind(panel, kind).count();
    let room = panel.width - NUMBERS;
    let scale = room / most as f64;
    let mut x = panel.left;
    for fate in 0..FATES.len() {
        let part = of_kind(panel, kind).filter(|row| fate_of(row) == fate).count();
        if part > 0 {
            let width = (scale * part as f64).max(THINNEST).min(panel.left + room - x);
            fill(scene, Rect { x, y: y - 6.0, width, height: 12.0 }, fate);
            x += width;
        }
    }
    if count > most {
        let at = x - 20.0;
        scene.line((at - 4.0, y + 8.0), (at + 4.0, y - 8.0), 6.0, Ink::PAPER);
    }
    let face = Type::new(9.5);
    scene.text(
        (x + 5.0, y),
        &count.to_string(),
        if count == 0 { face.ink(Ink::QUIET) } else { face },
    );
    if panel.ran && count > 0 {
        let runs: u64 = of_kind(panel, kind).map(|row| row.runs).sum();
        scene.text((panel.left + panel.width, y), &format::count(runs as f64), face.end());
    }
}

/// What is drawn over time, and how it is read from a moment.
type Counted = (&'static str, fn(&Moment) -> u64);

const COUNTED: [Counted; 3] = [
    ("traps", |moment| moment.traps),
    ("crossings", |moment| moment.crossings),
    ("stubs made", |moment| moment.patches),
];

fn draw_charts(scene: &mut Scene, courses: &[Course], top: f64) -> f64 {
    scene.text((MARGIN, top), "As the guest warms up", Type::new(12.5).bold());
    let words = "Counts since the guest began to run, both axes logarithmic.";
    scene.text((MARGIN, top + 16.0), words, Type::new(10.5).ink(Ink::QUIET));
    let titles: Vec<String> = courses.iter().map(Course::title).collect();
    let y = frame::legend(scene, top + 26.0, &titles, |scene, index, at| {
        let look = look(courses[index].options.mode);
        scene.line((at.0 - 9.0, at.1), (at.0 + 9.0, at.1), 1.6, look.ink);
        style::point(scene, at, 4.2, look);
    });
    let counts = |moment: &&Moment| COUNTED.iter().any(|(_, count)| count(moment) > 0);
    let times = courses.iter().flat_map(|course| &course.moments).filter(counts);
    let times: Vec<f64> = times.map(|moment| moment.at.as_nanos() as f64).collect();
    let width = (WIDTH - 2.0 * MARGIN - 2.0 * GAP) / COUNTED.len() as f64;
    for (index, counted) in COUNTED.iter().enumerate() {
        let left = MARGIN + (width + GAP) * index as f64;
        let across = LogAxis::fitting(times.iter().copied(), left + CHART_LABELS, left + width);
        draw_chart(scene, courses, counted, &across, (left, y + 4.0, width));
    }
    y + 4.0 + CHART + 36.0
}

/// One chart: its left edge, its top and its width.
fn draw_chart(
    scene: &mut Scene,
    courses: &[Course],
    (title, count): &Counted,
    across: &LogAxis,
    (left, top, width): (f64, f64, f64),
) {
    let (top, bottom) = (top + 20.0, top + 20.0 + CHART);
    scene.text((left + CHART_LABELS, top - 11.0), title, Type::new(11.0).bold());
    let values = courses.iter().flat_map(|course| &course.moments).map(|m| count(m) as f64);
    let up = LogAxis::fitting(values, bottom, top);
    let edges = (left + CHART_LABELS, left + width);
    for (value, is_labelled) in up.ticks() {
        let (y, ink) = (up.x(value), if is_labelled { Ink::GRID } else { Ink::BAND });
        scene.line((edges.0, y), (edges.1, y), 0.8, ink);
        if is_labelled {
            let face = Type::new(10.0).ink(Ink::QUIET).end();
            scene.text((edges.0 - 6.0, y), &format::count(value), face);
        }
    }
    across.grid(scene, top, bottom);
    scene.line((edges.0, bottom), (edges.1, bottom), 1.0, Ink::RULE);
    across.labels(scene, bottom + 11.0, format::time_mark);
    for course in courses {
        let points = curve(&course.moments, *count, across, &up);
        draw_curve(scene, &points, look(course.options.mode));
    }
    let is_empty = courses.iter().all(|course| course.moments.last().is_none_or(|m| count(m) == 0));
    if is_empty {
        let at = ((edges.0 + edges.1) / 2.0, (top + bottom) / 2.0);
        scene.text(at, "none", Type::new(11.0).ink(Ink::QUIET).middle());
    }
}

/// The points of a curve, no two steps closer together than can be seen. A count stays as it is until
/// the next moment.
fn curve(
    moments: &[Moment],
    count: fn(&Moment) -> u64,
    across: &LogAxis,
    up: &LogAxis,
) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for moment in moments.iter().filter(|moment| count(moment) > 0 && !moment.at.is_zero()) {
        let point = (across.x(moment.at.as_nanos() as f64), up.x(count(moment) as f64));
        match points.last_mut() {
            Some(last) if point.0 - last.0 < 0.5 => last.1 = point.1,
            Some(&mut (_, before)) => points.extend([(point.0, before), point]),
            None => points.push(point),
        }
    }
    points
}

/// A line with markers a little apart, and one at its end.
fn draw_curve(scene: &mut Scene, points: &[(f64, f64)], look: Look) {
    const APART: f64 = 48.0;
    let Some(&last) = points.last() else { return };
    scene.path(points.to_vec(), 1.6, look.ink);
    let mut next = points[0].0 + APART / 2.0;
    for &point in points.iter().filter(|point| last.0 - point.0 > APART / 2.0) {
        if point.0 >= next {
            style::point(scene, point, 3.4, look);
            next = point.0 + APART;
        }
    }
    style::point(scene, last, 4.2, look);
}

/// The modes differ by marker and by colour.
fn look(mode: Mode) -> Look {
    let look = style::look("code-patching", 0);
    match mode {
        Mode::Prescan => Look { ink: Ink::BLUE, ..look },
        Mode::OnTrap => Look { ink: Ink::ORANGE, hollow: true, ..look },
    }
}
