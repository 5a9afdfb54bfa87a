//! Flat binaries: bytes at an address, entered at their first.
//!
//! Nothing else is promised to such an image: no BIOS data area, no memory map, no arguments.

use super::entry::{self, FlatSelectors};
use super::fault::Fault;
use super::layout::{self, EXTENDED, LOWEST_PLACE, Layout};
use super::{BootSource, ImageKind};
use crate::cpu::register;
use crate::memory::VGA_START;
use crate::{Machine, PhysicalAddress};

/// Where a flat binary goes and how it is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlatEntry {
    /// At this address, in 32-bit protected mode with flat segments (`flat32`).
    Flat32(PhysicalAddress),
    /// At this address, in real mode, with all segment registers alike (`flat16`). A boot sector
    /// expects 0:0x7C00.
    Flat16 {
        /// CS and all other segments.
        segment: u16,
        /// IP, and SP, which leaves the memory below as stack.
        offset: u16,
    },
}

impl Default for FlatEntry {
    fn default() -> FlatEntry {
        FlatEntry::Flat32(PhysicalAddress(EXTENDED))
    }
}

/// The BIOS's number of the first hard disk, which a boot sector gets in DL.
const FIRST_DISK: u32 = 0x80;

pub(super) fn load(machine: &mut Machine, source: &BootSource) -> Result<(), Fault> {
    refuse_extras(ImageKind::Flat, source)?;
    match source.flat {
        FlatEntry::Flat32(address) => load_protected(machine, &source.kernel.bytes, address)?,
        FlatEntry::Flat16 { segment, offset } => {
            load_real(machine, &source.kernel.bytes, segment, offset)?;
        }
    }
    if source.boot_disk {
        machine.cpu.registers[register::EDX] = FIRST_DISK;
    }
    Ok(())
}

/// Refuses what an image of this kind would never see.
pub(super) fn refuse_extras(kind: ImageKind, source: &BootSource) -> Result<(), Fault> {
    let kind = kind.name();
    if !source.modules.is_empty() {
        return Err(Fault::Unwanted { kind, what: "modules" });
    }
    if !source.command_line.is_empty() {
        return Err(Fault::Unwanted { kind, what: "command line" });
    }
    Ok(())
}

fn load_protected(
    machine: &mut Machine,
    bytes: &[u8],
    address: PhysicalAddress,
) -> Result<(), Fault> {
    let mut layout = Layout::new(&machine.memory);
    layout.claim("the image", address.0, bytes.len() as u64)?;
    let table = FlatSelectors::PC.table();
    let at = layout.place_low("the GDT", table.len() as u64, 8, LOWEST_PLACE)?;
    layout::write(machine, "the image", address.0, bytes)?;
    layout::write(machine, "the GDT", at, &table)?;
    entry::protected(&mut machine.cpu, address.0 as u32, at as u32, FlatSelectors::PC);
    Ok(())
}

fn load_real(machine: &mut Machine, bytes: &[u8], segment: u16, offset: u16) -> Result<(), Fault> {
    let start = (u64::from(segment) << 4) + u64::from(offset);
    let size = bytes.len() as u64;
    let end = start.saturating_add(size);
    if end > VGA_START {
        return Err(Fault::RealMode { segment, offset, size, end });
    }
    layout::write(machine, "the image", start, bytes)?;
    entry::real(&mut machine.cpu, segment, offset);
    Ok(())
}
