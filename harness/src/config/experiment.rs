//! An experiment: what is measured, how often, and how long it may take.

use super::{ConfigError, Source, Target, Time, options, suggest, target};
use crate::strategies::Options;
use machine::cpu::CpuModel;
use serde::Deserialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use workloads::{Group, Workload};

/// The experiment that runs when none is named.
pub const BUILTIN: &str = include_str!("../builtin.toml");

/// The most samples that one row may have; more only fill the disk.
const MOST_SAMPLES: u32 = 10_000;

/// A checked experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What the report is headed with.
    pub name: String,
    /// Strategies and peers, in the order of the tables.
    pub targets: Vec<Target>,
    /// Workloads, in the order of the tables, each once.
    pub workloads: Vec<Workload>,
    /// Samples of each target under each workload.
    pub samples: u32,
    /// How long a sample takes at least; iterations are calibrated so.
    pub sample_time: Duration,
    /// How long one guest may run.
    pub timeout: Duration,
    /// How long the whole may take, about; samples are left out to keep to it, never workloads.
    pub budget: Option<Duration>,
    /// Whether peers that run here only in a makeshift way (KVM in software) are left out: seconds
    /// a guest, and seldom right, they would use up any budget.
    pub leave_out_slow_peers: bool,
    /// What the plots divide by: the name of a target.
    pub baseline: String,
    /// The CPU that guests see.
    pub cpu: CpuModel,
    /// The options of strategies.
    options: Options,
}

/// What the command line changes in an experiment.
#[derive(Clone, Default, Debug)]
pub struct Overrides {
    /// Strategies instead of those in the file. Alone, it leaves out the peers as well.
    pub strategies: Option<Vec<String>>,
    /// Peers instead of those in the file, and slow ones as well.
    pub peers: Option<Vec<String>>,
    /// Workloads and groups instead of those in the file.
    pub workloads: Option<Vec<String>>,
    /// Samples instead of the number in the file.
    pub samples: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: Option<String>,
    strategies: Vec<Spanned<String>>,
    #[serde(default)]
    peers: Vec<Spanned<String>>,
    workloads: Vec<Spanned<String>>,
    samples: Option<Spanned<u32>>,
    sample_time: Option<Spanned<Time>>,
    timeout: Option<Spanned<Time>>,
    budget: Option<Spanned<Time>>,
    #[serde(default)]
    leave_out_slow_peers: bool,
    baseline: Option<Spanned<String>>,
    cpu: Option<Spanned<String>>,
    #[serde(default)]
    options: options::File,
}

impl Experiment {
    /// The experiment in the file `path`, or the built-in one, as `overrides` change it.
    ///
    /// # Errors
    /// When the file or what the command line says makes no sense.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Experiment, ConfigError> {
        let (path, text) = match path {
            Some(path) => (path.to_owned(), super::read(path)?),
            None => (PathBuf::from("built-in experiment"), BUILTIN.to_owned()),
        };
        Experiment::parse(&path, &text, overrides)
    }

    /// The experiment that `text` describes; `path` is for messages.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn parse(
        path: &Path,
        text: &str,
        overrides: &Overrides,
    ) -> Result<Experiment, ConfigError> {
        let source = Source::new(path, text);
        let file: File = source.parse()?;
        let mut experiment = file.check(&source)?;
        experiment.change(overrides)?;
        if experiment.targets.is_empty() || experiment.workloads.is_empty() {
            return Err(source.error("nothing to measure: no strategies, peers or workloads"));
        }
        let runs = |target: &Target| experiment.workloads.iter().any(|each| target.runs(each));
        if !experiment.targets.iter().any(runs) {
            return Err(source.error("nothing to measure: native runs compute workloads only"));
        }
        experiment.settle_baseline(&file, &source, overrides)?;
        Ok(experiment)
    }

    fn change(&mut self, overrides: &Overrides) -> Result<(), ConfigError> {
        let said = |message| ConfigError { path: "command line".into(), line: None, message };
        if let Some(names) = &overrides.strategies {
            let options = self.options;
            let strategies =
                resolve(names, |name| target::variant(name, &options)).map_err(said)?;
            self.targets = strategies.into_iter().map(Target::Strategy).collect();
        }
        if let Some(names) = &overrides.peers {
            let peers = resolve(names, target::peer).map_err(said)?;
            self.leave_out_slow_peers = false;
            self.targets.retain(|target| matches!(target, Target::Strategy(_)));
            self.targets.extend(peers.into_iter().map(Target::Peer));
        }
        if let Some(names) = &overrides.workloads {
            self.workloads = unique(resolve(names, workloads_named).map_err(said)?.concat());
        }
        if let Some(samples) = overrides.samples {
            self.samples = samples_in_range(samples).map_err(said)?;
        }
        Ok(())
    }

    /// A baseline that the file names must be measured, unless the command line left it out.
    fn settle_baseline(
        &mut self,
        file: &File,
        source: &Source,
        overrides: &Overrides,
    ) -> Result<(), ConfigError> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name()).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let overridden = overrides.strategies.is_some() || overrides.peers.is_some();
        match &file.baseline {
            Some(name) if names.contains(&name.get_ref().as_str()) => {
                self.baseline.clone_from(name.get_ref());
            }
            Some(name) if !overridden => {
                let message = suggest::unknown("target", name.get_ref(), &names);
                return Err(source.error_at(&name.span(), format!("key \"baseline\": {message}")));
            }
            _ => self.baseline = (*first).to_owned(),
        }
        Ok(())
    }

    /// The experiment as TOML with everything named, so that it says all that was measured.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let names = |of: &dyn Fn(&Target) -> bool| {
            let names = self.targets.iter().filter(|target| of(target));
            names.map(|target| target.name()).collect::<Vec<_>>()
        };
        let workloads: Vec<_> = self.workloads.iter().map(|workload| workload.name).collect();
        let mut text = format!(
            "name = {:?}\nstrategies = {:?}\npeers = {:?}\nworkloads = {workloads:#?}\n\
             samples = {}\nsample-time = \"{}\"\ntimeout = \"{}\"\nbaseline = {:?}\ncpu = \"{}\"\n",
            self.name,
            names(&|target| matches!(target, Target::Strategy(_))),
            names(&|target| matches!(target, Target::Peer(_))),
            self.samples,
            Time(self.sample_time),
            Time(self.timeout),
            self.baseline,
            self.cpu,
        );
        if self.leave_out_slow_peers {
            text += "leave-out-slow-peers = true\n";
        }
        if let Some(budget) = self.budget {
            text += &format!("budget = \"{}\"\n", Time(budget));
        }
        text + &options::to_toml(self.targets.iter().filter_map(|target| match target {
            Target::Strategy(variant) => Some(*variant),
            Target::Peer(_) => None,
        }))
    }
}

