//! Damaged and hostile images: an error that names the place, or a finding, never a panic.

use crate::images::{FUNCTION, OBJECT, bzimage, elf, flat, gzip, without_sections};
use proptest::prelude::*;
use ringside::audit::image::{CodeSize, Flat, Program};
use ringside::audit::{Audit, Method, rows};

fn sample() -> Vec<u8> {
    let text = [0xfa, 0x0f, 0x01, 0x1d, 0, 0x10, 0, 0xc0, 0x9c, 0x58, 0xe8, 0, 0, 0, 0, 0xfb, 0xc3];
    let symbols = [("f", 0, 8, FUNCTION), ("g", 9, 6, FUNCTION), ("d", 15, 2, OBJECT)];
    elf(&text, &[0, 0x10, 0, 0xc0, 8, 0, 0, 0], &symbols)
}

fn images() -> Vec<Vec<u8>> {
    let workload = workloads::all()[0].assemble(1).unwrap().bytes;
    vec![
        sample(),
        without_sections(sample()),
        bzimage(&gzip(&sample())),
        bzimage(&sample()),
        workload,
    ]
}

/// Does everything that the program does with an image.
fn audit(image: &[u8]) {
    let Ok(program) = Program::read(image) else { return };
    for method in [Method::Sweep, Method::Follow] {
        let audit = Audit::of(program.clone(), method);
        let coverage = audit.coverage;
        assert_eq!(
            coverage.decoded + coverage.undecodable + coverage.skipped(),
            coverage.executable
        );
        assert_eq!(rows(&audit).count(), audit.sites.len());
    }
}

#[test]
fn images_cut_anywhere_are_refused_or_read() {
    for image in images() {
        let step = (image.len() / 1500).max(1);
        for length in (0..image.len()).step_by(step) {
            audit(&image[..length]);
        }
    }
}

#[test]
fn every_field_may_have_any_extreme_value() {
    for image in images() {
        // A workload's code is large, and has no fields behind the multiboot header.
        let places = if image.len() < 0x1000 { image.len() } else { 0x30 };
        for at in (0..places.saturating_sub(4)).step_by(2) {
            for value in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, u32::MAX] {
                let mut image = image.clone();
                image[at..at + 4].copy_from_slice(&value.to_le_bytes());
                audit(&image);
            }
        }
    }
}

#[test]
fn errors_name_the_place() {
    let message = |image: &[u8]| Program::read(image).unwrap_err().to_string();
    let with = |at: usize, value: u32| {
        let mut image = sample();
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        message(&image)
    };
    assert_eq!(message(&[]), "the image is empty");
    assert!(message(&sample()[..40]).contains("the ELF header takes 52 bytes at offset 0x0"));
    assert!(
        with(32, 0xffff_0000).contains("the section headers takes 240 bytes at offset 0xffff0000")
    );
    assert!(with(18, 62).contains("the ELF machine at offset 0x12 is 0x3e: expected 3 (i386)"));
    let broken = bzimage(&gzip(&sample())[..30]);
    assert!(message(&broken).contains("the gzip payload at offset 0x440 cannot be unpacked"));
    let inner = bzimage(&gzip(&sample()[..40]));
    assert!(message(&inner).starts_with("in the unpacked kernel: truncated: the ELF header"));
    let mut cut = bzimage(&gzip(&sample()));
    cut.truncate(0x450);
    assert!(message(&cut).contains("truncated: the payload takes"));
}

#[test]
fn sections_that_share_bytes_or_addresses_are_refused() {
    let image = sample();
    let headers = u32::from_le_bytes(image[32..36].try_into().unwrap()) as usize;
    // .data gets the address of .text.
    let mut overlapping = image.clone();
    overlapping.copy_within(headers + 40 + 12..headers + 40 + 16, headers + 80 + 12);
    let message = Program::read(&overlapping).unwrap_err().to_string();
    assert!(message.contains("the address of a section or segment"), "{message}");
    // .text and .data are each the whole file.
    let mut large = image.clone();
    for section in [40, 80] {
        let size = (image.len() as u32).to_le_bytes();
        large[headers + section + 16..][..4].fill(0);
        large[headers + section + 20..][..4].copy_from_slice(&size);
    }
    let message = Program::read(&large).unwrap_err().to_string();
    assert!(message.contains("the sum of the sections"), "{message}");
}

#[test]
fn code_at_the_end_of_the_address_space_ends_there() {
    let code = [0xfa, 0xe8, 0, 0, 0, 0, 0x9c, 0xfb];
    let flat = Flat { address: u32::MAX - 7, size: CodeSize::Bits32 };
    let audit = Audit::of(Program::flat(&code, flat).unwrap(), Method::Follow);
    assert_eq!(audit.sites.len(), 3);
    let flat = Flat { address: u32::MAX - 6, size: CodeSize::Bits32 };
    assert!(Program::flat(&code, flat).unwrap_err().to_string().contains("at most 0x7"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_code_never_panics(code in prop::collection::vec(any::<u8>(), 1..400)) {
        for method in [Method::Sweep, Method::Follow] {
            let audit = flat(&code, method);
            prop_assert_eq!(rows(&audit).count(), audit.sites.len());
        }
        let flat = Flat { address: 0x7c00, size: CodeSize::Bits16 };
        let audit = Audit::of(Program::flat(&code, flat).unwrap(), Method::Follow);
        prop_assert_eq!(audit.coverage.executable, code.len() as u64);
    }

    #[test]
    fn random_damage_never_panics(
        which in 0usize..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut image = images().swap_remove(which);
        for (at, value) in damage {
            let at = at.index(image.len().min(0x800));
            image[at] = value;
        }
        audit(&image);
    }
}
