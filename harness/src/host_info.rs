//! What this host is: for `host.toml` and for `ringside doctor`.

use crate::bench::{support, utc};
use crate::config::Experiment;
use crate::records::Host;
use crate::{peers, strategies};
use std::collections::BTreeMap;
use std::time::SystemTime;
use strategy::Support;

/// The host and the experiment's labels, for the records.
#[must_use]
pub fn describe(experiment: &Experiment) -> Host {
    let mut labels = BTreeMap::new();
    for target in &experiment.targets {
        let support = support(*target);
        let remarks = target.remark().into_iter().chain(support.qualification().map(str::to_owned));
        let remarks = remarks.collect::<Vec<_>>().join("; ");
        if !remarks.is_empty() {
            labels.insert(target.name().to_owned(), format!("{} ({remarks})", target.name()));
        }
    }
    let [year, month, day, hour, minute, _] = utc(SystemTime::now());
    Host {
        ringside: env!("CARGO_PKG_VERSION").to_owned(),
        date: format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC"),
        cpu: cpu_name(),
        cores: cores(),
        kernel: kernel(),
        kvm: kvm(),
        qemu: peers::qemu_version().map(str::to_owned),
        command: Some(command()),
        baseline: Some(experiment.baseline.clone()),
        labels,
        sandbox: None,
        groups: Host::current_groups(),
    }
}

/// The CPU's own name.
#[must_use]
pub fn cpu_name() -> String {
    cpuinfo("model name").unwrap_or_else(|| "unknown CPU".to_owned())
}

/// A line of `/proc/cpuinfo`, of the first CPU.
pub(crate) fn cpuinfo(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().to_owned())
}

/// CPUs that we may use.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |number| number.get() as u32)
}

/// Name and release of the kernel.
#[must_use]
pub fn kernel() -> String {
    let part = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    format!("{} {} {}", part("ostype"), part("osrelease"), std::env::consts::ARCH)
}

/// What KVM is here, or why it is not.
#[must_use]
pub fn kvm() -> String {
    match strategies::kvm_support() {
        Support::Full => "KVM".to_owned(),
        Support::Qualified(remark) => remark,
        Support::Missing(why) => format!("no KVM: {why}"),
    }
}

/// The command line, without the folder of the program.
fn command() -> String {
    let arguments = std::env::args_os().skip(1);
    let words = arguments.map(|word| word.to_string_lossy().into_owned());
    std::iter::once("ringside".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
