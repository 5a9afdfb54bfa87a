//! A write of CR3: what switching address spaces costs before anything is touched.

use crate::runtime::prelude::*;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("cr3wr", Setup::USUAL);
    x86!(g ; xor ebx, ebx);
    g.begin();
    x86!(g ; mov eax, cr3);
    g.repeat(iterations, |g| x86!(g ; mov cr3, eax ; inc ebx));
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
