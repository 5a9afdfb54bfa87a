//! A divide error whose handler steps over the division.

use crate::runtime::prelude::*;

/// Bytes of DIV ECX.
const DIV_BYTES: i32 = 2;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("divzero", Setup::USUAL);
    let handler = g.label();
    g.gate(0, Gate::Interrupt, handler);
    x86!(g
        ; jmp >over
        ; =>handler
        ; add DWORD [esp], DIV_BYTES
        ; inc ebx
        ; iretd
        ; over:
        ; xor ebx, ebx
    );
    g.begin();
    x86!(g ; xor ecx, ecx ; mov eax, 1 ; xor edx, edx);
    g.repeat(iterations, |g| x86!(g ; div ecx));
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
