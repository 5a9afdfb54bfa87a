//! Descriptor tables, task states and page tables as bytes (Intel SDM volume 3, 3.4.5, 7.2, 8.2, 4.3, 4.4).

use super::image::Bytes;
use super::kernel::{GDTR, IDTR, Kernel};
use super::layout::{self, PAGE};
use super::{Error, Paging, Program};
use crate::runtime::segment;

const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;
const ACCESSED_DIRTY: u32 = 0x60;
const LARGE: u32 = 0x80;
const GLOBAL: u32 = 0x100;
const CR4_PSE: u32 = 0x10;
const CR4_PGE: u32 = 0x80;

/// The last offset of a TSS, before its I/O bitmap.
const TSS_HEAD: u32 = 104;
/// Bytes of the I/O bitmap, with the byte of ones behind it.
const BITMAP: u32 = 0x2001;
/// Ports that ring 3 may use: the 8254, port 0x61, the diagnostic port.
const USER_PORTS: [u32; 6] = [0x40, 0x42, 0x43, 0x61, 0x80, 0x84];

/// 32 bits and pages, or 16 bits and bytes.
const BIG: u8 = 0xc;
const SMALL: u8 = 0;

pub(super) fn descriptors(bytes: &mut Bytes, program: &Program) -> Result<(), Error> {
    let segments = [
        (layout::KERNEL_CODE, 0, 0xf_ffff, 0x9b, BIG),
        (layout::KERNEL_DATA, 0, 0xf_ffff, 0x93, BIG),
        (layout::USER_CODE, 0, 0xf_ffff, 0xfb, BIG),
        (layout::USER_DATA, 0, 0xf_ffff, 0xf3, BIG),
        (layout::KERNEL_CODE_16, layout::KERNEL_TEXT, 0xffff, 0x9b, SMALL),
        (layout::KERNEL_DATA_16, layout::DATA, 0xffff, 0x93, SMALL),
        (layout::USER_CODE_16, layout::USER_TEXT, 0xffff, 0xfb, SMALL),
        (layout::USER_DATA_16, layout::DATA, 0xffff, 0xf3, SMALL),
        (layout::BASED_CODE, layout::LOAD, 0xf_ffff, 0x9b, BIG),
        (layout::TSS_SELECTOR, layout::TSS, TSS_HEAD + BITMAP - 1, 0x89, SMALL),
        (layout::SECOND_TSS_SELECTOR, layout::SECOND_TSS, TSS_HEAD - 1, 0x89, SMALL),
        (layout::LDT_SELECTOR, layout::LDT, layout::LDT_BYTES - 1, 0x82, SMALL),
    ];
    for (selector, base, limit, access, flags) in segments {
        let value = segment(base, limit, access, flags);
        bytes.put(layout::GDT + u32::from(selector & !7), &value.to_le_bytes())?;
    }
    for slot in &program.descriptors {
        let (table, size) = match slot.selector & 4 {
            0 => (layout::GDT, layout::GDT_BYTES),
            _ => (layout::LDT, layout::LDT_BYTES),
        };
        let at = u32::from(slot.selector & !7);
        if at >= size {
            return Err(Error(format!("there is no selector {:#x}", slot.selector)));
        }
        bytes.put(table + at, &slot.value.to_le_bytes())?;
    }
    let register = |base: u32, size: u32| [(size - 1) | base << 16, base >> 16];
    for (at, [low, high]) in
        [(GDTR, register(layout::GDT, layout::GDT_BYTES)), (IDTR, register(layout::IDT, 0x800))]
    {
        bytes.put_u32(at, low)?;
        bytes.put_u32(at + 4, high)?;
    }
    Ok(())
}

pub(super) fn gates(bytes: &mut Bytes, program: &Program, kernel: &Kernel) -> Result<(), Error> {
    for (vector, &handler) in (0u8..=255).zip(&kernel.handlers) {
        let access = if is_users(vector) { 0xee } else { 0x8e };
        gate(bytes, vector, access, layout::KERNEL_CODE, handler)?;
    }
    for each in &program.gates {
        let handler = kernel.handlers[usize::from(each.vector)];
        // A gate of 16 bits has 16 bits of offset.
        let offset =
            if each.selector == layout::BASED_CODE { handler - layout::LOAD } else { handler };
        gate(bytes, each.vector, each.access, each.selector, offset)?;
    }
    Ok(())
}

/// Whether ring 3 may call the vector by INT.
fn is_users(vector: u8) -> bool {
    matches!(vector, 3 | 4 | 0x80..=0x8f)
}

