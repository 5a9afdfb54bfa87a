//! MOV to and from CR3, and INVLPG: which translation is in force.

use super::trap::{Ring, Trap};
use crate::runtime::prelude::*;

/// The page that is shown, in one address space the first frame, in the other the second.
const PAGE: u32 = layout::HEAP;
const FRAMES: [u32; 2] = [layout::HEAP, layout::HEAP + 0x1000];
const CONTENTS: [u32; 2] = [3, 5];

const DIRECTORIES: [u32; 2] = [layout::PAGE_DIRECTORY, layout::SPARE];
/// The second address space's table for the 4 MiB that hold everything.
const SECOND_TABLE: u32 = layout::SPARE + 0x1000;
/// CR3.PWT and CR3.PCD: no effect here, but kept.
const CACHING: u32 = 0x18;

fn guest(name: &'static str) -> Guest {
    let mut g = Guest::for_probes(name);
    for (frame, content) in FRAMES.into_iter().zip(CONTENTS) {
        x86!(g ; mov DWORD [frame as i32], content as i32);
    }
    g
}

/// The sum of what is shown when the second frame comes first, then the first, and so on.
fn alternating(iterations: u32) -> u32 {
    let firsts = iterations / 2;
    let seconds = iterations - firsts;
    firsts.wrapping_mul(CONTENTS[0]).wrapping_add(seconds.wrapping_mul(CONTENTS[1]))
}

pub(super) fn mov_cr3(iterations: u32) -> Result<Image, Error> {
    const RIGHTS: u32 = layout::PRESENT | layout::WRITABLE | layout::USER;
    let mut g = guest("mov-cr3");
    g.copy(DIRECTORIES[0], DIRECTORIES[1], 1024);
    g.copy(layout::PAGE_TABLES, SECOND_TABLE, 1024);
    let entry = SECOND_TABLE + (PAGE >> 12) * 4;
    x86!(g
        ; mov DWORD [DIRECTORIES[1] as i32], (SECOND_TABLE | RIGHTS) as i32
        ; mov DWORD [entry as i32], (FRAMES[1] | RIGHTS) as i32
        ; mov eax, cr3
    );
    g.probe("ring0-read", DIRECTORIES[0]);
    x86!(g ; mov eax, (DIRECTORIES[1] | CACHING) as i32 ; mov cr3, eax ; mov eax, cr3);
    g.probe("ring0-second", DIRECTORIES[1] | CACHING);
    x86!(g ; mov eax, [PAGE as i32]);
    g.probe("ring0-second-page", CONTENTS[1]);
    x86!(g ; mov eax, DIRECTORIES[0] as i32 ; mov cr3, eax ; mov eax, [PAGE as i32]);
    g.probe("ring0-first-page", CONTENTS[0]);
    x86!(g ; mov eax, DIRECTORIES[0] as i32);
    g.probe_trap(Ring::USER, "ring3-write", Trap::GP0, |g| x86!(g ; mov cr3, eax));
    g.probe_trap(Ring::USER, "ring3-read", Trap::GP0, |g| x86!(g ; mov eax, cr3));
    x86!(g ; mov ecx, DIRECTORIES[0] as i32);
    g.measure(iterations, |g| {
        x86!(g
            ; xor ecx, (DIRECTORIES[0] ^ DIRECTORIES[1]) as i32
            ; mov cr3, ecx
            ; add ebx, [PAGE as i32]
        );
    });
    g.finish(alternating(iterations))
}

pub(super) fn invlpg(iterations: u32) -> Result<Image, Error> {
    let mut g = guest("invlpg");
    let entry = layout::entry_of(PAGE) as i32;
    x86!(g ; mov eax, [PAGE as i32]);
    g.probe("ring0-before", CONTENTS[0]);
    let flip = |g: &mut Guest| {
        x86!(g
            ; xor DWORD [entry], (FRAMES[0] ^ FRAMES[1]) as i32
            ; invlpg [PAGE as i32]
        );
    };
    flip(&mut g);
    x86!(g ; mov eax, [PAGE as i32]);
    g.probe("ring0-after", CONTENTS[1]);
    // An address that is not mapped raises nothing (Intel SDM vol. 2, INVLPG).
    g.probe_trap(Ring::Zero, "ring0-unmapped", Trap::None, |g| {
        x86!(g ; invlpg [layout::MEMORY as i32]);
    });
    g.probe_trap(Ring::USER, "ring3", Trap::GP0, |g| x86!(g ; invlpg [PAGE as i32]));
    flip(&mut g);
    // The entry stays as it is: the cost is the instruction's, and of finding the page again.
    g.measure(iterations, |g| x86!(g ; invlpg [PAGE as i32] ; add ebx, [PAGE as i32]));
    g.finish(iterations.wrapping_mul(CONTENTS[0]))
}
