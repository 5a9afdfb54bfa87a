//! Privileges: none new, and none kept but the one that mapping page 0 takes.

use super::{Error, Policy};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What there are names for here.
const NAMES: [(CapabilitySet, &str); 1] = [(CapabilitySet::SYS_RAWIO, "CAP_SYS_RAWIO")];

/// No new privileges by executing anything; nobody but root may look inside this process.
pub(super) fn renounce_new() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).map_err(Error::host("PR_SET_NO_NEW_PRIVS"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::host("PR_SET_DUMPABLE"))
}

/// Drops this thread's capabilities; the names of those that it keeps.
pub(super) fn drop_capabilities(policy: &Policy) -> Result<Vec<&'static str>, Error> {
    let held = rustix::thread::capabilities(None).map_err(Error::host("capget"))?;
    let wanted = match policy.native_code {
        true => CapabilitySet::SYS_RAWIO,
        false => CapabilitySet::empty(),
    };
    let kept = held.effective & wanted;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    rustix::thread::clear_ambient_capability_set().map_err(Error::host("PR_CAP_AMBIENT"))?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(Error::host("capset"))?;
    // Last, for the kernel forgets it when credentials change.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Error::host("PR_SET_PDEATHSIG"))?;
    Ok(NAMES.iter().filter(|(set, _)| kept.contains(*set)).map(|&(_, name)| name).collect())
}

fn empty_bounding_set() -> Result<(), Error> {
    for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        // The kernel says EINVAL to those that it does not know.
        if !rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            continue;
        }
        rustix::thread::remove_capability_from_bounding_set(capability)
            .map_err(Error::host("PR_CAPBSET_DROP"))?;
    }
    Ok(())
}