fn gate(
    bytes: &mut Bytes,
    vector: u8,
    access: u8,
    selector: u16,
    offset: u32,
) -> Result<(), Error> {
    let low = u32::from(selector) << 16 | offset & 0xffff;
    let high = offset & 0xffff_0000 | u32::from(access) << 8;
    bytes.put_u32(layout::IDT + u32::from(vector) * 8, low)?;
    bytes.put_u32(layout::IDT + u32::from(vector) * 8 + 4, high)
}

pub(super) fn tasks(bytes: &mut Bytes, kernel: &Kernel) -> Result<(), Error> {
    let kernel_data = u32::from(layout::KERNEL_DATA);
    for (offset, value) in [
        (4, layout::KERNEL_STACK),
        (8, kernel_data),
        (28, layout::DIRECTORIES),
        (0x60, layout::LDT_SELECTOR.into()),
        (0x64, TSS_HEAD << 16),
    ] {
        bytes.put_u32(layout::TSS + offset, value)?;
    }
    let mut bitmap = vec![0xff; BITMAP as usize];
    for port in USER_PORTS {
        bitmap[port as usize / 8] &= !(1 << (port % 8));
    }
    bytes.put(layout::TSS + TSS_HEAD, &bitmap)?;
    for (offset, value) in [
        (4, layout::SECOND_STACK),
        (8, kernel_data),
        (28, layout::DIRECTORIES),
        (32, kernel.task),
        (36, 2),
        (56, layout::SECOND_STACK),
        (72, kernel_data),
        (76, layout::KERNEL_CODE.into()),
        (80, kernel_data),
        (84, kernel_data),
        (0x60, layout::LDT_SELECTOR.into()),
        (0x64, TSS_HEAD << 16),
    ] {
        bytes.put_u32(layout::SECOND_TSS + offset, value)?;
    }
    Ok(())
}

/// The address of an entry of a page table.
pub(super) fn entry_address(paging: Paging, directory: u8, page: u32) -> u32 {
    let size = if paging == Paging::Wide { 8 } else { 4 };
    layout::TABLES + u32::from(directory) * 2 * PAGE + page * size
}

pub(super) fn pages(bytes: &mut Bytes, program: &Program) -> Result<(), Error> {
    for directory in 0..2u8 {
        directories(bytes, program, directory)?;
        for page in 0..512 {
            let entry = usual_entry(program, page);
            bytes.put_u32(entry_address(program.paging, directory, page), entry)?;
        }
    }
    for page in &program.pages {
        if page.directory > 1 || page.number >= 512 {
            return Err(Error(format!("there is no page {}.{}", page.directory, page.number)));
        }
        let at = entry_address(program.paging, page.directory, page.number);
        bytes.put_u32(at, page.entry)?;
    }
    Ok(())
}

fn directories(bytes: &mut Bytes, program: &Program, directory: u8) -> Result<(), Error> {
    let number = u32::from(directory);
    let top = layout::DIRECTORIES + number * PAGE;
    let table = layout::TABLES + number * 2 * PAGE;
    let rights = PRESENT | WRITABLE | USER;
    let large = if program.cr4 & CR4_PSE == 0 { 0 } else { LARGE | rights };
    match program.paging {
        Paging::Off => {}
        Paging::Plain => {
            bytes.put_u32(top, table | rights)?;
            bytes.put_u32(top + 4, large)?;
            bytes.put_u32(top + (layout::HIGH >> 20), table | rights)?;
        }
        Paging::Wide => {
            let wide = layout::WIDE_DIRECTORIES + number * PAGE;
            for entry in [0, 3] {
                bytes.put_u32(top + entry * 8, wide | PRESENT)?;
            }
            bytes.put_u32(wide, table | rights)?;
            bytes.put_u32(wide + 8, (table + PAGE) | rights)?;
            bytes.put_u32(wide + 16, LARGE | rights)?;
        }
    }
    Ok(())
}

/// An entry that no program has spoilt.
pub(super) fn usual_entry(program: &Program, page: u32) -> u32 {
    let linear = page * PAGE;
    let low = layout::LOW..layout::LOW + (layout::END - layout::DATA);
    let address = match linear {
        at if low.contains(&at) => at - layout::LOW + layout::DATA,
        layout::LOAD.. => linear,
        _ => return 0,
    };
    let is_users = (layout::USER_STACK..layout::KERNEL_TEXT).contains(&address)
        || (layout::USER_TEXT..layout::END).contains(&address);
    let rights =
        if is_users { PRESENT | WRITABLE | USER } else { PRESENT | WRITABLE | ACCESSED_DIRTY };
    let global = if program.cr4 & CR4_PGE != 0 && !is_users { GLOBAL } else { 0 };
    address | rights | global
}
