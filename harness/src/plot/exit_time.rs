//! Time per exit: what one round trip to the monitor costs, by kind.

use super::axis::LogAxis;
use super::frame::{self, MARGIN};
use super::scene::{Scene, Type};
use super::style::{self, Ink};
use super::{Plot, font, format};
use crate::records::{ExitRow, Run, SummaryRow};
use crate::stats;

const WIDTH: f64 = 980.0;
const LABELS: f64 = 175.0;
const NUMBERS: f64 = 90.0;
const LANE: f64 = 15.0;

/// What one exit takes in one workload.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ExitTime<'a> {
    pub(crate) strategy: &'a str,
    pub(crate) workload: &'a str,
    /// The kind of at least half of the exits.
    pub(crate) kind: &'a str,
    pub(crate) ns: f64,
    low: f64,
    high: f64,
}

/// The time of an exit in every workload that leaves the guest at least once in two iterations and
/// mostly for one reason. Elsewhere the time is not that of exits.
pub(crate) fn exit_times(run: &Run) -> Vec<ExitTime<'_>> {
    run.summary.iter().filter_map(|row| exit_time(run, row)).collect()
}

fn exit_time<'a>(run: &'a Run, row: &'a SummaryRow) -> Option<ExitTime<'a>> {
    let ns = row.ns_per_iteration?;
    let is_here = |exit: &&ExitRow| exit.strategy == row.strategy && exit.workload == row.workload;
    let exits = || run.exits.iter().filter(is_here);
    let total: f64 = exits().map(|exit| exit.per_iteration).sum();
    let main = exits().max_by(|a, b| a.per_iteration.total_cmp(&b.per_iteration))?;
    let is_clear = total >= 0.5 && main.per_iteration >= total / 2.0;
    is_clear.then(|| ExitTime {
        strategy: &row.strategy,
        workload: &row.workload,
        kind: &main.kind,
        ns: ns / total,
        low: row.low.unwrap_or(ns) / total,
        high: row.high.unwrap_or(ns) / total,
    })
}

pub(super) fn plot(run: &Run) -> Option<Plot> {
    let times = exit_times(run);
    if times.is_empty() {
        return None;
    }
    let title = "Time per exit".to_owned();
    let explanation = "Time of an iteration divided by its exits, for workloads that exit at least \
        once in two iterations and mostly for one reason. The guest's own work is counted in: an \
        upper bound. Dots: workloads, with intervals. Vertical line and number: their median.";
    let (mut scene, top) = frame::begin(WIDTH, &title, explanation);
    let shown = |name: &&str| times.iter().any(|time| time.strategy == *name);
    let strategies: Vec<&str> = run.strategies().into_iter().filter(shown).collect();
    let y = frame::strategy_legend(&mut scene, top, run, &strategies) + 4.0;
    let mut kinds: Vec<&str> = times.iter().map(|time| time.kind).collect();
    kinds.sort_by_key(|kind| (style::kind_look(kind).0, *kind));
    kinds.dedup();

    let bounds = times.iter().flat_map(|time| [time.low, time.high]);
    let right = WIDTH - MARGIN - NUMBERS;
    let axis = LogAxis::fitting(bounds, MARGIN + LABELS, right);
    let count: usize = kinds.iter().map(|kind| lanes(&times, kind, &strategies).len()).sum();
    let bottom = y + 14.0 + count as f64 * LANE + kinds.len() as f64 * 10.0;
    axis.labels(&mut scene, y + 6.0, format::time_mark);
    axis.grid(&mut scene, y + 14.0, bottom);
    let mut y = y + 14.0;
    for kind in kinds {
        let lanes = lanes(&times, kind, &strategies);
        y = draw_kind(&mut scene, run, &axis, (kind, &lanes), y);
    }
    axis.labels(&mut scene, y + 10.0, format::time_mark);
    let scene = frame::end(scene, run, y + 12.0);
    Some(Plot { name: "exit-time", title, explanation, scene })
}

/// The points of one kind, by strategy.
fn lanes<'a, 'b>(
    times: &'b [ExitTime<'a>],
    kind: &str,
    strategies: &[&str],
) -> Vec<Vec<&'b ExitTime<'a>>> {
    let of = |strategy: &&str| -> Vec<&ExitTime<'a>> {
        times.iter().filter(|time| time.kind == kind && time.strategy == *strategy).collect()
    };
    strategies.iter().map(of).filter(|lane| !lane.is_empty()).collect()
}

fn draw_kind(
    scene: &mut Scene,
    run: &Run,
    axis: &LogAxis,
    (kind, lanes): (&str, &[Vec<&ExitTime<'_>>]),
    top: f64,
) -> f64 {
    scene.line((MARGIN, top), (WIDTH - MARGIN, top), 0.8, Ink::RULE);
    let height = lanes.len() as f64 * LANE + 10.0;
    let label = font::elide(kind, 10.5, LABELS - 12.0);
    scene.text((MARGIN + LABELS - 10.0, top + height / 2.0), &label, Type::new(10.5).end());
    for (index, lane) in lanes.iter().enumerate() {
        let y = top + 5.0 + LANE * (index as f64 + 0.5);
        let look = frame::style_of(run, lane[0].strategy);
        for time in lane {
            scene.line((axis.x(time.low), y), (axis.x(time.high), y), 1.2, look.ink);
            style::point(scene, (axis.x(time.ns), y), 3.6, look);
        }
        let values: Vec<f64> = lane.iter().map(|time| time.ns).collect();
        if let Some(median) = stats::median(&values) {
            let x = axis.x(median);
            scene.line((x, y - 6.5), (x, y + 6.5), 1.6, look.ink);
            let at = (WIDTH - MARGIN, y);
            scene.text(at, &format::time(median), Type::new(9.5).end());
        }
    }
    top + height
}
