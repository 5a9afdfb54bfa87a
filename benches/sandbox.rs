//! What the sandbox costs a guest's start: entering it, and a process that ends at once with it and
//! without. Each is a process of its own, this program run again.

use criterion::{Criterion, criterion_group};
use host::sandbox::{Policy, Sandbox};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the program that it is a guest's process, and which.
const ROLE: &str = "RINGSIDE_BENCH_SANDBOX";

/// Policies by name.
const POLICIES: [(&str, Policy); 3] =
    [("software", Policy::SOFTWARE), ("native code", Policy::NATIVE), ("KVM", Policy::KVM)];

fn main() {
    match std::env::var(ROLE) {
        Ok(role) => guest(&role),
        Err(_) => {
            all();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}

/// A guest's process: enters, and says how long that took in nanoseconds.
fn guest(role: &str) {
    let policy = POLICIES.iter().find(|(name, _)| *name == role);
    let begin = Instant::now();
    if let Some((_, policy)) = policy {
        Sandbox::enter(policy).expect("this host can confine a process");
    }
    println!("{}", begin.elapsed().as_nanos());
}

/// Starts a guest's process and waits for its end; what it said.
fn start(role: &str) -> Duration {
    let program = std::env::current_exe().expect("this program has a file");
    let output = Command::new(program)
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("a process can be started");
    assert!(output.status.success(), "{role}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Duration::from_nanos(text.trim().parse().expect("it says how long it took"))
}

fn entering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sandbox/enter");
    for (role, _) in POLICIES {
        group.bench_function(role, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| start(role)).sum());
        });
    }
    group.finish();
}

fn processes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sandbox/process");
    for role in ["none", "native code"] {
        group.bench_function(role, |bencher| bencher.iter(|| start(role)));
    }
    group.finish();
}

criterion_group!(all, entering, processes);
