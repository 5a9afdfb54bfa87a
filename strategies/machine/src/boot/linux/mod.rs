//! Linux kernels by the 32-bit boot protocol (Documentation/arch/x86/boot.rst, "32-bit boot
//! protocol"): the real-mode part of a bzImage is read for its header and not run.
//!
//! Low memory as the kernel finds it:
//!
//! ```text
//! 0x8f000   GDT with __BOOT_CS and __BOOT_DS
//! 0x90000   zero page (struct boot_params)
//! 0x91000   command line
//! 0x9fc00   end of conventional memory, stack below
//! ```

mod header;
mod zero_page;

use super::entry::{self, FlatSelectors};
use super::fault::Fault;
use super::image::{Image, zero_terminated};
use super::layout::{self, Layout};
use super::{BootSource, acpi, bda};
use crate::Machine;
use crate::address::PAGE_SIZE;
use crate::cpu::register;
use header::Header;
use std::ops::Range;
use zero_page::{CommandLine, ZeroPage};

const GDT: u64 = 0x8_f000;
const ZERO_PAGE: u64 = 0x9_0000;
const COMMAND_LINE: Range<u64> = 0x9_1000..0x9_f000;

pub(super) use header::is_linux;

pub(super) fn load(
    machine: &mut Machine,
    source: &BootSource,
    image: &Image<'_>,
) -> Result<(), Fault> {
    let header = Header::parse(image)?;
    let mut layout = Layout::new(&machine.memory);
    let end = load_kernel(machine, &header, image, &mut layout)?;
    let mut page = ZeroPage::new(header.bytes);
    load_command_line(machine, source, &header, &mut page)?;
    if let Some(place) = load_initrd(machine, source, &header, end)? {
        page.set_initrd(place);
    }
    page.set_memory(&layout::memory_map(&machine.memory), layout.ram());
    bda::write(machine, source.boot_disk)?;
    acpi::write(machine)?;
    layout::write(machine, "the zero page", ZERO_PAGE, page.bytes())?;
    layout::write(machine, "the GDT", GDT, &FlatSelectors::LINUX.table())?;
    entry::protected(&mut machine.cpu, header.start, GDT as u32, FlatSelectors::LINUX);
    machine.cpu.registers[register::ESI] = ZERO_PAGE as u32;
    Ok(())
}

/// Loads the protected-mode part. Returns the end of the memory that the kernel uses before it
/// reads the memory map: what is loaded, and where it unpacks itself.
fn load_kernel(
    machine: &mut Machine,
    header: &Header<'_>,
    image: &Image<'_>,
    layout: &mut Layout,
) -> Result<u64, Fault> {
    let bytes = header.payload(image)?;
    let loaded = layout.claim("the kernel", header.start.into(), bytes.len() as u64)?;
    let needed = header.unpacked(image)?;
    let unpacked = layout.claim("the unpacked kernel", needed.start, needed.end - needed.start)?;
    layout::write(machine, "the kernel", loaded.start, bytes)?;
    Ok(loaded.end.max(unpacked.end))
}

fn load_command_line(
    machine: &mut Machine,
    source: &BootSource,
    header: &Header<'_>,
    page: &mut ZeroPage,
) -> Result<(), Fault> {
    let line = zero_terminated("the command line", &source.command_line)?;
    // Kernels state their limit without the zero byte at the end.
    let limit = header.command_line_limit.min(COMMAND_LINE.end - COMMAND_LINE.start - 1);
    let length = line.len() as u64 - 1;
    if length > limit {
        return Err(Fault::CommandLine { length, limit });
    }
    layout::write(machine, "the command line", COMMAND_LINE.start, &line)?;
    page.set_command_line(if header.has_command_line_pointer {
        CommandLine::Pointer(COMMAND_LINE.start as u32)
    } else {
        CommandLine::Offset((COMMAND_LINE.start - ZERO_PAGE) as u16)
    });
    Ok(())
}

/// Puts the initial RAM disk as high as the kernel can reach, on a page boundary.
fn load_initrd(
    machine: &mut Machine,
    source: &BootSource,
    header: &Header<'_>,
    kernel_end: u64,
) -> Result<Option<Range<u64>>, Fault> {
    let what = "the initial RAM disk";
    let initrd = match &source.modules[..] {
        [] => return Ok(None),
        [initrd] => initrd,
        modules => return Err(Fault::OneInitrd { count: modules.len() }),
    };
    let size = initrd.bytes.len() as u64;
    let top = (header.initrd_last + 1).min(machine.memory.ram_bytes());
    let page = u64::from(PAGE_SIZE);
    let start = top.checked_sub(size).map(|start| start / page * page);
    match start.filter(|&start| start >= kernel_end) {
        Some(start) => {
            layout::write(machine, what, start, &initrd.bytes)?;
            Ok(Some(start..start + size))
        }
        None => Err(Fault::NoPlace { what, size, from: kernel_end, to: top }),
    }
}
