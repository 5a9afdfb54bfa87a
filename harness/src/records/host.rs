//! `host.toml`: where and with what a run was made, and how its strategies are labelled.

use super::{Error, HOST};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Where and with what a run was made. Written once, before the first sample.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// The version of this program.
    pub ringside: String,
    /// When the run began, such as `2026-11-22 19:30 UTC`.
    pub date: String,
    /// The CPU's own name.
    pub cpu: String,
    /// CPUs that the run may use.
    pub cores: u32,
    /// Name and release of the host's kernel.
    pub kernel: String,
    /// What KVM is here: `KVM in software: kvm_pvm`, `VT-x`, `SVM`, or why it is missing.
    pub kvm: String,
    /// The version of QEMU, where it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// The command line that made the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// `off` where guests ran in processes that were not confined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The strategy or peer that slowdowns are relative to. See [`super::Run::baseline`] for the
    /// choice where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// What stands in tables and plots for a strategy or peer, such as
    /// `hardware-assist (KVM in software: kvm_pvm)`. Its own name where there is nothing.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The groups of the workloads, both in the order in which they are shown.
    #[serde(default)]
    pub groups: Vec<GroupList>,
}

/// A group of workloads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupList {
    /// The name of the group.
    pub name: String,
    /// Its workloads.
    pub workloads: Vec<String>,
}

impl Host {
    /// Reads `host.toml` in a run's folder.
    ///
    /// # Errors
    /// When it is not there or is no such file.
    pub fn load(dir: &Path) -> Result<Host, Error> {
        let path = dir.join(HOST);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| Error::File { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            Error::Format {
                path,
                line: text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() as u64
                    + 1,
                reason: error.message().to_owned(),
                expected: "the description of a host".to_owned(),
            }
        })
    }

    /// Writes `host.toml` into a run's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(HOST);
        let text = toml::to_string(self).map_err(|error| Error::Format {
            path: path.clone(),
            line: 0,
            reason: error.to_string(),
            expected: "values that TOML can hold".to_owned(),
        })?;
        std::fs::write(&path, text).map_err(|source| Error::File { path, source })
    }

    /// The groups of the workloads of this build, for [`Host::groups`].
    #[must_use]
    pub fn current_groups() -> Vec<GroupList> {
        let all = workloads::known();
        let names = |group| all.iter().filter(move |w| w.group == group).map(|w| w.name.to_owned());
        workloads::Group::ALL
            .into_iter()
            .map(|group| GroupList {
                name: group.name().to_owned(),
                workloads: names(group).collect(),
            })
            .collect()
    }

    /// One line that names the host under a figure.
    #[must_use]
    pub fn caption(&self) -> String {
        let mut parts = vec![
            format!("{}, {} cores", self.cpu, self.cores),
            self.kernel.clone(),
            self.kvm.clone(),
        ];
        parts.extend(self.qemu.clone());
        parts.extend(self.sandbox.as_ref().map(|state| format!("sandbox {state}")));
        parts.push(format!("ringside {}", self.ringside));
        parts.push(self.date.clone());
        parts.retain(|part| !part.is_empty());
        parts.join(" · ")
    }
}
