//! An exit's round trip in each strategy: a port read, and an access to device memory.

use benches::{endless, guest};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use strategy::{ExitKind, Limit, Strategy, Support};

/// Runs the guest in slices until it has made `wanted` exits, and returns the time that many take.
fn time_exits(strategy: &mut dyn Strategy, code: &[u8], kind: ExitKind, wanted: u64) -> Duration {
    let mut machine = guest(&endless(code));
    let mut spent = Duration::ZERO;
    let first = strategy.exits().get(kind);
    loop {
        let start = Instant::now();
        let slice = Limit { instructions: Some(wanted.max(64)), deadline: None };
        strategy.run(&mut machine, &slice).expect("the strategy runs");
        spent += start.elapsed();
        let made = strategy.exits().get(kind) - first;
        if made >= wanted {
            return spent.mul_f64(wanted as f64 / made as f64);
        }
    }
}

type Make = fn() -> Option<Box<dyn Strategy>>;

/// Name, what is supported, how one is made.
fn strategies() -> Vec<(&'static str, Support, Make)> {
    vec![
        ("interpretation", interpretation::support(), || {
            Some(Box::new(interpretation::Interpretation::new()))
        }),
        ("hardware-assist", hardware_assist::support(), || {
            Some(Box::new(hardware_assist::HardwareAssist::new().ok()?))
        }),
    ]
}

fn exits(criterion: &mut Criterion) {
    let kinds: [(&str, &[u8], ExitKind); 2] = [
        ("port read", &[0xe4, 0x80], ExitKind::PortIo), // in al, 0x80
        ("device read", &[0xa0, 0, 0x80, 0x0b, 0], ExitKind::Mmio), // mov al, [0xb8000]
    ];
    for (name, code, kind) in kinds {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for (strategy, support, make) in strategies() {
            if let Support::Missing(reason) = &support {
                println!("{strategy}: not measured: {reason}");
                continue;
            }
            let label = match support.qualification() {
                Some(remark) => format!("{strategy} ({remark})"),
                None => strategy.to_owned(),
            };
            group.bench_function(label, |bencher| {
                bencher.iter_custom(|wanted| match make() {
                    Some(mut strategy) => time_exits(&mut *strategy, code, kind, wanted),
                    None => Duration::ZERO,
                });
            });
        }
        group.finish();
    }
}

criterion_group!(all, exits);
criterion_main!(all);
