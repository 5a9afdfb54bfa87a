//! The conformance matrix: every workload under every strategy, each a trial of its own named
//! `strategy/workload`, in a `ringside worker` as the bench starts it.
//!
//! Every run must end with the right result, or as `expectations.toml` states. A strategy that does
//! not work on this host has its trials ignored, with the reason. `cargo test --test conformance
//! trap-and-emulate/` runs the trials of one strategy.

use libtest_mimic::{Arguments, Failed, Trial};
use machine::cpu::CpuModel;
use ringside::guest::Job;
use ringside::process::Stop;
use ringside::strategies::Variant;
use ringside::{expectations, strategies, worker};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use strategy::Support;
use workloads::Workload;

/// The most iterations of a trial: it asks whether the result is right, not how fast.
const ITERATIONS: u32 = 10;

/// For one guest on a host that does other things as well.
const TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let built = Variant::all().filter(|variant| strategies::is_built(variant.id));
    let trials = built.flat_map(trials).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials(variant: Variant) -> Vec<Trial> {
    let support = strategies::support(variant.id);
    if let Support::Missing(why) = &support {
        eprintln!("{variant} does not work here, its trials are ignored: {why}");
    }
    let trial = |workload: Workload| {
        let name = format!("{variant}/{}", workload.name);
        let trial = Trial::test(name, move || run(variant, &workload).map_err(Failed::from));
        trial.with_ignored_flag(!support.is_usable())
    };
    workloads::all().into_iter().map(trial).collect()
}

fn run(variant: Variant, workload: &Workload) -> Result<(), String> {
    let iterations = workload.first_iterations.min(ITERATIONS);
    let image = workload.assemble(iterations).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (guest, disk) = (folder.path().join("guest.bin"), folder.path().join("disk.img"));
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(&guest, &image.bytes)?;
    write(&disk, &workloads::disk_image(image.disk_sectors))?;
    let job = Job {
        workload,
        iterations,
        image: &guest,
        disk: (image.disk_sectors > 0).then_some(disk.as_path()),
        linux: None,
        memory_bytes: workload.memory_bytes,
        cpu: CpuModel::default(),
        timeout: TIMEOUT,
        sandbox: true,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_ringside"));
    let report = worker::start_from(program, variant, &job, &Stop::default());
    let report = report.map_err(|error| format!("{error:#}"))?;
    expectations::check(variant.name(), workload.name, &report, &report.verdict(image.checksum))
}
