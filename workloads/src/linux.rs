//! Debian's Linux as a guest: a kernel that other people built, and a fixed list of work in it.
//!
//! Nothing of it is part of this crate: the script `workloads/linux/install` fetches it. One boot
//! does all items that are asked for, one after another, each between marks
//! ([`protocol`](crate::protocol)); so one run gives a time for each of these workloads.

use crate::{Error, Group, Image, Workload};
use std::path::PathBuf;

/// What to do where it is not installed.
pub const INSTALL: &str = "not installed: run workloads/linux/install";

/// The variable that names the folder with the installed files, where it is not beside the script.
const FOLDER_VARIABLE: &str = "RINGSIDE_LINUX";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/linux/guest");

/// Memory of the guest: 48 MiB are enough to boot.
const MEMORY_BYTES: u64 = 128 << 20;

/// No ACPI tables, no APIC: the machine has none.
const COMMAND_LINE: &str = "console=ttyS0 noapic nolapic acpi=off";

/// What of a run is a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// From the start of the monitor's process to the first process of the guest.
    Boot,
    /// One item of the list.
    Item {
        /// Its name in the guest.
        name: &'static str,
        /// What it must come to.
        checksum: u32,
    },
    /// All items together.
    List,
}

const PARTS: [(&str, &str, Part); 9] = [
    ("linux-boot", "Debian's kernel, from the monitor's start to the first process", Part::Boot),
    ("linux-fork", "200 times fork, exec and wait", item("fork", 0xc1ba_58b0)),
    ("linux-shell", "a loop of 20,000 rounds in the shell", item("shell", 0xfb31_e103)),
    ("linux-md5sum", "MD5 of 16 MiB that come through a pipe", item("md5sum", 0x04a9_50da)),
    ("linux-sort", "sort 20,000 numbers", item("sort", 0x74d7_c05a)),
    ("linux-gzip", "compress and unpack 200 KiB of numbers", item("gzip", 0xa07b_3efa)),
    ("linux-dd", "copy 50,000 bytes one by one: 100,000 system calls", item("dd", 0x2ebd_3caa)),
    ("linux-awk", "primes, text and a regular expression in awk", item("awk", 0xf9ba_1326)),
    ("linux-list", "all of the list together, without the boot", Part::List),
];

const fn item(name: &'static str, checksum: u32) -> Part {
    Part::Item { name, checksum }
}

/// All of these workloads, in the order in which one boot does them.
#[must_use]
pub fn all() -> Vec<Workload> {
    let workload = |&(name, summary, _): &(&'static str, &'static str, Part)| Workload {
        name,
        group: Group::Linux,
        summary,
        memory_bytes: MEMORY_BYTES,
        first_iterations: 1,
        assemble: not_assembled,
    };
    PARTS.iter().map(workload).collect()
}

fn not_assembled(_iterations: u32) -> Result<Image, Error> {
    Err(Error { workload: "linux", reason: "it is installed, not assembled".to_owned() })
}

/// Which part of a run the workload is, if it is one of these.
#[must_use]
pub fn part(workload: &Workload) -> Option<Part> {
    PARTS.iter().find(|(name, ..)| *name == workload.name).map(|&(.., part)| part)
}

/// The items of the list with what they must come to, in order.
pub fn items() -> impl Iterator<Item = (&'static str, u32)> {
    PARTS.iter().filter_map(|&(.., part)| match part {
        Part::Item { name, checksum } => Some((name, checksum)),
        Part::Boot | Part::List => None,
    })
}

/// The installed files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    /// The bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

impl Installed {
    /// Looks for them.
    ///
    /// # Errors
    /// When they are not there: how to install them.
    pub fn find() -> Result<Installed, String> {
        let folder = std::env::var_os(FOLDER_VARIABLE).map_or(FOLDER.into(), PathBuf::from);
        // The script writes this file last.
        if !folder.join("packages").is_file() {
            return Err(INSTALL.to_owned());
        }
        Ok(Installed { kernel: folder.join("vmlinuz-686"), initrd: folder.join("initrd-686.gz") })
    }
}

/// The kernel's command line for a run that does the named items and leaves by the exit port.
#[must_use]
pub fn command_line(items: &[&str]) -> String {
    let work = if items.is_empty() { "nothing".to_owned() } else { items.join(",") };
    format!("{COMMAND_LINE} work={work} exit=port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_its_part_and_every_item_its_workload() {
        assert!(all().iter().all(|workload| part(workload).is_some()));
        assert!(crate::all().iter().all(|workload| part(workload).is_none()));
        assert_eq!(items().count(), PARTS.len() - 2);
    }

    #[test]
    fn the_guest_knows_the_items() {
        let script = include_str!("../linux/work");
        let names: Vec<&str> = items().map(|(name, _)| name).collect();
        assert!(script.contains(&format!("ALL={}\n", names.join(","))));
    }

    #[test]
    fn the_command_line_names_the_work() {
        assert!(command_line(&["fork", "dd"]).ends_with(" work=fork,dd exit=port"));
        assert!(command_line(&[]).contains(" work=nothing "));
    }
}
