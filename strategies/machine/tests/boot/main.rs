//! Boot images from outside: what the loader writes for each format, what it says about damaged
//! images, and that no image makes it panic.

mod damage;
mod fuzz;
mod images;
mod linux;
mod multiboot;
mod plain;

use machine::boot::{BootSource, ImageKind, Kernel, load};
use machine::{Error, Machine, MachineConfig, PhysicalAddress};

/// A machine with `mib` MiB of RAM.
fn machine(mib: u64) -> Machine {
    let config = MachineConfig { memory_bytes: mib << 20, ..MachineConfig::default() };
    Machine::new(&config).expect("a machine")
}

/// An image whose kind is to be found out.
fn source(bytes: Vec<u8>) -> BootSource {
    let kernel = Kernel { path: "kernel".into(), bytes };
    BootSource { kernel, ..BootSource::default() }
}

/// An image of a given kind.
fn source_of(kind: ImageKind, bytes: Vec<u8>) -> BootSource {
    BootSource { kind: Some(kind), ..source(bytes) }
}

/// The reason for which an image is refused.
fn refusal(machine: &mut Machine, source: &BootSource) -> String {
    match load(machine, source) {
        Err(Error::Image { path, reason }) => {
            assert_eq!(path, source.kernel.path);
            reason
        }
        Err(other) => panic!("expected an image error, found {other:?}"),
        Ok(()) => panic!("the image was loaded"),
    }
}

/// `length` bytes of guest memory.
fn bytes(machine: &Machine, at: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert!(machine.memory.read(PhysicalAddress(at.into()), &mut bytes), "no memory at {at:#x}");
    bytes
}

/// A doubleword of guest memory.
fn dword(machine: &Machine, at: u32) -> u32 {
    machine.memory.read_u32(PhysicalAddress(at.into()))
}

/// The text up to a zero byte.
fn text(machine: &Machine, at: u32) -> String {
    let bytes = (at..).map(|at| bytes(machine, at, 1)[0]).take_while(|&byte| byte != 0).collect();
    String::from_utf8(bytes).expect("text")
}
