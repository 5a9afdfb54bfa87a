//! What an experiment measures: one of our strategies, or a peer.

use super::suggest;
use crate::peers::PeerId;
use crate::strategies::{self, Options, Variant};
use std::time::Duration;
use strategy::StrategyId;
use workloads::Workload;

/// One row of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A strategy of ours, with its options.
    Strategy(Variant),
    /// Another program that runs the same image.
    Peer(PeerId),
}

impl Target {
    /// The name in CSV files and plots.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::Strategy(variant) => variant.name(),
            Target::Peer(id) => id.name(),
        }
    }

    /// What is to be known about its options that its name does not say.
    #[must_use]
    pub fn remark(self) -> Option<String> {
        match self {
            Target::Strategy(variant) => variant.remark(),
            Target::Peer(_) => None,
        }
    }

    /// What its clock cannot tell from no time at all.
    #[must_use]
    pub fn resolution(self) -> Duration {
        match self {
            Target::Strategy(_) => Duration::ZERO,
            Target::Peer(id) => id.resolution(),
        }
    }

    /// Whether the workload is one for it.
    #[must_use]
    pub fn runs(self, workload: &Workload) -> bool {
        match self {
            Target::Strategy(_) => true,
            Target::Peer(id) => id.runs(workload),
        }
    }
}

/// The strategy, or the named setting of one, called `name`; what the name leaves open is as in
/// `options`.
pub(crate) fn variant(name: &str, options: &Options) -> Result<Variant, String> {
    let found = Variant::find(name, options).ok_or_else(|| {
        let known: Vec<&str> = Variant::all().map(Variant::name).collect();
        suggest::unknown("strategy", name, &known)
    })?;
    built(found.id).map(|_| found)
}

fn built(id: StrategyId) -> Result<StrategyId, String> {
    if strategies::is_built(id) {
        Ok(id)
    } else {
        let name = id.name();
        Err(format!("strategy {name:?} is not built into this version of ringside"))
    }
}

/// The peer called `name`.
pub(super) fn peer(name: &str) -> Result<PeerId, String> {
    let known = PeerId::ALL.map(PeerId::name);
    let id = PeerId::ALL.into_iter().find(|id| id.name() == name);
    id.ok_or_else(|| suggest::unknown("peer", name, &known))
}
