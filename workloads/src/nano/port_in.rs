//! A read of a port that changes nothing: the line status of the first UART.

use crate::runtime::prelude::*;

/// Line status of COM1.
const PORT: i32 = 0x3FD;
/// Transmitter empty, holding register empty: set in an idle UART, and where there is none.
const IDLE: u32 = 0x60;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("in", Setup::USUAL);
    x86!(g ; xor ebx, ebx);
    g.begin();
    x86!(g ; mov edx, PORT);
    g.repeat(iterations, |g| {
        x86!(g
            ; in al, dx
            ; and eax, IDLE as i32
            ; add ebx, eax
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations.wrapping_mul(IDLE))
}
