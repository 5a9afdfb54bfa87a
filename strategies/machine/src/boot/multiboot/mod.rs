//! Multiboot 1 images (Multiboot Specification version 0.6.96).
//!
//! [`header`] finds what the image asks for, [`program`] says what of the file goes where, [`info`]
//! builds what the kernel is told, [`symbols`] hands on an ELF file's unloaded sections. The
//! information goes where QEMU puts it, to 0x9000, or to the next free place.

mod header;
mod info;
mod program;
mod symbols;

use super::entry::{self, FlatSelectors};
use super::fault::Fault;
use super::image::Image;
use super::layout::{self, Layout};
use super::{BootSource, acpi, bda};
use crate::address::PAGE_SIZE;
use crate::cpu::register;
use crate::{Cpu, Machine};
use header::Header;
use program::Program;

/// What EAX holds at the entry.
const BOOTED: u32 = 0x2bad_b002;
/// Where the information goes, if it can.
const INFO: u64 = 0x9000;

pub(super) use header::is_multiboot;

pub(super) fn load(
    machine: &mut Machine,
    source: &BootSource,
    image: &Image<'_>,
) -> Result<(), Fault> {
    let header = Header::find(image)?;
    let program = Program::new(&header, image)?;
    let mut layout = Layout::new(&machine.memory);
    for piece in &program.pieces {
        layout.claim("a segment", piece.start, piece.memory_size)?;
    }
    bda::write(machine, source.boot_disk)?;
    acpi::write(machine)?;
    program.write(machine, image)?;
    let contents = info::Contents {
        source,
        map: layout::memory_map(&machine.memory),
        ram: layout.ram(),
        modules: load_modules(machine, source, &mut layout)?,
        symbols: symbols::load(machine, &program, image, &mut layout)?,
        text_mode: header.wants_text_mode,
    };
    let size = contents.build(0)?.bytes.len() as u64;
    let place = layout.place_low("the multiboot information", size, 16, INFO)?;
    let block = contents.build(place as u32)?;
    layout::write(machine, "the multiboot information", place, &block.bytes)?;
    enter(&mut machine.cpu, program.entry, place as u32, block.descriptor_table);
    Ok(())
}

/// The machine state of section 3.2.
fn enter(cpu: &mut Cpu, entry: u32, info: u32, table: u32) {
    entry::protected(cpu, entry, table, FlatSelectors::PC);
    cpu.registers[register::EAX] = BOOTED;
    cpu.registers[register::EBX] = info;
}

/// Puts the modules behind the kernel, each on pages of its own whether or not the kernel asks for
/// that. Returns where each begins and ends.
fn load_modules(
    machine: &mut Machine,
    source: &BootSource,
    layout: &mut Layout,
) -> Result<Vec<(u32, u32)>, Fault> {
    let mut places = Vec::new();
    for module in &source.modules {
        let size = module.bytes.len() as u64;
        let start = layout.place_high("a module", size, PAGE_SIZE.into())?;
        layout::write(machine, "a module", start, &module.bytes)?;
        places.push((start as u32, (start + size) as u32));
    }
    Ok(places)
}
