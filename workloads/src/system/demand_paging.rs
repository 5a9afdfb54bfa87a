//! Demand paging: ring 3 walks over fresh pages, the kernel clears a frame and maps it at each page
//! fault; at the end of a pass ring 3 asks by INT 0x80 for all to be unmapped.

use crate::runtime::prelude::*;

const AREA: u32 = 8 << 20;
const PAGES: u32 = 32;
/// The frames: taken from the end down, so that pages are not mapped to equal addresses.
const FRAMES_END: u32 = 16 << 20;
const NEXT_FRAME: i32 = layout::SCRATCH as i32;
const FAULTS: i32 = layout::SCRATCH as i32 + 4;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("demand-paging", Setup::USUAL);
    let (over, unmap) = (g.label(), g.label());
    x86!(g ; jmp =>over);
    emit_fault_handler(&mut g);
    emit_unmap(&mut g, unmap);
    x86!(g ; =>over ; xor ebx, ebx ; mov DWORD [FAULTS], 0);
    g.begin();
    g.ring3(|g| {
        x86!(g ; int 0x80u8 as i8);
        g.repeat(iterations, |g| {
            x86!(g
                ; mov esi, AREA as i32
                ; mov ecx, PAGES as i32
                ; page:
                ; add [esi], ecx // the page was cleared: this is ECX
                ; add ebx, [esi]
                ; add esi, 4096
                ; dec ecx
                ; jnz <page
                ; int 0x80u8 as i8
            );
        });
    });
    g.end();
    x86!(g ; mov eax, [FAULTS] ; shl eax, 16 ; add eax, ebx);
    let pass = PAGES * (PAGES + 1) / 2 + (PAGES << 16);
    g.finish(iterations.wrapping_mul(pass))
}

fn emit_fault_handler(g: &mut Guest) {
    let handler = g.label();
    g.gate(14, Gate::Interrupt, handler);
    let rights = layout::PRESENT | layout::WRITABLE | layout::USER;
    x86!(g
        ; =>handler
        ; pushad
        ; mov edi, [NEXT_FRAME]
        ; sub edi, 4096
        ; mov [NEXT_FRAME], edi
        ; lea ebx, [edi + rights as i32]
        ; xor eax, eax
        ; mov ecx, 1024
        ; rep stosd // through the kernel's identity mapping
        ; mov edx, cr2
        ; shr edx, 12
        ; mov [layout::PAGE_TABLES as i32 + edx * 4], ebx
        ; inc DWORD [FAULTS]
        ; popad
        ; add esp, 4 // the error code
        ; iretd
    );
}

/// INT 0x80: all pages of the area go, and their frames are free.
fn emit_unmap(g: &mut Guest, handler: DynamicLabel) {
    g.gate(0x80, Gate::UserInterrupt, handler);
    x86!(g
        ; =>handler
        ; pushad
        ; mov DWORD [NEXT_FRAME], FRAMES_END as i32
        ; xor eax, eax
        ; mov edi, layout::entry_of(AREA) as i32
        ; mov ecx, PAGES as i32
        ; rep stosd
        ; mov eax, cr3
        ; mov cr3, eax
        ; popad
        ; iretd
    );
}
