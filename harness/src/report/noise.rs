//! How far to trust small differences: idle, and the run against itself.

use super::html::{self, Table};
use crate::plot::format;
use crate::records::Run;
use crate::stats;

/// The workload that does nothing.
const IDLE: &str = "idle";

pub(super) fn section(run: &Run) -> String {
    let contents = against_itself(run) + &idle(run);
    html::section("noise", "Noise", &contents)
}

fn against_itself(run: &Run) -> String {
    let strategies = run.strategies();
    let noise = stats::noise(&run.samples, &run.summary, &strategies);
    if noise.is_empty() {
        return html::paragraph(
            "Too few samples to compare the run with itself: four for each strategy and workload \
             are needed.",
        );
    }
    let mut table = Table::new(["A/A", "workloads", "typical", "largest", "largest in"]);
    for row in noise {
        let cells = [
            html::number(&row.workloads.to_string()),
            html::number(&format::percent(row.typical)),
            html::number(&format::percent(row.worst)),
            html::text(&row.worst_workload),
        ];
        table.row(run.label(&row.strategy), &cells);
    }
    let lead = "Even and odd samples of one strategy are two experiments on the same thing, taken in \
                turns. Their medians differ by this much; a smaller difference between two \
                strategies means nothing.";
    html::paragraph(lead) + &table.html()
}

fn idle(run: &Run) -> String {
    let mut table = Table::new(["idle", "median", "half of the interval"]);
    for strategy in run.strategies() {
        let times = stats::ns_per_iteration(&run.samples, strategy, IDLE);
        if let Some(estimate) = stats::median_interval(&times).filter(|_| times.len() > 1) {
            let cells = [
                html::number(&format::time(estimate.value)),
                html::number(&format!("±{}", format::percent(estimate.relative_error()))),
            ];
            table.row(run.label(strategy), &cells);
        }
    }
    let lead = "A guest that only waits for its timer shows how punctual host and monitor are:";
    match table.html() {
        empty if empty.is_empty() => empty,
        table => html::paragraph(lead) + &table,
    }
}
