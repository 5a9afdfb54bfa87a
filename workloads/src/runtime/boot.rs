//! The multiboot header, and the way from what the loader leaves to flat segments, own tables and
//! paging.

use super::descriptors::table_register;
use super::guest::{Guest, Segment};
use super::layout;
use crate::x86;
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// The paging that the runtime sets up. All of it maps linear to equal physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Paging {
    /// CR0.PG stays clear.
    #[default]
    Off,
    /// 4 KiB pages for the first `mib` MiB, at most [`layout::SMALL_PAGES_MIB`].
    Small {
        /// How much to map.
        mib: u32,
        /// Whether ring 3 may use the pages.
        user: bool,
    },
    /// 4 MiB pages (CR4.PSE) for the first `mib` MiB.
    Large {
        /// How much to map.
        mib: u32,
        /// Whether ring 3 may use the pages.
        user: bool,
    },
}

impl Paging {
    /// 4 KiB pages for [`layout::MEMORY`], for both rings: how most workloads run.
    pub const USUAL: Paging = Paging::Small { mib: layout::MEMORY_MIB, user: true };
}

/// What a workload wants set up before its own code runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    /// Paging.
    pub paging: Paging,
    /// Whether to enable SSE (CR4.OSFXSR and CR4.OSXMMEXCPT).
    pub sse: bool,
}

impl Setup {
    /// [`Paging::USUAL`], no SSE.
    pub const USUAL: Setup = Setup { paging: Paging::USUAL, sse: false };
}

const CR0_FLAGS: u32 = 0x33; // PE, MP, ET, NE
const CR0_PAGING: u32 = 0x8001_0000; // PG, WP
const CR4_PSE: u32 = 0x10;
const CR4_SSE: u32 = 0x600; // OSFXSR, OSXMMEXCPT

/// The multiboot 1 header with the a.out kludge. Memory after the file's end is cleared by the
/// loader up to [`layout::HEAP`].
pub(super) fn multiboot_header(file_bytes: u32) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const FLAGS: u32 = 0x0001_0000;
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
    let load_end = layout::LOAD + file_bytes;
    [MAGIC, FLAGS, checksum, layout::LOAD, layout::LOAD, load_end, layout::HEAP, layout::TEXT]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

impl Guest {
    /// Emits the code at the entry point.
    pub(super) fn emit_start(&mut self, setup: Setup) {
        self.emit_tables();
        let cr4 = if setup.sse { CR4_SSE } else { 0 };
        self.write_cr0(CR0_FLAGS);
        self.write_cr4(cr4);
        x86!(self ; fninit);
        match setup.paging {
            Paging::Off => {}
            Paging::Small { mib, user } => self.map_small(mib, user),
            Paging::Large { mib, user } => {
                self.write_cr4(cr4 | CR4_PSE);
                self.map_large(mib, user);
            }
        }
    }

    fn emit_tables(&mut self) {
        let gdtr = self.data(&table_register(layout::GDT, layout::GDT_ENTRIES * 8)) as i32;
        let idtr = self.data(&table_register(layout::IDT, 256 * 8)) as i32;
        x86!(self
            ; cli
            ; cld
            ; mov esp, layout::KERNEL_STACK as i32
            ; lgdt [gdtr]
            ; lidt [idtr]
            ; .bytes [0xEA] // jmp far
            ; .abs32 >flat
            ; .u16 layout::KERNEL_CODE
            ; flat:
        );
        self.load_segment(Segment::Ss, layout::KERNEL_DATA);
        for segment in [Segment::Ds, Segment::Es, Segment::Fs, Segment::Gs] {
            self.load_segment(segment, layout::USER_DATA);
        }
        x86!(self ; mov eax, i32::from(layout::TSS_SELECTOR) ; ltr ax);
    }

    fn write_cr0(&mut self, value: u32) {
        x86!(self ; mov eax, value as i32 ; mov cr0, eax);
    }

    fn write_cr4(&mut self, value: u32) {
        if value != 0 {
            x86!(self ; mov eax, value as i32 ; mov cr4, eax);
        }
    }
}

// Paging.
impl Guest {
    /// Fills the page tables one after the other, then the directory.
    fn map_small(&mut self, mib: u32, user: bool) {
        let rights = layout::PRESENT | layout::WRITABLE | if user { layout::USER } else { 0 };
        let mib = mib.div_ceil(4) * 4;
        self.expect_that(mib <= layout::SMALL_PAGES_MIB, "the page tables do not reach that far");
        self.fill(layout::PAGE_TABLES, rights, 4096, mib * 256);
        self.fill(layout::PAGE_DIRECTORY, layout::PAGE_TABLES | rights, 4096, mib / 4);
        self.turn_paging_on();
    }

    fn map_large(&mut self, mib: u32, user: bool) {
        let rights = layout::PRESENT | layout::WRITABLE | if user { layout::USER } else { 0 };
        let pages = mib.div_ceil(4);
        self.fill(layout::PAGE_DIRECTORY, layout::LARGE | rights, 4 << 20, pages);
        self.turn_paging_on();
    }

    /// Writes `count` doublewords from `address` on: `first`, `first + step`, …
    pub fn fill(&mut self, address: u32, first: u32, step: u32, count: u32) {
        x86!(self
            ; mov edi, address as i32
            ; mov eax, first as i32
            ; mov ecx, count as i32
            ; next:
            ; mov [edi], eax
            ; add eax, step as i32
            ; add edi, 4
            ; dec ecx
            ; jnz <next
        );
    }

    fn turn_paging_on(&mut self) {
        x86!(self
            ; mov eax, layout::PAGE_DIRECTORY as i32
            ; mov cr3, eax
            ; mov eax, (CR0_FLAGS | CR0_PAGING) as i32
            ; mov cr0, eax
            ; jmp >paged // Intel SDM vol. 3, 10.9.1: a jump after the change of mode
            ; paged:
        );
    }
}
