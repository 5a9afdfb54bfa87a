//! Slowdown against the baseline: for each group a row for each strategy, with a dot for each
//! workload and the geometric mean.

use super::axis::LogAxis;
use super::frame::{self, MARGIN};
use super::scene::{Scene, Type};
use super::style::{self, Ink, Look};
use super::{Plot, format};
use crate::records::Run;
use crate::stats::{Comparison, Estimate, GroupComparison, StrategyComparison};

const WIDTH: f64 = 980.0;
const LABELS: f64 = 190.0;
const NUMBERS: f64 = 205.0;
const ROW: f64 = 34.0;
const HEADING: f64 = 30.0;
/// Dots of a row lie in lanes, so that none hides another.
const LANES: [f64; 5] = [0.0, -5.0, 5.0, -10.0, 10.0];

pub(super) fn plot(run: &Run, comparison: &Comparison) -> Option<Plot> {
    let rows = || comparison.groups.iter().flat_map(|group| &group.strategies);
    if rows().all(|row| row.ratios.is_empty()) {
        return None;
    }
    let baseline = run.label(&comparison.baseline);
    let title = format!("Slowdown against {baseline}");
    let explanation = "Time of an iteration relative to the baseline, so further left is faster. \
        Small dots: one workload each. Large marker: their geometric mean. Bars: 95 % confidence \
        intervals by resampling. Only workloads that both ran with the right result count.";
    let (mut scene, top) = frame::begin(WIDTH, &title, explanation);
    let bounds = rows().flat_map(|row| &row.ratios).flat_map(|(_, r)| [r.low, r.high]);
    let (left, right) = (MARGIN + LABELS, WIDTH - MARGIN - NUMBERS);
    let axis = LogAxis::fitting(bounds.chain([1.0]), left, right);

    let bottom = top + 14.0 + comparison.groups.iter().map(height_of).sum::<f64>();
    axis.labels(&mut scene, top + 6.0, format::ratio_mark);
    axis.grid(&mut scene, top + 14.0, bottom);
    scene.line((axis.x(1.0), top + 14.0), (axis.x(1.0), bottom), 1.4, Ink::GREY);
    let head = Type::new(9.5).ink(Ink::QUIET);
    scene.text((right + 14.0, top + 6.0), "geometric mean [95 %]", head);

    let mut y = top + 14.0;
    for group in &comparison.groups {
        y = draw_group(&mut scene, run, &axis, group, (y, right));
    }
    axis.labels(&mut scene, y + 10.0, format::ratio_mark);
    let scene = frame::end(scene, run, y + 12.0);
    Some(Plot { name: "slowdown", title, explanation, scene })
}

/// Whether the group can be compared at all.
fn is_comparable(group: &GroupComparison) -> bool {
    group.strategies.iter().any(|row| row.mean.is_some())
}

fn height_of(group: &GroupComparison) -> f64 {
    let rows = if is_comparable(group) { group.strategies.len() } else { 0 };
    HEADING + rows as f64 * ROW
}

fn draw_group(
    scene: &mut Scene,
    run: &Run,
    axis: &LogAxis,
    group: &GroupComparison,
    (top, right): (f64, f64),
) -> f64 {
    let mut y = top;
    scene.line((MARGIN, y), (WIDTH - MARGIN, y), 0.8, Ink::RULE);
    let heading = format!("{} ({} workloads)", group.name, group.workloads.len());
    scene.text((MARGIN, y + HEADING / 2.0 + 2.0), &heading, Type::new(12.0).bold());
    if !is_comparable(group) {
        let remark = "none ran under the baseline and another strategy";
        scene.text((right + 14.0, y + HEADING / 2.0 + 2.0), "not comparable", Type::new(9.5));
        let at = (MARGIN + LABELS + 8.0, y + HEADING / 2.0 + 2.0);
        scene.text(at, remark, Type::new(9.5).ink(Ink::QUIET));
        return y + HEADING;
    }
    y += HEADING + ROW / 2.0 - 4.0;
    for row in &group.strategies {
        let look = frame::style_of(run, &row.strategy);
        let label = frame::label_lines(run, &row.strategy, LABELS - 10.0);
        scene.lines((MARGIN + LABELS - 8.0, y), &label, Type::new(10.5).end());
        draw_row(scene, axis, row, look, y);
        let numbers = numbers(row, group.workloads.len());
        scene.lines((right + 14.0, y), &numbers, Type::new(9.5));
        y += ROW;
    }
    y - ROW / 2.0 + 4.0
}

fn draw_row(scene: &mut Scene, axis: &LogAxis, row: &StrategyComparison, look: Look, y: f64) {
    let mut dots: Vec<&Estimate> = row.ratios.iter().map(|(_, ratio)| ratio).collect();
    dots.sort_by(|a, b| a.value.total_cmp(&b.value));
    let pale = look.ink.tint(0.55);
    let lanes = assign_lanes(dots.iter().map(|dot| axis.x(dot.value)));
    for (dot, lane) in dots.iter().zip(&lanes) {
        let y = y + LANES[*lane];
        scene.line((axis.x(dot.low), y), (axis.x(dot.high), y), 1.0, pale);
        scene.circle((axis.x(dot.value), y), 2.4, Ink::PAPER);
        scene.circle((axis.x(dot.value), y), 2.0, pale);
    }
    if let Some(mean) = row.mean {
        let (low, high) = (axis.x(mean.low), axis.x(mean.high));
        scene.line((low, y), (high, y), 2.2, look.ink);
        for end in [low, high] {
            scene.line((end, y - 5.0), (end, y + 5.0), 1.6, look.ink);
        }
        style::point(scene, (axis.x(mean.value), y), 6.0, look);
    }
}

/// Puts each dot, from left to right, into the first lane whose last dot lies far enough behind.
fn assign_lanes(places: impl Iterator<Item = f64>) -> Vec<usize> {
    let mut last = [f64::NEG_INFINITY; LANES.len()];
    let mut assign = |x: f64| {
        let free = last.iter().position(|end| x - end >= 5.0);
        let emptiest = || (0..LANES.len()).min_by(|&a, &b| last[a].total_cmp(&last[b]));
        let lane = free.or_else(emptiest).unwrap_or_default();
        last[lane] = x;
        lane
    };
    places.map(&mut assign).collect()
}

fn numbers(row: &StrategyComparison, of: usize) -> Vec<String> {
    let Some(mean) = row.mean else {
        return vec!["no workload in common".to_owned()];
    };
    let interval = format!("[{}, {}]", format::digits(mean.low), format::digits(mean.high));
    let extent = || {
        let values = || row.ratios.iter().map(|(_, ratio)| ratio.value);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(0.0, f64::max);
        format!("{} to {}", format::ratio(least), format::ratio(most))
    };
    vec![
        format!("{} {interval}", format::ratio(mean.value)),
        format!("{} of {of}: {}", row.ratios.len(), extent()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_dots_take_different_lanes() {
        let lanes = assign_lanes([0.0, 1.0, 2.0, 20.0].into_iter());
        assert_eq!(lanes, [0, 1, 2, 0]);
        let crowd = assign_lanes((0..40).map(|x| f64::from(x) / 10.0));
        assert!(crowd.iter().all(|&lane| lane < LANES.len()));
    }
}
