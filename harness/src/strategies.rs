//! The one list that names all strategies: how each is made and what it needs of the host.

mod variant;

pub use variant::{NAMED, Named, Options, Variant};

use host::sandbox::{self, Policy, Prepared, Sandbox};
use machine::Machine;
use strategy::{Error, Strategy, StrategyId, Support};

/// A strategy, as the list knows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub id: StrategyId,
    /// One line about it.
    pub summary: &'static str,
    /// Who did it so.
    pub history: &'static str,
    /// How it is made, where it is built into this version.
    built: Option<Built>,
}

#[derive(Clone, Copy, Debug)]
struct Built {
    /// What its guests' processes are left with.
    policy: Policy,
    support: fn() -> Support,
    make: Make,
    /// Where guests can go wrong by design: how to find out at which instruction they do.
    watch: Option<Watch>,
    /// Whether its guests read the time-stamp counter through the machine's tap, so that what they
    /// read can be recorded.
    records_time: bool,
    /// The same with an error, for tests of what finds errors.
    planted: Option<Make>,
}

/// Makes a strategy, ready to run guests.
type Make = fn(&Options) -> Result<Box<dyn Strategy>, Error>;

/// Runs a guest for at most so many instructions and tells in a sentence at which it left the
/// architecture, if it did.
type Watch = fn(&mut Machine, u64) -> Result<Option<String>, Error>;

/// All strategies, in the order in which they are shown.
pub const ALL: [Entry; StrategyId::ALL.len()] = [
    Entry {
        id: StrategyId::Interpretation,
        summary: "decode and execute every instruction in software; the reference",
        history: "Bochs",
        built: Some(Built {
            policy: Policy::SOFTWARE,
            support: interpretation::support,
            make: |_| Ok(Box::new(interpretation::Interpretation::new())),
            watch: None,
            records_time: true,
            planted: None,
        }),
    },
    Entry {
        id: StrategyId::TrapAndEmulate,
        summary: "run natively in ring 3 and emulate what traps; the rest goes wrong",
        history: "Popek & Goldberg 1974",
        built: Some(Built {
            policy: Policy::NATIVE,
            support: trap_and_emulate::support,
            make: |_| Ok(Box::new(trap_and_emulate::TrapAndEmulate::new())),
            watch: Some(watch_native),
            records_time: true,
            planted: None,
        }),
    },
    Entry {
        id: StrategyId::CodePatching,
        summary: "as above, with critical sequences of the kernel rewritten",
        history: "Connectix Virtual PC, VirtualBox",
        built: Some(Built {
            policy: Policy::NATIVE,
            support: code_patching::support,
            make: |options| Ok(Box::new(code_patching::CodePatching::new(options.code_patching)?)),
            watch: None,
            records_time: true,
            planted: None,
        }),
    },
    Entry {
        id: StrategyId::BinaryTranslation,
        summary: "translate the guest's code into a cache and run that",
        history: "VMware Workstation (Adams & Agesen 2006)",
        built: Some(Built {
            policy: Policy::NATIVE,
            support: binary_translation::support,
            make: |options| {
                let options = options.binary_translation;
                Ok(Box::new(binary_translation::BinaryTranslation::with_options(options)?))
            },
            watch: None,
            records_time: true,
            planted: Some(|_| {
                Ok(Box::new(binary_translation::BinaryTranslation::with_planted_error()?))
            }),
        }),
    },
    Entry {
        id: StrategyId::HardwareAssist,
        summary: "leave it to the CPU, through KVM",
        history: "VT-x, SVM",
        built: Some(Built {
            policy: Policy::KVM,
            support: hardware_assist::support,
            make: |_| Ok(Box::new(hardware_assist::HardwareAssist::new()?)),
            watch: None,
            // KVM lets guests read the host's counter without an exit.
            records_time: false,
            planted: None,
        }),
    },
];

/// The watch for guests whose own bytes run in ring 3.
fn watch_native(machine: &mut Machine, most: u64) -> Result<Option<String>, Error> {
    let found = trap_and_emulate::TrapAndEmulate::new().watch(machine, most)?;
    Ok(found.map(|divergence| divergence.to_string()))
}

/// The watch for guests whose ring 3 alone runs natively.
fn watch_native_user(machine: &mut Machine, most: u64) -> Result<Option<String>, Error> {
    let found = binary_translation::BinaryTranslation::watch(machine, most)?;
    Ok(found.map(|divergence| divergence.to_string()))
}

