//! Flat binaries, ROMs, and images of no known kind.

use crate::images::{Linux, by_addresses, bzimage, elf};
use crate::{bytes, images, machine, refusal, source, source_of};
use machine::boot::{BootSource, FlatEntry, ImageKind, Kernel, Module, check_rom, load};
use machine::cpu::{Cr0, register};
use machine::{Error, Machine, MachineConfig, PhysicalAddress};
use std::path::Path;

fn flat(entry: FlatEntry, bytes: Vec<u8>) -> BootSource {
    BootSource { flat: entry, ..source_of(ImageKind::Flat, bytes) }
}

#[test]
fn a_flat_binary_goes_to_1_mib_and_is_entered_in_protected_mode() {
    let mut machine = machine(2);
    load(&mut machine, &flat(FlatEntry::default(), vec![0xf4; 100])).unwrap();
    assert_eq!(bytes(&machine, 0x10_0000, 100), [0xf4; 100]);
    assert_eq!((machine.cpu.eip, machine.cpu.cr0), (0x10_0000, Cr0::PE | Cr0::ET));
    assert!(machine.cpu.segments.iter().all(|segment| segment.is_flat()));
    assert_eq!(machine.cpu.gdtr.base, 0x1000);
}

#[test]
fn a_flat_binary_in_low_memory_keeps_its_bytes() {
    let mut machine = machine(2);
    let image: Vec<u8> = (0..0x9_f000).map(|at| at as u8).collect();
    let entry = FlatEntry::Flat32(PhysicalAddress(0));
    load(&mut machine, &flat(entry, image.clone())).unwrap();
    assert_eq!(bytes(&machine, 0, image.len()), image);
    assert_eq!(machine.cpu.gdtr.base, 0x9_f000, "the descriptor table found another place");
}

#[test]
fn a_boot_sector_is_entered_in_real_mode() {
    let mut machine = machine(2);
    let entry = FlatEntry::Flat16 { segment: 0, offset: 0x7c00 };
    let source = BootSource { boot_disk: true, ..flat(entry, vec![0xf4; 512]) };
    load(&mut machine, &source).unwrap();
    let cpu = &machine.cpu;
    assert_eq!((cpu.instruction_address().0, cpu.cr0), (0x7c00, Cr0::ET));
    assert_eq!((cpu.registers[register::ESP], cpu.registers[register::EDX]), (0x7c00, 0x80));
    assert_eq!(bytes(&machine, 0x7c00, 512), [0xf4; 512]);
}

#[test]
fn flat_binaries_that_do_not_fit_are_refused() {
    for (address, size) in [(0x9_ff00, 0x101), (0xc_0000, 1), (0x1f_ffff, 2), (u64::MAX, 1)] {
        let entry = FlatEntry::Flat32(PhysicalAddress(address));
        let reason = refusal(&mut machine(2), &flat(entry, vec![0; size]));
        let expected = format!("the image goes to {address:#x} to ");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    let entry = FlatEntry::Flat16 { segment: 0xffff, offset: 0xffff };
    assert_eq!(
        refusal(&mut machine(2), &flat(entry, vec![0; 2])),
        "real-mode entry 0xffff:0xffff: the image of 2 bytes would end at 0x10fff1, conventional \
         memory ends at 0xa0000"
    );
}

#[test]
fn what_an_image_would_never_see_is_refused() {
    let image = || flat(FlatEntry::default(), vec![0xf4]);
    let with_line = BootSource { command_line: "x".to_owned(), ..image() };
    let reason = refusal(&mut machine(2), &with_line);
    assert_eq!(reason, "an image of kind flat takes no command line");
    let with_module = BootSource { modules: vec![Module::default()], ..image() };
    let reason = refusal(&mut machine(2), &with_module);
    assert_eq!(reason, "an image of kind flat takes no modules");
}

#[test]
fn a_rom_starts_at_the_reset_vector() {
    let rom: Vec<u8> = (0..0x1_0000).map(|at| (at * 7) as u8).collect();
    let config = MachineConfig { rom: rom.clone(), ..MachineConfig::default() };
    let mut machine = Machine::new(&config).unwrap();
    machine.cpu.halted = true;
    load(&mut machine, &source_of(ImageKind::Rom, rom.clone())).unwrap();
    assert_eq!(machine.cpu.instruction_address().0, 0xffff_fff0);
    assert!(!machine.cpu.halted);
    let reason = refusal(&mut machine, &source_of(ImageKind::Rom, vec![1; 0x1_0000]));
    assert_eq!(reason, "the image is not the ROM that the machine was made with");
    let reason = refusal(&mut machine, &source_of(ImageKind::Rom, vec![1; 8]));
    assert_eq!(reason, "a ROM of 8 bytes: expected at least the 16 bytes of the reset vector");
}

#[test]
fn the_size_of_a_rom_can_be_checked_before_there_is_a_machine() {
    assert!(check_rom(Path::new("bios"), &[0; 256]).is_ok());
    let error = check_rom(Path::new("bios"), &vec![0; 100_000]).unwrap_err();
    let expected = "bios: a ROM of 100000 bytes: expected a multiple of 64 KiB, or less than that";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn kinds_are_found_out_where_they_can_be() {
    assert_eq!(ImageKind::detect(&elf()), Some(ImageKind::Multiboot));
    let image = by_addresses(images::Addresses::USUAL);
    assert_eq!(ImageKind::detect(&image), Some(ImageKind::Multiboot));
    assert_eq!(ImageKind::detect(&bzimage(Linux::USUAL)), Some(ImageKind::LinuxBzImage));
    assert_eq!(ImageKind::detect(&[0xf4; 512]), None);
    for kind in ImageKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    assert!("zimage".parse::<ImageKind>().unwrap_err().contains("flat, multiboot, linux, rom"));
}

#[test]
fn images_of_no_known_kind_are_refused() {
    assert_eq!(refusal(&mut machine(2), &source(Vec::new())), "the image is empty");
    let reason = refusal(&mut machine(2), &source(vec![0xf4; 512]));
    assert!(reason.starts_with("no Linux setup header at 0x202 and no multiboot"), "{reason}");
    let reason = refusal(&mut machine(2), &source(b"\x7fELF\x01\x01\x01".to_vec()));
    assert!(reason.starts_with("an ELF file without a multiboot header"), "{reason}");
}

#[test]
fn files_that_are_not_there_are_named() {
    let path = Path::new("/nonexistent/kernel");
    for error in [Kernel::read(path).unwrap_err(), Module::read(path, "x").unwrap_err()] {
        assert!(matches!(&error, Error::File { path: named, .. } if named == path), "{error}");
    }
}

#[test]
fn a_module_is_named_for_its_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let module = Module::read(&path, "a b").unwrap();
    assert_eq!(module.command_line, format!("{} a b", path.display()));
    assert_eq!(module.bytes, std::fs::read(&path).unwrap());
}
