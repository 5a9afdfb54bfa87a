//! What every way of virtualizing the CPU has in common: the trait, its limits and stops, the list
//! of exit kinds, and what a host supports.

mod counters;
mod exits;
mod id;
mod limit;
mod support;

pub use exits::{ExitCounts, ExitKind};
pub use id::StrategyId;
pub use limit::{Limit, Stop};
pub use support::Support;

use machine::Machine;
use std::ops::Range;

/// One way of running a guest CPU.
pub trait Strategy {
    /// Which one it is.
    fn id(&self) -> StrategyId;

    /// Runs the guest until it stops or the limit is reached. When this returns, `machine` holds
    /// the whole architectural state, so any other strategy can carry on from there.
    ///
    /// # Errors
    /// When the host fails; never for what the guest does.
    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error>;

    /// Control transfers from guest execution to the monitor, by kind.
    fn exits(&self) -> &ExitCounts;

    /// The ranges of linear addresses that the strategy uses for itself now because the guest has nothing
    /// there. A guest that goes there all the same may see it.
    fn taken(&self) -> Vec<Range<u64>> {
        Vec::new()
    }
}

/// A failure of the host while a strategy ran.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The strategy cannot work on this host.
    #[error("{strategy} is not supported here: {reason}")]
    Unsupported {
        /// Which strategy.
        strategy: StrategyId,
        /// Why not.
        reason: String,
    },
    /// A host facility failed.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
    /// The hypervisor reported a state that should not occur.
    #[error("{what}, with the guest at {address}")]
    Hypervisor {
        /// What it reported.
        what: String,
        /// The guest's linear instruction address.
        address: machine::LinearAddress,
    },
    /// The guest has executed what neither traps nor can be undone, as is stated of the strategy.
    #[error("{what} has lost the guest's EIP; native code was entered last at {address}")]
    Lost {
        /// Which instruction.
        what: &'static str,
        /// The linear address at which the guest's code was entered last.
        address: machine::LinearAddress,
    },
}