impl File {
    fn check(&self, source: &Source) -> Result<Experiment, ConfigError> {
        let mut targets = Vec::new();
        let names = self.strategies.iter().map(|name| name.get_ref().as_str());
        let options = self.options.check(source, names)?;
        let find = |name: &str| target::variant(name, &options);
        for variant in resolve_in(source, "strategies", &self.strategies, find)? {
            targets.push(Target::Strategy(variant));
        }
        for id in resolve_in(source, "peers", &self.peers, target::peer)? {
            targets.push(Target::Peer(id));
        }
        let workloads = resolve_in(source, "workloads", &self.workloads, workloads_named)?;
        let samples = check(source, "samples", self.samples.as_ref(), |n| samples_in_range(*n))?;
        Ok(Experiment {
            name: self.name.clone().unwrap_or_else(|| "experiment".to_owned()),
            targets: unique(targets),
            workloads: unique(workloads.concat()),
            samples: samples.unwrap_or(5),
            sample_time: self.time(
                source,
                "sample-time",
                self.sample_time.as_ref(),
                1..=60_000,
                20,
            )?,
            timeout: self.time(
                source,
                "timeout",
                self.timeout.as_ref(),
                100..=86_400_000,
                10_000,
            )?,
            budget: match &self.budget {
                Some(budget) => {
                    Some(self.time(source, "budget", Some(budget), 1_000..=864_000_000, 0)?)
                }
                None => None,
            },
            leave_out_slow_peers: self.leave_out_slow_peers,
            baseline: String::new(),
            cpu: check(source, "cpu", self.cpu.as_ref(), |name| name.parse())?.unwrap_or_default(),
            options,
        })
    }

    fn time(
        &self,
        source: &Source,
        key: &str,
        value: Option<&Spanned<Time>>,
        milliseconds: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<Duration, ConfigError> {
        let (least, most) = (
            Duration::from_millis(*milliseconds.start()),
            Duration::from_millis(*milliseconds.end()),
        );
        let checked = check(source, key, value, |time| {
            if (least..=most).contains(&time.0) {
                Ok(time.0)
            } else {
                Err(format!("{time} makes no sense: from {} to {}", Time(least), Time(most)))
            }
        })?;
        Ok(checked.unwrap_or(Duration::from_millis(default)))
    }
}

/// Checks the value of `key`, if it is there.
pub(super) fn check<T, U>(
    source: &Source,
    key: &str,
    value: Option<&Spanned<T>>,
    convert: impl Fn(&T) -> Result<U, String>,
) -> Result<Option<U>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    convert(value.get_ref())
        .map(Some)
        .map_err(|message| at_key(source, key, value.span(), &message))
}

fn at_key(source: &Source, key: &str, span: Range<usize>, message: &str) -> ConfigError {
    source.error_at(&span, format!("key {key:?}: {message}"))
}

fn resolve_in<T>(
    source: &Source,
    key: &str,
    names: &[Spanned<String>],
    find: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let one = |name: &Spanned<String>| {
        find(name.get_ref()).map_err(|message| at_key(source, key, name.span(), &message))
    };
    names.iter().map(one).collect()
}

fn resolve<T>(
    names: &[String],
    find: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    names.iter().map(|name| find(name)).collect()
}

/// The workload or the workloads of the group called `name`; `all` means all that are assembled: a
/// whole operating system would take as long as all of them together.
fn workloads_named(name: &str) -> Result<Vec<Workload>, String> {
    let all = workloads::known();
    let is_named = |workload: &Workload| {
        let in_all = name == "all" && workload.group != Group::Linux;
        in_all || workload.name == name || workload.group.name() == name
    };
    let named: Vec<Workload> = all.iter().filter(|workload| is_named(workload)).copied().collect();
    if named.is_empty() {
        let groups = Group::ALL.iter().map(|group| group.name());
        let known: Vec<&str> = groups.chain(all.iter().map(|workload| workload.name)).collect();
        return Err(suggest::unknown("workload or group", name, &known));
    }
    Ok(named)
}

fn samples_in_range(samples: u32) -> Result<u32, String> {
    if (1..=MOST_SAMPLES).contains(&samples) {
        Ok(samples)
    } else {
        Err(format!("{samples} samples make no sense: from 1 to {MOST_SAMPLES}"))
    }
}

/// What can be named twice but counts once.
trait Named {
    fn key(&self) -> &'static str;
}

impl Named for Target {
    fn key(&self) -> &'static str {
        self.name()
    }
}

impl Named for Workload {
    fn key(&self) -> &'static str {
        self.name
    }
}

fn unique<T: Named>(items: Vec<T>) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    items.into_iter().filter(|item| seen.insert(item.key())).collect()
}
