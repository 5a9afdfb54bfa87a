//! The beginning and the end of the report: headline numbers, method, and how to do it again.

use super::html::{self, Table, escape, paragraph};
use crate::plot::format;
use crate::records::{Outcome, ProbeOutcome, Run};
use crate::stats::{Comparison, StrategyComparison};

/// The peer that runs without a monitor.
const NATIVE: &str = "native";

/// Headline numbers: one row for each strategy.
pub(super) fn section(run: &Run, comparison: Option<&Comparison>) -> String {
    let groups = run.groups();
    let mut head = vec!["".to_owned(), "right results".to_owned(), "probes right".to_owned()];
    head.extend(groups.iter().map(|(name, _)| format!("{name}: slowdown")));
    let native = run.strategies().contains(&NATIVE).then(|| Comparison::against(run, NATIVE));
    head.extend(native.iter().map(|_| "of native speed".to_owned()));
    let mut table = Table::new(head);
    for strategy in run.strategies() {
        let mut cells =
            vec![html::number(&results(run, strategy)), html::number(&probes(run, strategy))];
        for (group, _) in &groups {
            cells.push(slowdown(comparison, strategy, group));
        }
        cells.extend(native.as_ref().map(|native| share(native, strategy)));
        table.row(run.label(strategy), &cells);
    }
    let lead = match comparison {
        Some(comparison) => format!(
            "Slowdown is the time of an iteration relative to <b>{}</b>: the geometric mean over \
             the workloads of a group that both ran with the right result, with its 95 % confidence \
             interval. Below 1 is faster.",
            escape(run.label(&comparison.baseline)),
        ),
        None => "No sample has a time, so nothing can be compared.".to_owned(),
    };
    html::section("overview", "Overview", &(paragraph(&lead) + &table.html() + &host(run)))
}

fn results(run: &Run, strategy: &str) -> String {
    let rows = || run.summary.iter().filter(|row| row.strategy == strategy);
    let good = rows().filter(|row| row.outcome == Outcome::Ok).count();
    format!("{good} of {}", rows().count())
}

fn probes(run: &Run, strategy: &str) -> String {
    let rows = || run.probes.iter().filter(|row| row.strategy == strategy);
    let right = rows().filter(|row| row.outcome == ProbeOutcome::Right).count();
    match rows().filter(|row| row.outcome != ProbeOutcome::Unsupported).count() {
        0 => "–".to_owned(),
        all => format!("{right} of {all}"),
    }
}

fn slowdown(comparison: Option<&Comparison>, strategy: &str, group: &str) -> String {
    let Some(comparison) = comparison else {
        return html::number("–");
    };
    if comparison.baseline == strategy {
        return html::number("baseline");
    }
    let group = comparison.groups.iter().find(|candidate| candidate.name == group);
    let rows = group.map(|group| group.strategies.as_slice()).unwrap_or_default();
    let is_it = |row: &&StrategyComparison| row.strategy == strategy;
    match rows.iter().find(is_it).and_then(|row| Some((row, row.mean?))) {
        Some((row, mean)) => {
            let (low, high) = (format::digits(mean.low), format::digits(mean.high));
            let small = format!("[{low}, {high}] n = {}", row.ratios.len());
            html::number_with(&format::ratio(mean.value), &small)
        }
        None => html::number("–"),
    }
}

/// The speed as a part of what the same code has without a monitor, over all that it ran.
fn share(native: &Comparison, strategy: &str) -> String {
    let rows = native.groups.iter().flat_map(|group| &group.strategies);
    let means = rows.filter(|row| row.strategy == strategy).filter_map(|row| row.mean);
    match means.collect::<Vec<_>>()[..] {
        // Native has workloads of one group only.
        [mean] => {
            let small = format!(
                "[{}, {}]",
                format::digits(mean.high.recip()),
                format::digits(mean.low.recip())
            );
            html::number_with(&format::digits(mean.value.recip()), &small)
        }
        _ => html::number("–"),
    }
}

fn host(run: &Run) -> String {
    let host = &run.host;
    let cores = host.cores.to_string();
    let facts = [
        ("CPU", host.cpu.as_str()),
        ("Cores", &cores),
        ("Kernel", &host.kernel),
        ("KVM", &host.kvm),
        ("QEMU", host.qemu.as_deref().unwrap_or("not installed")),
        ("Ringside", &host.ringside),
        ("Date", &host.date),
    ];
    let fact = |(name, value): &(&str, &str)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value));
    format!("<dl class=\"facts\">{}</dl>\n", facts.iter().map(fact).collect::<String>())
}

/// What the numbers mean.
pub(super) fn method(run: &Run, comparison: Option<&Comparison>) -> String {
    let counts = run.summary.iter().filter(|row| row.outcome == Outcome::Ok).map(|row| row.samples);
    let (least, most) = counts.fold((u32::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
    let samples = match (least, most) {
        (_, 0) => "no samples".to_owned(),
        (least, most) if least == most => format!("{least} samples"),
        (least, most) => format!("{least} to {most} samples"),
    };
    let baseline = comparison.map_or("none", |comparison| run.label(&comparison.baseline));
    let items = [
        "Times are taken on the host, between two marks that the guest writes to a port around the \
         measured part. Starting a guest and setting it up do not count."
            .to_owned(),
        "Every result is checked against a known checksum. A wrong result is an outcome of its own \
         and never has a time; one wrong sample takes the time of all."
            .to_owned(),
        format!(
            "A time is the median of the samples ({samples} for each strategy and workload here, \
             taken in turns). Its interval runs between two order statistics and assumes no \
             distribution: 95 % confidence or more from six samples on; with fewer, the range, \
             whose confidence stands in summary.csv."
        ),
        format!(
            "Ratios are ratios of medians, here against {}. Their intervals come from drawing the \
             samples again a thousand times from a fixed seed. They say how well these workloads \
             were measured, not what other workloads would show; with fewer than six samples they \
             reach less than 95 %.",
            escape(baseline),
        ),
        "What KVM is on this host, the CPU's own virtualization or a module that does it in \
         software, stands behind the name of each strategy that uses it."
            .to_owned(),
    ];
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    html::section("method", "Method", &format!("<ul>\n{items}</ul>\n"))
}

/// How to do it again.
pub(super) fn reproduction(run: &Run, experiment: &str) -> String {
    let command = run.host.command.as_deref().unwrap_or("ringside bench experiment.toml");
    let mut contents = paragraph("The run was started with");
    contents += &format!("<pre>{}</pre>\n", escape(command));
    contents += &paragraph(
        "The samples, summary, exits and probes stand as CSV beside this file. <code>ringside plot \
         DIR</code> draws the plots and this page again from them, without running a guest.",
    );
    if !experiment.is_empty() {
        let lines: Vec<String> = experiment.lines().map(escape).collect();
        contents += &html::folded("experiment.toml", &format!("<pre>{}</pre>\n", lines.join("\n")));
    }
    html::section("reproduction", "Reproduction", &contents)
}
