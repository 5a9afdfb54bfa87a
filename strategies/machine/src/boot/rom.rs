//! ROM images. The machine holds its ROM from the start; here is only checked that it makes sense.

use super::fault::Fault;
use super::flat::refuse_extras;
use super::{BootSource, ImageKind};
use crate::{Cpu, Error, Machine, PhysicalAddress};
use std::path::Path;

/// The reset vector is 16 bytes below 4 GiB (Intel SDM volume 3, 10.1.4): there is no less.
const SMALLEST: u64 = 16;
/// Chipsets decode no more than this below 4 GiB.
const LARGEST: u64 = 16 << 20;
/// ROM chips above this size come in multiples of it.
const CHIP: u64 = 64 << 10;

/// Checks the size of a ROM that is to go into [`crate::MachineConfig::rom`].
///
/// # Errors
/// [`Error::Image`] when no PC could have a ROM of that size.
pub fn check_rom(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    check(bytes.len() as u64).map_err(|fault| fault.at(path))
}

fn check(size: u64) -> Result<(), Fault> {
    let wrong = |expected| Err(Fault::RomSize { size, expected });
    if size < SMALLEST {
        wrong("at least the 16 bytes of the reset vector")
    } else if size > LARGEST {
        wrong("at most 16 MiB")
    } else if size > CHIP && !size.is_multiple_of(CHIP) {
        wrong("a multiple of 64 KiB, or less than that")
    } else {
        Ok(())
    }
}

/// Puts the CPU at the reset vector of the ROM that the machine was made with.
pub(super) fn load(machine: &mut Machine, source: &BootSource) -> Result<(), Fault> {
    let rom = &source.kernel.bytes;
    check(rom.len() as u64)?;
    refuse_extras(ImageKind::Rom, source)?;
    let mut present = vec![0; rom.len()];
    let start = PhysicalAddress((1 << 32) - rom.len() as u64);
    if !machine.memory.read(start, &mut present) || present != *rom {
        return Err(Fault::OtherRom);
    }
    machine.cpu = Cpu::new(machine.cpu.model);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_rom_has_are_refused() {
        for size in [16, 512, 0x1_0000, 0x2_0000, 16 << 20] {
            assert_eq!(check(size), Ok(()), "{size}");
        }
        for size in [0, 15, 0x1_0001, 0x1_8000, (16 << 20) + 0x1_0000] {
            assert!(matches!(check(size), Err(Fault::RomSize { .. })), "{size}");
        }
    }
}
