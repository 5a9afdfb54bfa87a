//! What did not come out right, what the probes saw, and what made guests exit.

use super::html::{self, Table};
use crate::plot::format;
use crate::records::{ExitRow, Outcome, ProbeOutcome, ProbeRow, Run, SummaryRow};

/// Everything that has no time, with the reason.
pub(super) fn failures(run: &Run) -> String {
    let mut counts =
        Table::new(std::iter::once("").chain(Outcome::ALL.iter().map(|outcome| outcome.name())));
    for strategy in run.strategies() {
        let count = |outcome: &Outcome| {
            let is_it = |row: &&SummaryRow| row.strategy == strategy && row.outcome == *outcome;
            html::number(&run.summary.iter().filter(is_it).count().to_string())
        };
        counts.row(run.label(strategy), &Outcome::ALL.iter().map(count).collect::<Vec<_>>());
    }
    let mut failures = Table::new(["strategy", "outcome", "detail", "workloads"]);
    for strategy in run.strategies() {
        for (outcome, detail, workloads) in reasons(run, strategy) {
            let cells =
                [html::outcome(outcome, ""), html::text(detail), html::text(&workloads.join(", "))];
            failures.row(run.label(strategy), &cells);
        }
    }
    let details = match failures.html() {
        empty if empty.is_empty() => html::paragraph("Every workload ran with the right result."),
        table => table,
    };
    html::section("failures", "Outcomes", &(counts.html() + &details))
}

/// What went wrong with a strategy, each reason once with the workloads that it befell.
fn reasons<'a>(run: &'a Run, strategy: &str) -> Vec<(Outcome, &'a str, Vec<&'a str>)> {
    let mut reasons: Vec<(Outcome, &str, Vec<&str>)> = Vec::new();
    let is_failure = |row: &&SummaryRow| row.strategy == strategy && row.outcome != Outcome::Ok;
    for row in run.summary.iter().filter(is_failure) {
        let is_same = |(outcome, detail, _): &&mut (Outcome, &str, _)| {
            (*outcome, *detail) == (row.outcome, row.detail.as_str())
        };
        match reasons.iter_mut().find(is_same) {
            Some((_, _, workloads)) => workloads.push(&row.workload),
            None => reasons.push((row.outcome, &row.detail, vec![&row.workload])),
        }
    }
    reasons.sort_by_key(|&(outcome, ..)| outcome);
    reasons
}

/// The probes that were not right, and all of them folded away.
pub(super) fn probes(run: &Run) -> String {
    let notable =
        |row: &&ProbeRow| matches!(row.outcome, ProbeOutcome::Wrong | ProbeOutcome::Trapped);
    let bad = probe_table(run, run.probes.iter().filter(notable));
    let all = probe_table(run, run.probes.iter());
    if all.is_empty() {
        return String::new();
    }
    let lead = if bad.is_empty() {
        html::paragraph("No probe was wrong or trapped.")
    } else {
        html::paragraph("Probes that saw something wrong, or got an exception instead:") + &bad
    };
    let title = format!("All {} probes", run.probes.len());
    html::section("probes", "Probes", &(lead + &html::folded(&title, &all)))
}

fn probe_table<'a>(run: &Run, rows: impl Iterator<Item = &'a ProbeRow>) -> String {
    let head = ["strategy", "instruction", "probe", "outcome", "guest saw", "architecture says"];
    let mut table = Table::new(head);
    let hex = |value: Option<u32>| value.map_or(String::new(), |value| format!("{value:#010x}"));
    for row in rows {
        let name = row.outcome.name();
        let cells = [
            html::text(&row.workload),
            html::text(&row.probe),
            format!("<td><span class=\"badge {name}\">{name}</span></td>"),
            html::number(&hex(row.seen)),
            html::number(&hex(row.expected)),
        ];
        table.row(run.label(&row.strategy), &cells);
    }
    table.html()
}

/// The exits of one iteration, by strategy folded away, with their kinds.
pub(super) fn exits(run: &Run) -> String {
    let mut contents = String::new();
    for strategy in run.strategies() {
        let mut table = Table::new(["workload", "exits in an iteration", "by kind"]);
        for (_, workloads) in run.groups() {
            for workload in workloads {
                exit_row(&mut table, run, strategy, workload);
            }
        }
        contents += &html::folded(run.label(strategy), &table.html());
    }
    if contents.is_empty() {
        return String::new();
    }
    let lead = "An exit is one transfer of control from guest execution to the monitor, counted in \
                the measured part only.";
    html::section("exits", "Exits", &(html::paragraph(lead) + &contents))
}

fn exit_row(table: &mut Table, run: &Run, strategy: &str, workload: &str) {
    let is_here = |row: &&ExitRow| row.strategy == strategy && row.workload == workload;
    let mut rows: Vec<&ExitRow> = run.exits.iter().filter(is_here).collect();
    if rows.is_empty() {
        return;
    }
    rows.sort_by(|a, b| b.per_iteration.total_cmp(&a.per_iteration));
    let total: f64 = rows.iter().map(|row| row.per_iteration).sum();
    let kind = |row: &&ExitRow| format!("{} {}", row.kind, format::count(row.per_iteration));
    let happened = rows.iter().filter(|row| row.count > 0).map(kind);
    let kinds = happened.collect::<Vec<_>>().join(", ");
    table.row(workload, &[html::number(&format::count(total)), html::text(&kinds)]);
}
