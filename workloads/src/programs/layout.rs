//! Where everything is in a program's memory, and the selectors of its descriptors.
//!
//! Physical addresses; with paging on, linear address L below 4 MiB is physical address L but for what a
//! program spoils, and the same pages are seen again from [`HIGH`] on. Selectors are beyond what ring 3
//! of a 64-bit Linux host can load, as in [`runtime::layout`](crate::runtime::layout).

/// Where the image is loaded: the multiboot header, and the monitor's code.
pub const LOAD: u32 = 0x0010_0000;
/// The entry point.
pub const ENTRY: u32 = LOAD + 0x40;
/// The global descriptor table: as many bytes as [`GDT_BYTES`].
pub const GDT: u32 = 0x0010_4000;
/// Bytes of the GDT.
pub const GDT_BYTES: u32 = 0x200;
/// The interrupt descriptor table, 256 gates.
pub const IDT: u32 = 0x0010_5000;
/// The local descriptor table.
pub const LDT: u32 = 0x0010_5800;
/// Bytes of the LDT.
pub const LDT_BYTES: u32 = 0x80;
/// The task state segment, with an I/O bitmap.
pub const TSS: u32 = 0x0010_6000;
/// The task to which a gate may lead.
pub const SECOND_TSS: u32 = 0x0010_9000;
/// The top of its stack.
pub const SECOND_STACK: u32 = 0x0010_a000;
/// Variables of the program's kernel.
pub const STATE: u32 = 0x0010_a000;
/// What exceptions found: 64 frames of 64 bytes, the oldest overwritten.
pub const LOG: u32 = 0x0010_b000;
/// The top of the stack on which exceptions from ring 3 arrive.
pub const KERNEL_STACK: u32 = 0x0010_e000;
/// Where the context of the next block is laid, from which it is entered: the stack of ring 0.
pub const WORK: u32 = 0x0010_ec00;
/// The contexts of blocks.
pub const CONTEXTS: u32 = 0x0011_0000;
/// Bytes of a context.
pub const CONTEXT_BYTES: u32 = 0x80;
/// The most blocks.
pub const MOST_BLOCKS: usize = 64;
/// Page directories, or with PAE the tables of pointers to them: two, a page each.
pub const DIRECTORIES: u32 = 0x0011_2000;
/// PAE's page directories, a page each.
pub const WIDE_DIRECTORIES: u32 = 0x0011_4000;
/// The tables of the first 4 MiB: two pages for each directory.
pub const TABLES: u32 = 0x0011_6000;
/// Two pages of stack for ring 3.
pub const USER_STACK: u32 = 0x0011_a000;
/// Data.
pub const DATA: u32 = 0x0012_0000;
/// Bytes of data.
pub const DATA_BYTES: u32 = 0x8000;
/// The last page of the data is never spoilt: a word for each block, for its loop.
pub const COUNTERS: u32 = DATA + 0x7f00;
/// Where an image for FXRSTOR is.
pub const FLOATING: u32 = DATA + 0x7c00;
/// Code of ring 0.
pub const KERNEL_TEXT: u32 = 0x0012_8000;
/// Code of ring 3.
pub const USER_TEXT: u32 = 0x0012_c000;
/// Bytes of each of the two.
pub const TEXT_BYTES: u32 = 0x4000;
/// Where the image ends.
pub const END: u32 = 0x0013_0000;
/// Where the first 4 MiB are seen again.
pub const HIGH: u32 = 0xc000_0000;
/// Where the pages from [`DATA`] to [`END`] are seen again, for virtual-8086 mode.
pub const LOW: u32 = 0x0001_0000;
/// Bytes of memory that a program needs.
pub const MEMORY: u64 = 2 << 20;
/// Bytes of a page.
pub const PAGE: u32 = 0x1000;

/// Ring-0 code, flat.
pub const KERNEL_CODE: u16 = 0x80;
/// Ring-0 data, flat.
pub const KERNEL_DATA: u16 = 0x88;
/// Ring-3 code, flat.
pub const USER_CODE: u16 = 0x93;
/// Ring-3 data, flat.
pub const USER_DATA: u16 = 0x9b;
/// 16-bit code of ring 0; its base is [`KERNEL_TEXT`].
pub const KERNEL_CODE_16: u16 = 0xa0;
/// 16-bit data of ring 0; its base is [`DATA`].
pub const KERNEL_DATA_16: u16 = 0xa8;
/// 16-bit code of ring 3; its base is [`USER_TEXT`].
pub const USER_CODE_16: u16 = 0xb3;
/// 16-bit data of ring 3; its base is [`DATA`].
pub const USER_DATA_16: u16 = 0xbb;
/// Ring-0 code of 32 bits whose base is [`LOAD`]: for gates of 16 bits.
pub const BASED_CODE: u16 = 0xc0;
/// The task state segment.
pub const TSS_SELECTOR: u16 = 0xc8;
/// The second one.
pub const SECOND_TSS_SELECTOR: u16 = 0xd0;
/// The LDT.
pub const LDT_SELECTOR: u16 = 0xd8;
/// The first descriptor that is random.
pub const RANDOM: u16 = 0x100;

/// The vector that ends a block.
pub const NEXT_VECTOR: u8 = 0x81;
/// The vector of the first IRQ.
pub const IRQ_BASE: u8 = 0x20;
/// Real-mode selectors of virtual-8086 mode: code of ring 3, and data.
pub const LOW_CODE: u16 = ((LOW + USER_TEXT - DATA) >> 4) as u16;
/// Data for virtual-8086 mode.
pub const LOW_DATA: u16 = (LOW >> 4) as u16;
