//! Translations thrown away, one by one or all at once, and found again by touching the pages.

use crate::runtime::prelude::*;

/// The pages; page k holds k + 1.
const PAGES: u32 = 16;
const SUM: u32 = PAGES * (PAGES + 1) / 2;

fn page(number: u32) -> i32 {
    (layout::HEAP + number * 4096) as i32
}

fn assemble(name: &'static str, iterations: u32, round: fn(&mut Guest)) -> Result<Image, Error> {
    let mut g = Guest::boot(name, Setup::USUAL);
    for number in 0..PAGES {
        x86!(g ; mov DWORD [page(number)], number as i32 + 1);
    }
    g.begin();
    x86!(g ; xor ebx, ebx ; mov ecx, cr3);
    g.repeat(iterations, round);
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations.wrapping_mul(SUM))
}

pub(super) fn evict(iterations: u32) -> Result<Image, Error> {
    assemble("tlb-evict", iterations, |g| {
        for number in 0..PAGES {
            x86!(g ; invlpg [page(number)] ; add ebx, [page(number)]);
        }
    })
}

pub(super) fn flush(iterations: u32) -> Result<Image, Error> {
    assemble("tlb-flush", iterations, |g| {
        x86!(g ; mov cr3, ecx);
        for number in 0..PAGES {
            x86!(g ; add ebx, [page(number)]);
        }
    })
}
