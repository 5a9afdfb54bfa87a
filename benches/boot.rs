//! Loading boot images of each format.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use machine::boot::{self, BootSource, FlatEntry, ImageKind, Kernel};
use machine::{Machine, MachineConfig};

/// Bytes of payload in each image.
const PAYLOAD: usize = 1 << 20;

/// A multiboot image with the a.out kludge: loaded at 1 MiB, entered behind its header.
fn multiboot() -> Vec<u8> {
    let flags = 1u32 << 16;
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let base = 0x10_0000u32;
    let end = base + 32 + PAYLOAD as u32;
    let header = [magic, flags, checksum, base, base, end, end, base + 32];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.resize(32 + PAYLOAD, 0x90);
    image
}

/// An ELF executable with one segment and a multiboot header at its start.
fn elf() -> Vec<u8> {
    let base = 0x10_0000u32;
    let mut image = vec![0; 0x1000];
    image[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1, 1, 1]);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    put(24, &(base + 12).to_le_bytes());
    put(28, &52u32.to_le_bytes());
    put(40, &[52, 0, 32, 0, 1, 0]);
    let length = PAYLOAD as u32;
    let header = [1, 0x1000, base, base, length, length, 5, 0x1000];
    let header: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    put(52, &header);
    let magic = 0x1bad_b002u32;
    image.extend(magic.to_le_bytes());
    image.extend(0u32.to_le_bytes());
    image.extend(0u32.wrapping_sub(magic).to_le_bytes());
    image.resize(0x1000 + PAYLOAD, 0x90);
    image
}

fn source(bytes: Vec<u8>, kind: ImageKind) -> BootSource {
    BootSource {
        kernel: Kernel { path: "bench".into(), bytes },
        kind: Some(kind),
        modules: Vec::new(),
        command_line: String::new(),
        flat: FlatEntry::default(),
        boot_disk: false,
    }
}

fn formats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load 1 MiB");
    for (name, source) in [
        ("flat", source(vec![0x90; PAYLOAD], ImageKind::Flat)),
        ("multiboot", source(multiboot(), ImageKind::Multiboot)),
        ("multiboot elf", source(elf(), ImageKind::Multiboot)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || {
                    Machine::new(&MachineConfig { memory_bytes: 16 << 20, ..Default::default() })
                        .expect("memory")
                },
                |machine| boot::load(machine, &source).expect("the image is good"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(all, formats);
criterion_main!(all);
