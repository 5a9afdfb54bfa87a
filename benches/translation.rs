//! How fast guest code is translated: code that is new at every instruction, run through once.
//!
//! What is measured is all that cold code costs: each unit is looked up, translated, entered, linked
//! and left. The figure is bytes of guest code a second.

use benches::{CODE, guest};
use binary_translation::BinaryTranslation;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strategy::{Limit, Stop, Strategy, Support};

/// Bytes of guest code.
const LENGTH: usize = 1 << 20;

/// A mixture as compilers make it, of 44 bytes in two units: ALU, loads, stores, LEA, a compare and
/// branch that is not taken, a push and a pop, and a jump to what follows.
const MIXTURE: &[u8] = &[
    0x8b, 0x43, 0x10, // mov eax, [ebx + 16]
    0x89, 0x83, 0x00, 0x01, 0x00, 0x00, // mov [ebx + 256], eax
    0x8d, 0x54, 0x83, 0x08, // lea edx, [ebx + eax * 4 + 8]
    0x01, 0xd0, // add eax, edx
    0x55, // push ebp
    0x31, 0xc0, // xor eax, eax
    0x5d, // pop ebp
    0x39, 0xc8, // cmp eax, ecx
    0x74, 0x02, // je over the next two: not taken, for ECX is 1
    0x89, 0xd6, // mov esi, edx
    0x0f, 0xb6, 0x43, 0x04, // movzx eax, byte [ebx + 4]
    0xc1, 0xe0, 0x03, // shl eax, 3
    0xc7, 0x43, 0x20, 0x01, 0x00, 0x00, 0x00, // mov dword [ebx + 32], 1
    0xeb, 0x00, // jmp to what follows
    0x40, 0x4e, 0x90, // inc eax; dec esi; nop
];

/// The mixture over and over, with HLT behind it.
fn code() -> Vec<u8> {
    let mut code = MIXTURE.repeat(LENGTH / MIXTURE.len());
    code.push(0xf4);
    code
}

fn translation(criterion: &mut Criterion) {
    if let Support::Missing(reason) = binary_translation::support() {
        println!("binary-translation: not measured: {reason}");
        return;
    }
    let code = code();
    let mut group = criterion.benchmark_group("translation");
    group.throughput(Throughput::Bytes(code.len() as u64)).sample_size(10);
    group.bench_function("cold code", |bencher| {
        let new = || (guest(&code), BinaryTranslation::new().expect("it is supported"));
        bencher.iter_batched(
            new,
            |(mut machine, mut strategy)| {
                let stop = strategy.run(&mut machine, &Limit::default()).expect("a run");
                assert_eq!(stop, Stop::Halted);
                assert_eq!(machine.cpu.eip, CODE + code.len() as u32);
                // All but what lies across two pages.
                assert!(strategy.statistics().guest_bytes > LENGTH as u64 * 9 / 10);
                (machine, strategy)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(all, translation);
criterion_main!(all);
