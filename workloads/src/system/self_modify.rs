//! A guest that generates code, runs it, changes it and runs it again, all in ring 3.

use crate::runtime::prelude::*;

/// Where the generated function is: on its own page, away from the code that writes it.
const FUNCTION: i32 = layout::HEAP as i32;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("self-modify", Setup::USUAL);
    x86!(g ; xor ebx, ebx ; mov esi, FUNCTION);
    g.begin();
    g.ring3(|g| {
        g.repeat(iterations, |g| {
            x86!(g
                ; mov BYTE [esi], 0xB8u8 as i8 // mov eax, EBP's value
                ; mov [esi + 1], ebp
                ; mov BYTE [esi + 5], 0xC3u8 as i8 // ret
                ; call esi
                ; add ebx, eax
                ; mov BYTE [esi], 0x05 // now add eax, the same
                ; call esi
                ; add ebx, eax
            );
        });
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(checksum(iterations))
}

/// An iteration adds its number, counting down, three times.
fn checksum(iterations: u32) -> u32 {
    let n = u128::from(iterations);
    (3 * n * (n + 1) / 2) as u32
}
