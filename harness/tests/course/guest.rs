//! A workload in a folder of its own, run by the program.

use ringside::strategies;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use strategy::{StrategyId, Support};
use tempfile::TempDir;

/// A workload that is ready to run.
pub(crate) struct Guest {
    folder: TempDir,
    memory: String,
    strategy: StrategyId,
    has_disk: bool,
    checksum: u32,
}

impl Guest {
    pub(crate) fn new(name: &str, iterations: u32, strategy: StrategyId) -> Guest {
        let all = workloads::all();
        let workload = all.iter().find(|workload| workload.name == name).expect("a workload");
        let image = workload.assemble(iterations).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("guest.bin"), &image.bytes).unwrap();
        if image.disk_sectors > 0 {
            let disk = workloads::disk_image(image.disk_sectors);
            std::fs::write(folder.path().join("guest.disk"), disk).unwrap();
        }
        Guest {
            folder,
            memory: workload.memory_bytes.to_string(),
            strategy,
            has_disk: image.disk_sectors > 0,
            checksum: image.checksum,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Boots the guest under its strategy, with its report on the standard error.
    pub(crate) fn run(&self, options: &[&str]) -> Output {
        let own = ["--strategy", self.strategy.name(), "--debug-console"];
        self.run_plain(&[&own[..], options].concat())
    }

    /// The same, and does not wait.
    pub(crate) fn start(&self, options: &[&str]) -> Child {
        let own = ["--strategy", self.strategy.name(), "--kernel", "guest.bin"];
        let mut command = command(self.folder(), &[&own[..], options].concat());
        command.args(["--memory", &self.memory]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The same under no strategy in particular.
    pub(crate) fn run_plain(&self, options: &[&str]) -> Output {
        let mut own = vec!["--kernel", "guest.bin", "--memory", &self.memory];
        if self.has_disk {
            own.extend(["--disk", "guest.disk", "--disk-read-only"]);
        }
        run(self.folder(), &[&own[..], options].concat())
    }

    /// Files in the folder that are not the guest's.
    pub(crate) fn others(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder()).unwrap();
        let names = names.map(|entry| PathBuf::from(entry.unwrap().file_name()));
        let others = names.filter(|name| name.file_stem().is_none_or(|stem| stem != "guest"));
        let mut others: Vec<_> = others.map(|name| name.display().to_string()).collect();
        others.sort();
        others
    }
}

/// `ringside run` with these options.
pub(crate) fn run(folder: &Path, options: &[&str]) -> Output {
    command(folder, options).output().unwrap()
}

fn command(folder: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.arg("run").args(options).current_dir(folder).stdin(Stdio::null());
    command.env("RINGSIDE_LOG", "debug");
    command
}

/// The guest must have ended by itself, with its checksum.
#[track_caller]
pub(crate) fn ended_well(output: &Output, guest: &Guest, what: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    let expected = format!("result {:08x}", guest.checksum);
    assert!(said.to_lowercase().contains(&expected), "{what}: no {expected:?} in {said}");
}

/// The last state that the program has told of.
#[track_caller]
pub(crate) fn state(output: &Output) -> String {
    let said = text(&output.stderr);
    // The guest's own words may stand before it in the line.
    let line = said.lines().find_map(|line| line.split_once("ringside: final state "));
    line.unwrap_or_else(|| panic!("no state in {said}")).1.to_owned()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The strategies that work on this host; says which do not.
pub(crate) fn usable() -> Vec<StrategyId> {
    let works = |id: &StrategyId| match strategies::support(*id) {
        Support::Missing(why) => {
            eprintln!("{id} does not work here and is left out: {why}");
            false
        }
        Support::Full | Support::Qualified(_) => true,
    };
    StrategyId::ALL.into_iter().filter(|&id| strategies::is_built(id)).filter(works).collect()
}
