//! Images cut off at every length, and the regression corpus.

use crate::images::{Addresses, Linux, by_addresses, bzimage, elf};
use crate::{machine, source_of};
use machine::boot::{BootSource, ImageKind, load};
use machine::{Error, Machine};

/// The sample images by the names that the corpus gives them.
pub(crate) fn samples() -> Vec<(&'static str, ImageKind, Vec<u8>)> {
    let whole = Addresses { load_end: 0, bss_end: 0, ..Addresses::USUAL };
    let old = Linux { version: 0x203, ..Linux::USUAL };
    vec![
        ("elf", ImageKind::Multiboot, elf()),
        ("addresses", ImageKind::Multiboot, by_addresses(Addresses::USUAL)),
        ("whole-file", ImageKind::Multiboot, by_addresses(whole)),
        ("linux", ImageKind::LinuxBzImage, bzimage(Linux::USUAL)),
        ("old-linux", ImageKind::LinuxBzImage, bzimage(old)),
    ]
}

/// A change to a sample image, as the corpus writes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Edit {
    /// `OFFSET=BYTES`, both hexadecimal.
    Set(usize, Vec<u8>),
    /// `length=OFFSET`
    Truncate(usize),
}

impl Edit {
    pub(crate) fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Edit::Set(at, bytes) => {
                for (byte, value) in image.iter_mut().skip(*at).zip(bytes) {
                    *byte = *value;
                }
            }
            Edit::Truncate(length) => image.truncate(*length),
        }
    }

    fn parse(text: &str) -> Edit {
        let (left, right) = text.split_once('=').expect("OFFSET=BYTES or length=OFFSET");
        let number = |text| usize::from_str_radix(text, 16).expect("a hexadecimal number");
        if left == "length" {
            return Edit::Truncate(number(right));
        }
        let bytes = (0..right.len()).step_by(2).map(|at| number(&right[at..at + 2]) as u8);
        Edit::Set(number(left), bytes.collect())
    }
}

impl std::fmt::Display for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Edit::Truncate(length) => write!(f, "length={length:x}"),
            Edit::Set(at, bytes) => {
                write!(f, "{at:x}=")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Loads and returns the reason of a refusal.
pub(crate) fn attempt(machine: &mut Machine, source: &BootSource) -> Result<(), String> {
    match load(machine, source) {
        Ok(()) => Ok(()),
        Err(Error::Image { reason, .. }) => Err(reason),
        Err(other) => panic!("expected an image error, found {other:?}"),
    }
}

#[test]
fn an_image_cut_off_anywhere_is_refused_or_loads_what_its_header_asks_for() {
    let mut machine = machine(4);
    for (name, kind, image) in samples() {
        assert_eq!(attempt(&mut machine, &source_of(kind, image.clone())), Ok(()), "{name}");
        // From this length on, nothing is missing that the header of the image asks for.
        let complete = match name {
            "elf" => image.len(),
            // The last paragraph of 16 bytes need not be whole.
            "linux" => image.len() - 15,
            "addresses" => 0x90,
            "whole-file" => 0x51,
            _ => 3 * 512 + 1,
        };
        for length in 0..image.len() {
            let cut = source_of(kind, image[..length].to_vec());
            match attempt(&mut machine, &cut) {
                Ok(()) => assert!(length >= complete, "{name} of {length} bytes was loaded"),
                Err(reason) => {
                    assert!(length < complete, "{name} of {length} bytes: {reason}");
                    let says_so =
                        ["truncated: ", "the image is empty", "no multiboot header", "the entry "];
                    assert!(
                        says_so.iter().any(|text| reason.starts_with(text)),
                        "{name}: {reason}"
                    );
                }
            }
            let unknown = BootSource { kind: None, ..cut };
            assert!(attempt(&mut machine, &unknown).is_err() || length >= complete, "{name}");
        }
    }
}

#[test]
fn images_that_once_were_of_interest_fare_as_recorded() {
    let mut machine = machine(4);
    let samples = samples();
    let corpus = include_str!("../corpus/boot.txt");
    let lines = corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let (edits, expected) = line.split_once(" -> ").expect("SAMPLE EDITS -> EXPECTED");
        let mut words = edits.split_whitespace();
        let name = words.next().expect("a sample");
        let sample = samples.iter().find(|sample| sample.0 == name).expect("a known sample");
        let mut image = sample.2.clone();
        words.for_each(|word| Edit::parse(word).apply(&mut image));
        match attempt(&mut machine, &source_of(sample.1, image)) {
            Ok(()) => assert_eq!(expected, "loads", "{line}"),
            Err(reason) => assert!(reason.contains(expected), "{line}\nfound: {reason}"),
        }
        count += 1;
    }
    assert!(count >= 20, "the corpus was not read");
}

#[test]
fn gigabytes_of_zeros_cost_the_host_nothing() {
    use std::os::unix::fs::MetadataExt;
    let mut machine = machine(3072);
    let mut image = elf();
    // The second segment's size in memory: all of RAM from 1 MiB on, but a few pages.
    Edit::Set(0x68, 0xbfe0_0000u32.to_le_bytes().to_vec()).apply(&mut image);
    assert_eq!(attempt(&mut machine, &source_of(ImageKind::Multiboot, image)), Ok(()));
    let allocated = machine.memory.file().metadata().expect("a memfd").blocks() * 512;
    assert!(allocated < 1 << 20, "{allocated} bytes were allocated");
}
