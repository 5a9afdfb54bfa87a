//! A guest page fault: touch, handler maps the page, IRET, unmap, INVLPG.

use crate::runtime::prelude::*;

const PAGE: u32 = layout::HEAP;
/// What the page holds.
const CONTENT: u32 = 0x1_0000;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("pgfault", Setup::USUAL);
    let entry = layout::entry_of(PAGE) as i32;
    let handler = g.label();
    g.gate(14, Gate::Interrupt, handler);
    x86!(g
        ; jmp >over
        ; =>handler
        ; mov eax, cr2
        ; sub eax, PAGE as i32 // 0 if it is the page meant
        ; lea ebx, [ebx + eax + 1]
        ; mov DWORD [entry], (PAGE | layout::PRESENT | layout::WRITABLE) as i32
        ; add esp, 4 // the error code
        ; iretd
        ; over:
        ; xor ebx, ebx
        ; mov DWORD [PAGE as i32], CONTENT as i32
    );
    g.begin();
    x86!(g ; mov DWORD [entry], 0 ; invlpg [PAGE as i32]);
    g.repeat(iterations, |g| {
        x86!(g
            ; add ebx, [PAGE as i32]
            ; mov DWORD [entry], 0
            ; invlpg [PAGE as i32]
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations.wrapping_mul(CONTENT + 1))
}
