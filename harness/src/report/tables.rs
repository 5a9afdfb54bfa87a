//! The times of all workloads, by group: median, interval and ratio to the baseline.

use super::html::{self, Table};
use crate::plot::format;
use crate::records::{Run, SummaryRow};
use crate::stats::Comparison;

/// From here on the median's interval reaches 95 %.
const ENOUGH_SAMPLES: u32 = 6;

pub(super) fn section(run: &Run, comparison: Option<&Comparison>) -> String {
    let mut contents = html::paragraph(
        "The median time of one iteration; under it its confidence interval and the ratio to the \
         baseline.",
    );
    for (group, workloads) in run.groups() {
        let mut strategies = run.strategies();
        strategies.retain(|strategy| run.has_any(strategy, &workloads));
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

/// The interval in the unit of the median, and whether it is only the range of a few samples.
fn interval(row: &SummaryRow) -> String {
    let (Some(low), Some(high)) = (row.low, row.high) else {
        return String::new();
    };
    match row.samples {
        1 => "one sample".to_owned(),
        few if few < ENOUGH_SAMPLES => format!("range {}", between(low, high)),
        _ => between(low, high),
    }
}

fn between(low: f64, high: f64) -> String {
    let (low, high) = (format::time(low), format::time(high));
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((value, unit)), Some((_, same))) if unit == same => format!("[{value}, {high}]"),
        _ => format!("[{low}, {high}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_both_ends_share_stands_once() {
        assert_eq!(between(1000.0, 2000.0), "[1, 2 µs]");
        assert_eq!(between(990.0, 2000.0), "[990 ns, 2 µs]");
    }
}
