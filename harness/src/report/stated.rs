//! What was expected where a strategy is known to go wrong, or is right for a reason of its own, and
//! what came.

use super::html::{self, Table};
use crate::expectations::{self, Expectation};
use crate::records::{Run, SummaryRow};

/// A table for each strategy with statements about workloads of the run.
pub(super) fn section(run: &Run) -> String {
    let tables: String = run.strategies().iter().map(|strategy| of(run, strategy)).collect();
    if tables.is_empty() {
        return String::new();
    }
    let lead = "Not everything that a strategy gets wrong is a fault of ours: IA-32 has instructions \
                that show or change privileged state without a trap. What each must come to was \
                stated beforehand, and the conformance test holds the strategies to it.";
    html::section("stated", "Expectations", &(html::paragraph(lead) + &tables))
}

fn of(run: &Run, strategy: &str) -> String {
    let mut table = Table::new(["instruction", "expected", "found", "why"]);
    for (_, workloads) in run.groups() {
        for workload in workloads {
            let row = run.summary_of(strategy, workload);
            if let Some((stated, row)) = expectations::stated(strategy, workload).zip(row) {
                table.row(workload, &cells(stated, row));
            }
        }
    }
    match table.html() {
        empty if empty.is_empty() => empty,
        table => format!("<h3>{}</h3>\n{table}", html::escape(run.label(strategy))),
    }
}

fn cells(stated: &Expectation, row: &SummaryRow) -> [String; 3] {
    [
        html::text(stated.in_words()),
        html::outcome(row.outcome, &row.detail),
        html::text(&stated.why),
    ]
}
