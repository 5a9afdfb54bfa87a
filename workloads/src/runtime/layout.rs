//! Where everything is in guest memory, and the selectors of the GDT.
//!
//! All addresses are physical and, with the identity paging of the runtime, linear. The page of the
//! header is at the start so that it lies in the first 8 KiB of the file, as multiboot requires; the
//! text comes last in the file so that it may grow.
//!
//! Selectors are ones that ring 3 of a 64-bit Linux host cannot load (TLS slots that are empty, or
//! beyond the limit of its GDT): under direct execution every load of one traps. With Linux's own
//! 0x7B as user data segment a load in ring 3 would silently bring the host's descriptor.

/// Where the image is loaded: the multiboot header.
pub const LOAD: u32 = 0x0010_0000;
/// The global descriptor table, [`GDT_ENTRIES`] entries.
pub const GDT: u32 = 0x0010_1000;
/// The task state segment with an I/O bitmap for all ports.
pub const TSS: u32 = 0x0010_2000;
/// The interrupt descriptor table, 256 gates.
pub const IDT: u32 = 0x0010_5000;
/// A page of variables: the runtime's, and from [`SCRATCH`] on the workload's. Zero at the start.
pub const STATE: u32 = 0x0010_6000;
/// Initialised data, [`Guest::data`](super::Guest::data).
pub const DATA: u32 = 0x0010_7000;
/// Code.
pub const TEXT: u32 = 0x0012_0000;
/// The end of what code may fill.
pub const TEXT_END: u32 = 0x0016_0000;
/// The top of the ring-0 stack on which the workload's code runs.
pub const KERNEL_STACK: u32 = 0x0017_0000;
/// The top of the ring-0 stack for interrupts from ring 3 (the TSS's ESP0).
pub const INTERRUPT_STACK: u32 = 0x0017_8000;
/// The top of the ring-3 stack.
pub const USER_STACK: u32 = 0x0019_0000;
/// The runtime's page directory.
pub const PAGE_DIRECTORY: u32 = 0x0019_0000;
/// The runtime's page tables, one after the other: the entry of linear address L is at
/// `PAGE_TABLES + (L >> 12) * 4`.
pub const PAGE_TABLES: u32 = 0x0019_1000;
/// Pages that the runtime does not use and clears at the start, up to [`HEAP`].
pub const SPARE: u32 = 0x001D_0000;
/// From here on, memory is the workload's, up to the end of its guest's memory. Not cleared.
pub const HEAP: u32 = 0x0020_0000;

/// Guest memory of workloads that need no more than usual.
pub const MEMORY: u32 = 16 << 20;
/// [`MEMORY`] in MiB, for [`Paging`](super::Paging).
pub const MEMORY_MIB: u32 = MEMORY >> 20;

/// The address of the runtime's page-table entry for linear address `linear`.
#[must_use]
pub const fn entry_of(linear: u32) -> u32 {
    PAGE_TABLES + (linear >> 12) * 4
}

/// How many MiB the runtime's page tables can map with 4 KiB pages.
pub const SMALL_PAGES_MIB: u32 = (SPARE - PAGE_TABLES) / 4096 * 4;

/// Where [`Guest::ring3`](super::Guest::ring3) keeps the kernel's stack pointer.
pub(super) const SAVED_ESP: u32 = STATE;
/// Where [`Guest::ring3`](super::Guest::ring3) keeps the address at which the kernel goes on.
pub(super) const SAVED_EIP: u32 = STATE + 4;
/// Ticks of the PIT, counted by [`Guest::count_ticks`](super::Guest::count_ticks).
pub const TICKS: u32 = STATE + 8;
/// The workload's own variables: from here to the end of the page.
pub const SCRATCH: u32 = STATE + 0x100;

/// Entries of the GDT: 0x80 to 0xFF are the runtime's and spare.
pub const GDT_ENTRIES: u32 = 32;
/// Ring-0 code, flat.
pub const KERNEL_CODE: u16 = 0x60;
/// Ring-0 data, flat: only SS holds it.
pub const KERNEL_DATA: u16 = 0x68;
/// The task state segment.
pub const TSS_SELECTOR: u16 = 0x80;
/// A GDT slot that is free for an LDT.
pub const LDT_SELECTOR: u16 = 0x88;
/// Ring-3 code, flat, with RPL 3.
pub const USER_CODE: u16 = 0x93;
/// Ring-3 data, flat, with RPL 3: DS, ES, FS and GS in both rings, SS in ring 3.
pub const USER_DATA: u16 = 0x9B;
/// The first selector that is free for the workload.
pub const FREE_SELECTOR: u16 = 0xA0;

/// The vector of IRQ 0; the master's eight and the slave's eight follow.
pub const IRQ_BASE: u8 = 0x20;
/// The vector of [`Guest::ring3`](super::Guest::ring3)'s way back.
pub const LEAVE_RING3: u8 = 0x81;

/// EFLAGS with IF set, for frames that IRET pops.
pub const EFLAGS_IF: u32 = 0x202;
/// EFLAGS with IF clear.
pub const EFLAGS_NONE: u32 = 0x002;

/// A page-table entry's present bit (Intel SDM vol. 3, 5.3).
pub const PRESENT: u32 = 1;
/// A page-table entry's writable bit.
pub const WRITABLE: u32 = 2;
/// A page-table entry's user bit.
pub const USER: u32 = 4;
/// A page-directory entry's bit for a 4 MiB page.
pub const LARGE: u32 = 0x80;
