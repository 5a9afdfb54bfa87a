//! A system call: ring 3 to 0 by INT, and back by IRET.

use crate::runtime::prelude::*;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("syscall", Setup::USUAL);
    let handler = g.label();
    g.gate(0x80, Gate::UserTrap, handler);
    x86!(g
        ; jmp >over
        ; =>handler
        ; inc ebx
        ; iretd
        ; over:
        ; xor ebx, ebx
    );
    g.begin();
    g.ring3(|g| g.repeat(iterations, |g| x86!(g ; int 0x80u8 as i8)));
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
