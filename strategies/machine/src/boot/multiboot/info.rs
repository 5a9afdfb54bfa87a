//! The multiboot information structure and what it points to (section 3.3 of the specification).

use super::super::entry::FlatSelectors;
use super::super::fault::Fault;
use super::super::image::zero_terminated;
use super::super::layout::{EXTENDED, MapEntry};
use super::super::{BootSource, bda, with_arguments};
use super::symbols::Symbols;

/// Which fields of the structure are valid.
mod flag {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const BOOT_DEVICE: u32 = 1 << 1;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const ELF_SECTIONS: u32 = 1 << 5;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
    pub(super) const FRAMEBUFFER: u32 = 1 << 12;
}

/// Bytes in the structure.
const SIZE: usize = 116;
/// The BIOS's first hard disk as a whole: no partition at any of three levels.
const FIRST_DISK: u32 = 0x80ff_ffff;
/// How this loader calls itself.
const LOADER_NAME: &str = "ringside";
/// Text memory, columns, rows, bits in a character cell, and the type that means text.
const TEXT_FRAMEBUFFER: (u32, u32, u32, u8, u8) = (0xb_8000, 80, 25, 16, 2);

/// What the structure says.
pub(super) struct Contents<'a> {
    pub(super) source: &'a BootSource,
    pub(super) map: Vec<MapEntry>,
    pub(super) ram: u64,
    /// Where each module begins and ends.
    pub(super) modules: Vec<(u32, u32)>,
    pub(super) symbols: Option<Symbols>,
    pub(super) text_mode: bool,
}

/// The structure, first, with all that it points to.
pub(super) struct Block {
    base: u32,
    pub(super) bytes: Vec<u8>,
    /// The address of the GDT, which is not part of the specification and lives here as well.
    pub(super) descriptor_table: u32,
}

impl Block {
    fn new(base: u32) -> Block {
        Block { base, bytes: vec![0; SIZE], descriptor_table: 0 }
    }

    /// Appends `bytes` at a multiple of eight and returns their address.
    fn push(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let address = self.base.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        address
    }

    /// Sets fields of the structure that follow each other, and their flag.
    fn set(&mut self, flag: u32, offset: usize, values: &[u32]) {
        for (index, value) in values.iter().enumerate() {
            self.bytes[offset + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        for (byte, bits) in self.bytes.iter_mut().zip(flag.to_le_bytes()) {
            *byte |= bits;
        }
    }
}

impl Contents<'_> {
    /// The structure for `base`. Its size does not depend on the base.
    pub(super) fn build(&self, base: u32) -> Result<Block, Fault> {
        let mut block = Block::new(base);
        block.descriptor_table = block.push(&FlatSelectors::PC.table());
        self.put_memory(&mut block);
        self.put_strings(&mut block)?;
        self.put_modules(&mut block)?;
        if self.source.boot_disk {
            block.set(flag::BOOT_DEVICE, 12, &[FIRST_DISK]);
        }
        if let Some(symbols) = &self.symbols {
            block.set(flag::ELF_SECTIONS, 28, &symbols.fields());
        }
        if self.text_mode {
            put_text_mode(&mut block);
        }
        Ok(block)
    }

    fn put_memory(&self, block: &mut Block) {
        let upper = ((self.ram - EXTENDED) / 1024) as u32;
        block.set(flag::MEMORY, 4, &[bda::CONVENTIONAL_KIB.into(), upper]);
        let map: Vec<u8> = self.map.iter().flat_map(map_entry).collect();
        let address = block.push(&map);
        block.set(flag::MEMORY_MAP, 44, &[map.len() as u32, address]);
    }

    fn put_strings(&self, block: &mut Block) -> Result<(), Fault> {
        let line = with_arguments(&self.source.kernel.path, &self.source.command_line);
        let address = block.push(&zero_terminated("the command line", &line)?);
        block.set(flag::COMMAND_LINE, 16, &[address]);
        let address = block.push(&zero_terminated("the loader's name", LOADER_NAME)?);
        block.set(flag::LOADER_NAME, 64, &[address]);
        Ok(())
    }

    fn put_modules(&self, block: &mut Block) -> Result<(), Fault> {
        let mut list = Vec::new();
        for (module, (start, end)) in self.source.modules.iter().zip(&self.modules) {
            let line = zero_terminated("a module's command line", &module.command_line)?;
            let line = block.push(&line);
            list.extend([*start, *end, line, 0].into_iter().flat_map(u32::to_le_bytes));
        }
        let address = block.push(&list);
        block.set(flag::MODULES, 20, &[self.modules.len() as u32, address]);
        Ok(())
    }
}

/// An entry of the memory map, which begins with its own size, that field aside.
fn map_entry(entry: &MapEntry) -> Vec<u8> {
    let mut bytes = 20u32.to_le_bytes().to_vec();
    bytes.extend(entry.start.0.to_le_bytes());
    bytes.extend(entry.length.to_le_bytes());
    bytes.extend(entry.kind().to_le_bytes());
    bytes
}

fn put_text_mode(block: &mut Block) {
    let (address, columns, rows, bits, kind) = TEXT_FRAMEBUFFER;
    let pitch = columns * u32::from(bits) / 8;
    block.set(flag::FRAMEBUFFER, 88, &[address, 0, pitch, columns, rows]);
    block.bytes[108] = bits;
    block.bytes[109] = kind;
}