fn built(id: StrategyId) -> Option<Built> {
    ALL.iter().find(|entry| entry.id == id).and_then(|entry| entry.built)
}

/// Whether the strategy is built into this version.
#[must_use]
pub fn is_built(id: StrategyId) -> bool {
    built(id).is_some()
}

/// What the strategy finds on this host.
#[must_use]
pub fn support(id: StrategyId) -> Support {
    match built(id) {
        Some(built) => (built.support)(),
        None => Support::Missing("not built into this version".to_owned()),
    }
}

/// Whether a strategy has only a substitute in software for the hardware that it is made for.
#[must_use]
pub fn is_substituted(id: StrategyId) -> bool {
    id == StrategyId::HardwareAssist && matches!(support(id), Support::Qualified(_))
}

/// The strategy, ready to run guests.
///
/// # Errors
/// When it cannot work on this host or is not built into this version.
pub fn make(variant: impl Into<Variant>) -> Result<Box<dyn Strategy>, Error> {
    let variant = variant.into();
    match built(variant.id) {
        Some(built) => (built.make)(variant.options()),
        None => Err(Error::Unsupported {
            strategy: variant.id,
            reason: "not built into this version".to_owned(),
        }),
    }
}

/// The strategy with an error in it, if it has one for tests.
///
/// # Errors
/// As [`make`].
pub fn make_with_planted_error(id: StrategyId) -> Result<Box<dyn Strategy>, Error> {
    match built(id).and_then(|built| built.planted) {
        Some(planted) => planted(&Options::default()),
        None => Err(Error::Unsupported {
            strategy: id,
            reason: "no error was planted into it".to_owned(),
        }),
    }
}

/// Whether the strategy can tell where a guest left the architecture.
#[must_use]
pub fn can_watch(variant: impl Into<Variant>) -> bool {
    watch_of(variant.into()).is_some()
}

fn watch_of(variant: Variant) -> Option<Watch> {
    match variant.named() {
        Some(named) => named.watch,
        None => built(variant.id)?.watch,
    }
}

/// Whether what the strategy's guests read from the time-stamp counter can be recorded.
#[must_use]
pub fn records_time(id: StrategyId) -> bool {
    built(id).is_some_and(|built| built.records_time)
}

/// Where a guest leaves the architecture within `most` instructions under the strategy, in a
/// sentence, as far as that can be told.
///
/// # Errors
/// When the host fails.
pub fn watch(
    variant: impl Into<Variant>,
    machine: &mut Machine,
    most: u64,
) -> Result<Option<String>, Error> {
    match watch_of(variant.into()) {
        Some(watch) => watch(machine, most),
        None => Ok(None),
    }
}

/// What the process of a guest is left with under the strategy.
#[must_use]
pub fn policy(id: StrategyId) -> Policy {
    built(id).map_or(Policy::SOFTWARE, |built| built.policy)
}

/// What the process of a guest is left with that runs under all of these in turn.
#[must_use]
pub fn joint_policy(ids: &[StrategyId]) -> Policy {
    let policies: Vec<_> = ids.iter().map(|&id| policy(id)).collect();
    Policy {
        native_code: policies.iter().any(|policy| policy.native_code),
        kvm: policies.iter().any(|policy| policy.kvm),
        ..Policy::SOFTWARE
    }
}

/// Takes the rights from this process that a guest does not need; the filter is still to be put over
/// it. All that opens files comes before: the machine, the strategy.
///
/// # Errors
/// When the host cannot confine it.
pub fn confine(policy: &Policy) -> Result<Prepared, sandbox::Error> {
    emulator::prepare();
    Sandbox::prepare(policy)
}

/// What KVM is on this host.
#[must_use]
pub fn kvm_support() -> Support {
    support(StrategyId::HardwareAssist)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_stands_in_the_list_in_its_place() {
        assert_eq!(ALL.map(|entry| entry.id), StrategyId::ALL);
    }

    #[test]
    fn what_is_made_is_what_was_asked_for() {
        for variant in Variant::all().filter(|variant| support(variant.id).is_usable()) {
            assert_eq!(make(variant).map(|made| made.id()).ok(), Some(variant.id));
        }
    }
}
