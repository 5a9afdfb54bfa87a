//! Whether this host has a usable KVM, and whether there is hardware behind it.

use kvm_ioctls::{Cap, Kvm};
use std::fs;
use strategy::Support;

/// The one version of the interface that was ever released.
const API_VERSION: i32 = 12;

/// What the strategy cannot do without.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
];

/// What this host offers: hardware virtualization through KVM, a KVM that works in software
/// (named), or nothing, with the reason and what would help.
#[must_use]
pub fn support() -> Support {
    match usable_kvm() {
        Ok(()) => {
            let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            match software(&cpuinfo, &modules()) {
                None => Support::Full,
                Some(module) => Support::Qualified(format!("KVM in software: {module}")),
            }
        }
        Err(reason) => Support::Missing(reason),
    }
}

/// Opens KVM and asks for what is needed.
fn usable_kvm() -> Result<(), String> {
    let kvm = Kvm::new().map_err(|error| why_not(error.errno()))?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(format!("KVM speaks version {version} of its interface, not {API_VERSION}"));
    }
    match NEEDED.into_iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
        None => Ok(()),
        Some((_, name)) => Err(format!("this kernel's KVM lacks {name}")),
    }
}

/// Why /dev/kvm could not be opened, and what would help.
fn why_not(errno: i32) -> String {
    match errno {
        libc::ENOENT => "there is no /dev/kvm: load the module kvm_intel or kvm_amd, or switch \
                         virtualization on in the firmware or in the outer hypervisor"
            .into(),
        libc::EACCES | libc::EPERM => "/dev/kvm may not be opened: add the user to the group \
                                       that owns it, usually kvm, and log in again"
            .into(),
        libc::ENXIO | libc::ENODEV => "there is a /dev/kvm but no KVM behind it: load the module \
                                       kvm_intel or kvm_amd"
            .into(),
        _ => format!("/dev/kvm cannot be opened: {}", std::io::Error::from_raw_os_error(errno)),
    }
}

/// The kernel modules whose names begin with `kvm`, built in or loaded.
fn modules() -> Vec<String> {
    let entries = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut modules: Vec<_> = names.filter(|name| name.starts_with("kvm")).collect();
    modules.sort_unstable();
    modules
}

/// The module that does in software what neither of the CPU's features does; none when one of
/// them is there together with its module.
fn software<'a>(cpuinfo: &str, modules: &'a [String]) -> Option<&'a str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let loaded = |module: &str| modules.iter().any(|name| name == module);
    if has("vmx") && loaded("kvm_intel") || has("svm") && loaded("kvm_amd") {
        return None;
    }
    let other = |name: &&String| !["kvm", "kvm_intel", "kvm_amd"].contains(&name.as_str());
    Some(modules.iter().find(other).map_or("unknown module", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(modules: &[&str]) -> Vec<String> {
        modules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hardware_takes_the_flag_and_the_module() {
        let intel = "model\t: 85\nflags\t\t: fpu vmx sse\n";
        assert_eq!(software(intel, &named(&["kvm", "kvm_intel"])), None);
        assert_eq!(software("flags : svm", &named(&["kvm", "kvm_amd"])), None);
        assert_eq!(software(intel, &named(&["kvm", "kvm_amd", "kvm_pvm"])), Some("kvm_pvm"));
    }

    #[test]
    fn a_module_in_software_is_named() {
        let cloud = "flags\t\t: fpu vme hypervisor svm_lock\n";
        assert_eq!(software(cloud, &named(&["kvm", "kvm_pvm"])), Some("kvm_pvm"));
        assert_eq!(software(cloud, &named(&["kvm"])), Some("unknown module"));
    }

    #[test]
    fn each_refusal_says_what_would_help() {
        assert!(why_not(libc::EACCES).contains("group"));
        assert!(why_not(libc::ENOENT).contains("kvm_intel"));
        assert!(why_not(libc::EMFILE).contains("open files"));
    }
}
