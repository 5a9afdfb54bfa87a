//! A guest that waits: HLT until the timer ticks.

use crate::runtime::prelude::*;

const HERTZ: u32 = 1000;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("idle", Setup::USUAL);
    g.count_ticks();
    g.set_up_pics(1 << 0);
    g.start_pit(HERTZ);
    x86!(g ; xor ebx, ebx);
    g.begin();
    g.repeat(iterations, |g| {
        x86!(g
            ; mov eax, [layout::TICKS as i32]
            ; wait:
            ; sti
            ; hlt // STI's shadow: a tick cannot come between the two
            ; cli
            ; cmp eax, [layout::TICKS as i32] // something else may have woken it
            ; je <wait
            ; inc ebx
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
