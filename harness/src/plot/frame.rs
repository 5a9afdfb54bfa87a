//! What all plots have in common: heading, legend and caption.

use super::font;
use super::scene::{Rect, Scene, Type};
use super::style::{self, Ink};
use crate::records::Run;

/// The space at all four sides.
pub(super) const MARGIN: f64 = 18.0;

/// Begins a plot: title and subtitle. Gives the scene and where to go on.
pub(super) fn begin(width: f64, title: &str, subtitle: &str) -> (Scene, f64) {
    let mut scene = Scene::new(width, title);
    let room = width - 2.0 * MARGIN;
    let mut y = MARGIN + 6.0;
    scene.text((MARGIN, y), &font::elide(title, 16.5, room), Type::new(15.0).bold());
    y += 20.0;
    for line in font::wrap(subtitle, 10.5, room, 3) {
        scene.text((MARGIN, y), &line, Type::new(10.5).ink(Ink::QUIET));
        y += 14.0;
    }
    (scene, y + 4.0)
}

/// Ends a plot: the caption that names the host.
pub(super) fn end(scene: Scene, run: &Run, bottom: f64) -> Scene {
    end_with(scene, &run.host.caption(), bottom)
}

/// Ends a plot that is not of a run, with this caption.
pub(super) fn end_with(mut scene: Scene, caption: &str, bottom: f64) -> Scene {
    let room = scene.width - 2.0 * MARGIN;
    let mut y = bottom + 14.0;
    scene.line((MARGIN, y), (scene.width - MARGIN, y), 0.8, Ink::RULE);
    y += 13.0;
    for line in font::wrap(caption, 9.0, room, 3) {
        scene.text((MARGIN, y), &line, Type::new(9.0).ink(Ink::QUIET));
        y += 12.0;
    }
    scene.finish(y + MARGIN - 10.0)
}

/// Lays out legend entries in rows. `key` draws the sign of an entry centred in an 18 by 12 box
/// whose middle it is given. Gives where to go on.
pub(super) fn legend(
    scene: &mut Scene,
    top: f64,
    entries: &[String],
    mut key: impl FnMut(&mut Scene, usize, (f64, f64)),
) -> f64 {
    let (right, step) = (scene.width - MARGIN, 17.0);
    let (mut x, mut y) = (MARGIN, top + 6.0);
    for (index, entry) in entries.iter().enumerate() {
        let entry = font::elide(entry, 10.5, right - MARGIN - 24.0);
        let width = 24.0 + font::width(&entry, 10.5, false);
        if x > MARGIN && x + width > right {
            (x, y) = (MARGIN, y + step);
        }
        key(scene, index, (x + 9.0, y));
        scene.text((x + 22.0, y), &entry, Type::new(10.5));
        x += width + 16.0;
    }
    y + step
}

/// The legend of strategies by their markers.
pub(super) fn strategy_legend(scene: &mut Scene, top: f64, run: &Run, strategies: &[&str]) -> f64 {
    let labels: Vec<String> = strategies.iter().map(|s| run.label(s).to_owned()).collect();
    legend(scene, top, &labels, |scene, index, at| {
        let look = style_of(run, strategies[index]);
        scene.line((at.0 - 9.0, at.1), (at.0 + 9.0, at.1), 1.2, look.ink);
        style::point(scene, at, 4.2, look);
    })
}

/// The label of a strategy or peer in lines for a column `room` wide; the qualification in brackets
/// begins a new line.
pub(super) fn label_lines(run: &Run, strategy: &str, room: f64) -> Vec<String> {
    let label = run.label(strategy);
    match label.split_once(" (") {
        Some((name, remark)) if font::width(label, 10.5, false) > room => {
            let mut lines = font::wrap(name, 10.5, room, 1);
            lines.extend(font::wrap(&format!("({remark}"), 10.5, room, 1));
            lines
        }
        _ => font::wrap(label, 10.5, room, 2),
    }
}

/// The look of a strategy or peer of this run.
pub(super) fn style_of(run: &Run, strategy: &str) -> style::Look {
    let place = run.strategies().iter().position(|&name| name == strategy);
    style::look(strategy, place.unwrap_or_default())
}

/// A band behind every second row, to lead the eye.
pub(super) fn band(
    scene: &mut Scene,
    index: usize,
    (left, right): (f64, f64),
    y: f64,
    height: f64,
) {
    if index % 2 == 1 {
        let rect = Rect { x: left, y: y - height / 2.0, width: right - left, height };
        scene.rect(rect, Ink::BAND);
    }
}
