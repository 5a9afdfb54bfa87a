//! One emulated instruction, by class: from decoded blocks, and decoded anew.

use benches::{endless, guest};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emulator::Emulator;
use machine::cpu::{Cr4, register};

/// Instructions in one measurement.
const COUNT: u64 = 1700;

/// Class and bytes; EBX points at data.
const CLASSES: &[(&str, &[u8])] = &[
    ("alu register", &[0x01, 0xc8]),                      // add eax, ecx
    ("alu load", &[0x03, 0x03]),                          // add eax, [ebx]
    ("alu read-modify-write", &[0x01, 0x03]),             // add [ebx], eax
    ("move load", &[0x8b, 0x43, 0x04]),                   // mov eax, [ebx+4]
    ("move store", &[0x89, 0x43, 0x04]),                  // mov [ebx+4], eax
    ("shift", &[0xc1, 0xe0, 0x03]),                       // shl eax, 3
    ("multiply", &[0x0f, 0xaf, 0xc1]),                    // imul eax, ecx
    ("divide", &[0x31, 0xd2, 0xf7, 0xf1]),                // xor edx, edx; div ecx
    ("push and pop", &[0x50, 0x58]),                      // push eax; pop eax
    ("branch", &[0x74, 0x00]),                            // jz +0
    ("call and return", &[0xe8, 1, 0, 0, 0, 0x90, 0x58]), // call +1; (nop); pop eax
    ("string move", &[0xa4]),                             // movsb
    ("x87", &[0xd9, 0xe8, 0xdd, 0xd8]),                   // fld1; fstp st0
    ("sse packed", &[0x0f, 0x58, 0xc1]),                  // addps xmm0, xmm1
    ("segment load", &[0x8e, 0xe0]),                      // mov fs, eax (null)
];

fn classes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("instruction");
    group.throughput(Throughput::Elements(COUNT));
    for (name, bytes) in CLASSES {
        let mut machine = guest(&endless(bytes));
        machine.cpu.cr4 |= Cr4::OSFXSR;
        machine.cpu.registers[register::ESI] = benches::DATA;
        machine.cpu.registers[register::EDI] = benches::DATA + 0x8000;
        let mut emulator = Emulator::new();
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                machine.cpu.registers[register::ESI] = benches::DATA;
                machine.cpu.registers[register::EDI] = benches::DATA + 0x8000;
                machine.cpu.registers[register::EAX] = 0;
                emulator.run(&mut machine, COUNT)
            })
        });
    }
    group.finish();
}

fn single(criterion: &mut Criterion) {
    let mut machine = guest(&endless(&[0x01, 0xc8]));
    criterion.bench_function("instruction decoded anew", |bencher| {
        bencher.iter(|| emulator::step(&mut machine));
    });
}

criterion_group!(all, classes, single);
criterion_main!(all);
