//! Port and device-memory accesses, without a CPU.

use criterion::{Criterion, criterion_group, criterion_main};
use machine::{Machine, MachineConfig, PhysicalAddress};
use std::hint::black_box;

fn ports(criterion: &mut Criterion) {
    let mut machine = Machine::new(&MachineConfig::default()).expect("guest memory");
    let mut group = criterion.benchmark_group("port read");
    for (name, port, size) in [
        ("nothing", 0x300, 1),
        ("serial line status", 0x3fd, 1),
        ("interrupt mask", 0x21, 1),
        ("timer counter", 0x40, 1),
        ("system port", 0x61, 1),
        ("pci address, 4 bytes", 0xcf8, 4),
        ("nothing, 4 bytes", 0x300, 4),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| machine.bus.port_read(black_box(port), black_box(size)));
        });
    }
    group.finish();
    criterion.bench_function("port write, post code", |bencher| {
        bencher.iter(|| machine.bus.port_write(black_box(0x80), 1, black_box(0x55)));
    });
}

fn device_memory(criterion: &mut Criterion) {
    let mut machine = Machine::new(&MachineConfig::default()).expect("guest memory");
    let text = PhysicalAddress(0xb_8000);
    criterion.bench_function("device memory read, 4 bytes", |bencher| {
        let mut data = [0; 4];
        bencher.iter(|| machine.bus.mmio_read(black_box(text), &mut data));
    });
    criterion.bench_function("device memory write, 4 bytes", |bencher| {
        bencher.iter(|| machine.bus.mmio_write(black_box(text), &[1, 2, 3, 4]));
    });
}

fn service(criterion: &mut Criterion) {
    let mut machine = Machine::new(&MachineConfig::default()).expect("guest memory");
    criterion.bench_function("service, nothing due", |bencher| bencher.iter(|| machine.service()));
}

criterion_group!(all, ports, device_memory, service);
criterion_main!(all);
