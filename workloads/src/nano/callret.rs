//! A call of a function that returns at once: what indirect control flow costs a translator.

use crate::runtime::prelude::*;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("callret", Setup::USUAL);
    let function = g.label();
    x86!(g
        ; jmp >over
        ; =>function
        ; inc ebx
        ; ret
        ; over:
        ; xor ebx, ebx
    );
    g.begin();
    g.repeat(iterations, |g| x86!(g ; call =>function));
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
