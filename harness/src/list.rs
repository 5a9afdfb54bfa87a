//! `ringside list`: everything that can be named on the command line and in TOML.

use crate::peers::PeerId;
use crate::strategies;
use machine::cpu::CpuModel;
use std::fmt::Write;
use strategy::Support;
use workloads::Group;

/// The whole text.
#[must_use]
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_lists(&mut text);
    text
}

fn write_lists(text: &mut String) -> std::fmt::Result {
    writeln!(text, "strategies")?;
    for entry in &strategies::ALL {
        let support = in_words(&strategies::support(entry.id));
        writeln!(text, "  {:<26} {} [{}]{support}", entry.id, entry.summary, entry.history)?;
        for named in strategies::NAMED.iter().filter(|named| named.id == entry.id) {
            writeln!(text, "  {:<26} {}{support}", named.name, named.summary)?;
        }
    }
    writeln!(text, "\npeers")?;
    for peer in PeerId::ALL {
        writeln!(text, "  {:<26} {}{}", peer.name(), peer.summary(), in_words(&peer.support()))?;
    }
    let workloads = workloads::known();
    for group in Group::ALL {
        let missing = match group {
            Group::Linux => workloads::linux::Installed::find().err(),
            _ => None,
        };
        let remark = missing.map_or(String::new(), |why| format!(" ({why})"));
        writeln!(text, "\nworkloads of the group {}{remark}", group.name())?;
        for workload in workloads.iter().filter(|workload| workload.group == group) {
            writeln!(text, "  {:<26} {}", workload.name, workload.summary)?;
        }
    }
    let models = CpuModel::ALL.map(CpuModel::name).join(", ");
    writeln!(text, "\nCPU models\n  {models} (the default is {})", CpuModel::default())
}

/// What is to be known about using it here, as the end of a line.
fn in_words(support: &Support) -> String {
    match support {
        Support::Full => String::new(),
        Support::Qualified(remark) => format!(" ({remark})"),
        Support::Missing(why) => format!(" (not usable: {why})"),
    }
}
