//! `ringside doctor`: what this host can do, and why not.

use crate::host_info;
use crate::peers::PeerId;
use crate::strategies;
use host::sandbox::Facilities;
use std::fmt::Write;
use strategy::Support;

/// What one line says about a thing.
enum Finding {
    /// It is as it should be.
    Good(String),
    /// It works, but something is to be known.
    Remark(String),
    /// It is missing.
    Bad(String),
}

/// The whole text.
#[must_use]
pub fn text() -> String {
    let mut text = String::new();
    let host = [
        ("CPU", Finding::Good(host_info::cpu_name())),
        ("cores", cores()),
        ("kernel", Finding::Good(host_info::kernel())),
        ("virtualization flags", virtualization_flags()),
        ("hypervisor below", hypervisor()),
        ("FSGSBASE", fsgsbase()),
        ("execute-only memory", execute_only_memory()),
        ("32-bit code", compatibility_mode()),
        ("vm.mmap_min_addr", mmap_min_addr()),
        ("vm.max_map_count", max_map_count()),
        ("temporary files", temporary_files()),
    ];
    section(&mut text, "host", host);
    section(&mut text, "sandbox", sandbox());
    let strategies =
        strategies::ALL.map(|entry| (entry.id.name(), finding(strategies::support(entry.id))));
    section(&mut text, "strategies", strategies);
    let peers = PeerId::ALL.map(|peer| (peer.name(), finding(peer.support())));
    section(&mut text, "peers", peers);
    text
}

fn section<const N: usize>(text: &mut String, title: &str, lines: [(&str, Finding); N]) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{title}");
    for (name, finding) in lines {
        let (mark, words) = match finding {
            Finding::Good(words) => ("ok  ", words),
            Finding::Remark(words) => ("note", words),
            Finding::Bad(words) => ("no  ", words),
        };
        let _ = writeln!(text, "  {mark} {name:<22} {words}");
    }
}

fn finding(support: Support) -> Finding {
    match support {
        Support::Full => Finding::Good("usable".to_owned()),
        Support::Qualified(remark) => Finding::Remark(remark),
        Support::Missing(why) => Finding::Bad(why),
    }
}

fn cores() -> Finding {
    match host_info::cores() {
        1 => Finding::Remark("1: timings are disturbed by everything else that runs".to_owned()),
        number => Finding::Good(number.to_string()),
    }
}

fn has_flag(flag: &str) -> bool {
    host_info::cpuinfo("flags").is_some_and(|flags| flags.split(' ').any(|each| each == flag))
}

fn virtualization_flags() -> Finding {
    match (has_flag("vmx"), has_flag("svm")) {
        (true, _) => Finding::Good("VT-x (vmx)".to_owned()),
        (_, true) => Finding::Good("SVM (svm)".to_owned()),
        _ => Finding::Remark(
            "neither vmx nor svm: if there is KVM, it runs guest kernels in software".to_owned(),
        ),
    }
}

fn hypervisor() -> Finding {
    if has_flag("hypervisor") {
        Finding::Remark(
            "this host is itself a guest: page-table work and faults are dearer than on bare metal"
                .to_owned(),
        )
    } else {
        Finding::Good("none".to_owned())
    }
}

/// What it costs to do without was measured on Zen 4: where the code segment has a base, a jump that is
/// taken takes some 20 cycles.
fn execute_only_memory() -> Finding {
    match host::has_execute_only_memory() {
        true => Finding::Good("yes, by protection keys: code patching shows its copies in place".into()),
        false => Finding::Remark(
            "no protection keys: code patching gives code a segment base, with which jumps are slow on \
             some CPUs (20 cycles on Zen 4)"
                .into(),
        ),
    }
}

fn fsgsbase() -> Finding {
    if has_flag("fsgsbase") {
        Finding::Good("yes: windows change in one instruction".to_owned())
    } else {
        Finding::Bad("no: binary translation changes windows by system calls".to_owned())
    }
}

fn compatibility_mode() -> Finding {
    match host::compatibility::CompatibilityMode::new() {
        Ok(_) => Finding::Good("run natively: compatibility mode and modify_ldt work".to_owned()),
        Err(error) => Finding::Bad(error.to_string()),
    }
}

/// What guests' processes are confined with, and what catches their native code.
fn sandbox() -> [(&'static str, Finding); 5] {
    let found = Facilities::find();
    let needed = |there: bool, what: &str, without: &str| match there {
        true => Finding::Good(what.to_owned()),
        false => Finding::Bad(without.to_owned()),
    };
    let landlock = match found.landlock {
        Some(version @ 6..) => {
            Finding::Good(format!("ABI {version}: files, TCP, sockets, signals"))
        }
        Some(version) => Finding::Remark(format!("ABI {version}: not all that newer kernels have")),
        None => Finding::Remark("none: seccomp alone keeps guests from files".to_owned()),
    };
    [
        (
            "seccomp",
            needed(
                found.seccomp,
                "kills a process for a forbidden system call",
                "none: guests run with --no-sandbox only",
            ),
        ),
        ("Landlock", landlock),
        (
            "no new privileges",
            needed(found.no_new_privileges, "yes", "none: guests run with --no-sandbox only"),
        ),
        (
            "syscall user dispatch",
            needed(
                found.user_dispatch,
                "system calls of native guest code are exits",
                "none (Linux 5.11 has it): guest code cannot run natively",
            ),
        ),
        (
            "RDTSC traps",
            needed(
                found.time_stamp_traps,
                "reads of the time-stamp counter in native guest code are exits",
                "none (PR_SET_TSC): guest code cannot run natively",
            ),
        ),
    ]
}

fn sysctl(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

fn mmap_min_addr() -> Finding {
    match sysctl("vm/mmap_min_addr") {
        Some(0) => Finding::Good("0: the guest's lowest pages can be mapped".to_owned()),
        Some(bytes) => Finding::Remark(format!(
            "{bytes}: without root, the guest's lowest {} KiB are emulated in ring 3",
            bytes.div_ceil(1024)
        )),
        None => Finding::Remark("cannot be read".to_owned()),
    }
}

fn max_map_count() -> Finding {
    match sysctl("vm/max_map_count") {
        Some(count @ 0..65_530) => {
            Finding::Remark(format!("{count}: less than usual; address windows are evicted early"))
        }
        Some(count) => Finding::Good(count.to_string()),
        None => Finding::Remark("cannot be read".to_owned()),
    }
}

fn temporary_files() -> Finding {
    let folder = std::env::temp_dir();
    match tempfile::tempfile_in(&folder) {
        Ok(_) => Finding::Good(folder.display().to_string()),
        Err(error) => Finding::Bad(format!("{} cannot be written: {error}", folder.display())),
    }
}
