//! An edit of a page-table entry: the page shows one frame, then the other.

use crate::runtime::prelude::*;

const PAGE: u32 = layout::HEAP;
/// The frame shown first, and the other: they differ in one bit.
const FRAMES: [u32; 2] = [layout::HEAP, layout::HEAP + 0x1000];
/// What the frames hold.
const CONTENT: [u32; 2] = [3, 5];

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("ptemod", Setup::USUAL);
    let entry = layout::entry_of(PAGE) as i32;
    for (frame, content) in FRAMES.into_iter().zip(CONTENT) {
        x86!(g ; mov DWORD [frame as i32], content as i32);
    }
    x86!(g ; xor ebx, ebx);
    g.begin();
    g.repeat(iterations, |g| {
        x86!(g
            ; xor DWORD [entry], (FRAMES[0] ^ FRAMES[1]) as i32
            ; invlpg [PAGE as i32]
            ; add ebx, [PAGE as i32]
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(checksum(iterations))
}

/// The edits show the second frame first; a stale translation changes the sum.
fn checksum(iterations: u32) -> u32 {
    let first = iterations / 2;
    let second = iterations - first;
    first.wrapping_mul(CONTENT[0]).wrapping_add(second.wrapping_mul(CONTENT[1]))
}
