//! What a run leaves behind: the rows of its CSV files, their names, and `host.toml`.
//!
//! A run is a folder. The bench engine appends to it as results come in ([`Appender`]), everything
//! else reads it back ([`Run::load`]). No statistics and no drawing here.

mod host;
mod run;
mod table;

pub use host::{GroupList, Host};
pub use run::Run;
pub use table::{Appender, read, write};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One measurement each: [`SampleRow`].
pub const SAMPLES: &str = "samples.csv";
/// Why a sample has no time: [`DetailRow`].
pub const DETAILS: &str = "details.csv";
/// One line for each strategy and workload: [`SummaryRow`].
pub const SUMMARY: &str = "summary.csv";
/// Exits by kind: [`ExitRow`].
pub const EXITS: &str = "exits.csv";
/// What the probes of the sensitive instructions saw: [`ProbeRow`].
pub const PROBES: &str = "probes.csv";
/// The host: [`Host`].
pub const HOST: &str = "host.toml";
/// The experiment as it was run. Written and read by the bench engine; the report only shows it.
pub const EXPERIMENT: &str = "experiment.toml";
/// The report.
pub const REPORT: &str = "report.html";

/// A results file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file is there, but its contents are not what they should be.
    #[error("{path}:{line}: {reason}; expected {expected}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
        /// What should be there.
        expected: String,
    },
    /// The folder holds no measurement.
    #[error("{path}: no samples in it: the run was stopped before its first result, or failed")]
    Empty {
        /// The file that should hold them.
        path: PathBuf,
    },
}

/// A row of one of the CSV files.
pub trait Row: Serialize + for<'de> Deserialize<'de> {
    /// The columns, in order.
    const COLUMNS: &'static [&'static str];
}

/// How a measurement ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The result was right. Only such a sample has a time.
    Ok,
    /// The guest finished with a wrong result, or a probe saw what it must not see.
    Wrong,
    /// The guest or the monitor stopped before the end.
    Crashed,
    /// The strategy cannot run this workload, or cannot run on this host.
    Unsupported,
    /// The guest did not finish in time.
    Timeout,
}

impl Outcome {
    /// All outcomes, from best to worst news.
    pub const ALL: [Outcome; 5] =
        [Self::Ok, Self::Wrong, Self::Crashed, Self::Unsupported, Self::Timeout];

    /// The name in CSV files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Wrong => "wrong",
            Self::Crashed => "crashed",
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
        }
    }
}

/// What a probe of a sensitive instruction found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeOutcome {
    /// The guest saw what the architecture says.
    Right,
    /// The guest saw something else.
    Wrong,
    /// The guest got an exception, or died, where the instruction should have worked.
    Trapped,
    /// The strategy could not run the probe.
    Unsupported,
}

impl ProbeOutcome {
    /// All outcomes, in the order of the legend.
    pub const ALL: [ProbeOutcome; 4] = [Self::Right, Self::Wrong, Self::Trapped, Self::Unsupported];

    /// The name in CSV files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Trapped => "trapped",
            Self::Unsupported => "unsupported",
        }
    }
}

/// One measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SampleRow {
    /// A strategy, or a peer such as `qemu-tcg`.
    pub strategy: String,
    /// The workload.
    pub workload: String,
    /// Counted from 0 for each strategy and workload. Samples of one number were taken together.
    pub sample: u32,
    /// Iterations that the guest did.
    pub iterations: u64,
    /// Host time between the guest's marks. Only with [`Outcome::Ok`].
    pub seconds: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why a sample is not [`Outcome::Ok`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DetailRow {
    /// As in [`SampleRow`].
    pub strategy: String,
    /// As in [`SampleRow`].
    pub workload: String,
    /// As in [`SampleRow`].
    pub sample: u32,
    /// One sentence for people.
    pub detail: String,
}

/// All samples of one strategy and workload together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SummaryRow {
    /// As in [`SampleRow`].
    pub strategy: String,
    /// As in [`SampleRow`].
    pub workload: String,
    /// The worst outcome of any sample: one wrong result makes the whole wrong.
    pub outcome: Outcome,
    /// The median. Only with [`Outcome::Ok`].
    pub ns_per_iteration: Option<f64>,
    /// The lower end of the median's confidence interval.
    pub low: Option<f64>,
    /// The upper end of the median's confidence interval.
    pub high: Option<f64>,
    /// How many samples there are.
    pub samples: u32,
    /// Why it is not ok, or what is to be known about the interval.
    pub detail: String,
}

/// How often one kind of exit happened in the measured part of one run of the guest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExitRow {
    /// As in [`SampleRow`].
    pub strategy: String,
    /// As in [`SampleRow`].
    pub workload: String,
    /// A name from `strategy::ExitKind`.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// The same, by iteration.
    pub per_iteration: f64,
}

/// What one probe saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeRow {
    /// As in [`SampleRow`].
    pub strategy: String,
    /// As in [`SampleRow`].
    pub workload: String,
    /// The probe, such as `ring3`.
    pub probe: String,
    /// What it found.
    pub outcome: ProbeOutcome,
    /// The value that the guest saw, where it saw a wrong one.
    #[serde(with = "hexadecimal")]
    pub seen: Option<u32>,
    /// The value that the architecture says.
    #[serde(with = "hexadecimal")]
    pub expected: Option<u32>,
}

impl Row for SampleRow {
    const COLUMNS: &'static [&'static str] =
        &["strategy", "workload", "sample", "iterations", "seconds", "outcome"];
}

impl Row for DetailRow {
    const COLUMNS: &'static [&'static str] = &["strategy", "workload", "sample", "detail"];
}

impl Row for SummaryRow {
    const COLUMNS: &'static [&'static str] = &[
        "strategy",
        "workload",
        "outcome",
        "ns_per_iteration",
        "low",
        "high",
        "samples",
        "detail",
    ];
}

impl Row for ExitRow {
    const COLUMNS: &'static [&'static str] =
        &["strategy", "workload", "kind", "count", "per_iteration"];
}

impl Row for ProbeRow {
    const COLUMNS: &'static [&'static str] =
        &["strategy", "workload", "probe", "outcome", "seen", "expected"];
}

/// Values that guests saw, as eight hexadecimal digits or nothing.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_str(&format!("{value:08x}")),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        u32::from_str_radix(&text, 16)
            .map(Some)
            .map_err(|_| D::Error::custom(format!("`{text}` is no hexadecimal number")))
    }
}
