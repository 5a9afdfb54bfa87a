//! Page walks: a load that misses the translation look-aside buffer, against one that hits.

use benches::{endless, guest, switch_paging_on};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use emulator::Emulator;

fn walks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    let mut machine = guest(&endless(&[0x8b, 0x03])); // mov eax, [ebx]
    switch_paging_on(&mut machine);
    let mut emulator = Emulator::new();
    group.bench_function("translation cached", |bencher| {
        bencher.iter(|| emulator.run(&mut machine, 1));
    });
    // Each time the code's page and the data's page are walked.
    group.bench_function("two page walks", |bencher| {
        bencher.iter(|| {
            machine.tlb.flush();
            emulator.run(&mut machine, 1)
        });
    });
    group.finish();
}

fn flushes(criterion: &mut Criterion) {
    let mut machine = guest(&endless(&[0x90]));
    switch_paging_on(&mut machine);
    let mut emulator = Emulator::new();
    let mut group = criterion.benchmark_group("flush");
    for pages in [1u32, 64, 1024] {
        group.bench_function(format!("{pages} translations"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    for page in 0..pages {
                        let host = machine.memory.host_base();
                        let allow = machine::tlb::Allow { read: true, ..Default::default() };
                        machine.tlb.insert(false, machine::LinearAddress(page << 12), host, allow);
                    }
                    machine.tlb.flush();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    emulator.run(&mut machine, 1);
}

criterion_group!(all, walks, flushes);
criterion_main!(all);
