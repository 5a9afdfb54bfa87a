//! The times of all workloads, by group: median, interval and ratio to the baseline.

use super::html::{self, Table};
use crate::plot::format;
use crate::records::{Run, SummaryRow};
use crate::stats::Comparison;

pub(super) fn section(run: &Run, comparison: Option<&Comparison>) -> String {
    let strategies = run.strategies();
    let mut contents = html::paragraph(
        "The median time of one iteration; under it its confidence interval and the ratio to the \
         baseline.",
    );
    for (group, workloads) in run.groups() {
        let labels = strategies.iter().map(|strategy| run.label(strategy));
        let mut table = Table::new(std::iter::once("").chain(labels));
        for workload in workloads {
            let cells: Vec<String> = strategies
                .iter()
                .map(|strategy| cell(run.summary_of(strategy, workload), comparison))
                .collect();
            table.row(workload, &cells);
        }
        contents += &format!("<h3>{}</h3>\n{}", html::escape(group), table.html());
    }
    html::section("times", "Times", &contents)
}

fn cell(row: Option<&SummaryRow>, comparison: Option<&Comparison>) -> String {
    let Some(row) = row else {
        return html::text("–");
    };
    let Some(ns) = row.ns_per_iteration else {
        return html::outcome(row.outcome, &row.detail);
    };
    let mut small = interval(row);
    if let Some(ratio) = comparison.and_then(|c| c.ratio(&row.strategy, &row.workload)) {
        small += &format!(" {}", format::ratio(ratio.value));
    }
    html::number_with(&format::time(ns), &small)
}

/// The interval in the unit of the median, or that there is none.
fn interval(row: &SummaryRow) -> String {
    match (row.low, row.high) {
        (Some(low), Some(high)) if row.samples > 1 => {
            let shared = |text: &str| text.rsplit_once(' ').map(|(_, unit)| unit.to_owned());
            let (low, high) = (format::time(low), format::time(high));
            match (shared(&low), shared(&high)) {
                (Some(a), Some(b)) if a == b => {
                    format!("[{}, {high}]", low.trim_end_matches(&a).trim_end())
                }
                _ => format!("[{low}, {high}]"),
            }
        }
        _ => "one sample".to_owned(),
    }
}
