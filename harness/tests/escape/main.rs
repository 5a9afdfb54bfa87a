//! Guests that break out of compatibility mode, and what they get from it: nothing.
//!
//! `trap-and-emulate` cannot keep a guest from `ljmp $0x33`, after which it is 64-bit code in the
//! monitor's process. Each trial is such a guest with one attempt, run as the bench runs guests; it
//! states how the run must be reported and what stopped the attempt. After each, a file of earlier
//! results is as it was, and a well-behaved guest runs.
//!
//! System calls from the guest's own memory are stopped by syscall user dispatch already. A real
//! attacker would find the monitor's code and call from there; finding it takes a leak of addresses,
//! and here the guest is given one: this program is its own worker, and writes the addresses of the C
//! library, of thread-local storage and of the stack into the guest's memory. A control without the
//! sandbox shows that the attempts are real ones.

mod attempts;
mod guest;
mod leak;

use attempts::{Attempt, By, Calls};
use libtest_mimic::{Arguments, Failed, Trial};
use machine::cpu::CpuModel;
use ringside::guest::{Job, Report, Verdict};
use ringside::process::Stop;
use ringside::records::Outcome;
use ringside::{strategies, worker};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use strategy::StrategyId;

/// What the file of earlier results holds.
const RESULTS: &str = "strategy,workload,sample,iterations,seconds,outcome\n";

/// The checksum that the guests have to report.
const CHECKSUM: u32 = 42;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "worker") {
        return leak::worker_main();
    }
    let arguments = Arguments::from_args();
    let usable = strategies::support(StrategyId::TrapAndEmulate).is_usable();
    let trials = attempts::all().into_iter().map(|attempt| {
        let name = format!("escape/{}", attempt.name);
        Trial::test(name, move || confined(&attempt).map_err(Failed::from))
            .with_ignored_flag(!usable)
    });
    let control = Trial::test("without the sandbox a file can be made", || {
        unconfined().map_err(Failed::from)
    });
    let trials = trials.chain([control.with_ignored_flag(!usable)]).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A folder with earlier results, and the guest's image beside them.
struct Scene {
    _folder: tempfile::TempDir,
    results: PathBuf,
    made: PathBuf,
    image: PathBuf,
}

impl Scene {
    fn new() -> Result<Scene, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |name: &str| folder.path().join(name);
        let (results, made, image) = (path("samples.csv"), path("made"), path("guest.bin"));
        std::fs::write(&results, RESULTS).map_err(|error| error.to_string())?;
        Ok(Scene { _folder: folder, results, made, image })
    }

    fn run(&self, code: &[u8], calls: Calls, sandbox: bool) -> Result<Report, String> {
        std::fs::write(&self.image, code).map_err(|error| error.to_string())?;
        let program = match calls {
            Calls::FromItsOwnMemory => PathBuf::from(env!("CARGO_BIN_EXE_ringside")),
            Calls::ByTheMonitor => std::env::current_exe().map_err(|error| error.to_string())?,
        };
        let all = workloads::all();
        let job = Job {
            // Only the native peer asks which.
            workload: &all[0],
            iterations: 1,
            image: &self.image,
            disk: None,
            linux: None,
            memory_bytes: 16 << 20,
            cpu: CpuModel::default(),
            timeout: Duration::from_secs(2),
            sandbox,
        };
        worker::start_from(Path::new(&program), StrategyId::TrapAndEmulate, &job, &Stop::default())
            .map_err(|error| format!("{error:#}"))
    }
}

/// One attempt, which must fail as it says, and leave everything else as it was.
fn confined(attempt: &Attempt) -> Result<(), String> {
    let scene = Scene::new()?;
    let code = attempt.image(&scene.results, &scene.made);
    let verdict = scene.run(&code, attempt.calls, true)?.verdict(CHECKSUM);
    println!(
        "{:<44} {:<28} {:?}: {}",
        attempt.name,
        attempt.by.words(),
        verdict.outcome,
        verdict.detail
    );
    judge(attempt.by, &verdict)?;
    match std::fs::read_to_string(&scene.results) {
        Ok(text) if text == RESULTS => {}
        other => return Err(format!("the earlier results are now {other:?}")),
    }
    if scene.made.exists() {
        return Err("a file was made".to_owned());
    }
    let after = scene.run(&guest::well_behaved(CHECKSUM), attempt.calls, true)?.verdict(CHECKSUM);
    match after.outcome {
        Outcome::Ok => Ok(()),
        _ => Err(format!("the guest after it: {after:?}")),
    }
}

fn judge(by: By, verdict: &Verdict) -> Result<(), String> {
    let (outcome, words) = by.expected();
    let printable = !verdict.detail.chars().any(char::is_control);
    if verdict.outcome == outcome
        && verdict.seconds.is_none()
        && printable
        && words.iter().all(|word| verdict.detail.contains(word))
    {
        return Ok(());
    }
    Err(format!("expected {outcome:?} with {words:?}: {verdict:?}"))
}

/// The control: the same code makes a file where nothing confines its process.
fn unconfined() -> Result<(), String> {
    let scene = Scene::new()?;
    let attempt = attempts::make_a_file();
    let code = attempt.image(&scene.results, &scene.made);
    let verdict = scene.run(&code, attempt.calls, false)?.verdict(CHECKSUM);
    println!(
        "{:<44} {:<28} {:?}: {}",
        "without the sandbox", "nothing", verdict.outcome, verdict.detail
    );
    match scene.made.exists() {
        true => Ok(()),
        false => Err(format!("no file was made: {verdict:?}")),
    }
}
