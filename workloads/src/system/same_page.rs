//! Data beside code: each store goes to the page that the storing code is on. Monitors that write-
//! protect translated or patched code see a fault a store; the others see nothing.

use crate::runtime::prelude::*;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("same-page", Setup::USUAL);
    x86!(g
        ; jmp >over
        ; .align 64, 0xCC
        ; variable:
        ; .u32 0
        ; .align 64, 0xCC
        ; over:
        ; lea esi, [<variable]
        ; xor ebx, ebx
    );
    g.begin();
    g.ring3(|g| {
        g.repeat(iterations, |g| {
            x86!(g
                ; inc DWORD [esi]
                ; add ebx, [esi]
            );
        });
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(checksum(iterations))
}

/// The sum of the numbers up to `iterations`.
fn checksum(iterations: u32) -> u32 {
    let n = u64::from(iterations);
    (u128::from(n) * u128::from(n + 1) / 2) as u32
}
