//! Memory: a few lines again and again, in ring 0 and in ring 3, and pages far apart.

use crate::runtime::prelude::*;
use crate::sums::sum_to;

/// Words of the hot workloads: one a line.
const LINES: u32 = 8;
const LINE: u32 = 64;

/// The ring of a hot workload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    Kernel,
    User,
}

pub(super) fn hot(iterations: u32) -> Result<Image, Error> {
    accumulate("memory-hot", iterations, Ring::Kernel)
}

pub(super) fn user(iterations: u32) -> Result<Image, Error> {
    accumulate("memory-user", iterations, Ring::User)
}

/// Adds the count of the iteration to each word, by a load and a store; the result is the sum of
/// the words.
fn accumulate(name: &'static str, iterations: u32, ring: Ring) -> Result<Image, Error> {
    let words = (0..LINES).map(|line| (layout::HEAP + line * LINE) as i32);
    let mut g = Guest::boot(name, Setup::USUAL);
    for word in words.clone() {
        x86!(g ; mov DWORD [word], 0);
    }
    let measured = |g: &mut Guest| {
        g.repeat(iterations, |g| {
            for word in words.clone() {
                x86!(g ; mov eax, [word] ; add eax, ebp ; mov [word], eax);
            }
        });
    };
    g.begin();
    match ring {
        Ring::Kernel => measured(&mut g),
        Ring::User => g.ring3(measured),
    }
    g.end();
    x86!(g ; xor eax, eax);
    for word in words.clone() {
        x86!(g ; add eax, [word]);
    }
    g.finish(sum_to(iterations).wrapping_mul(LINES))
}

/// Pages of the cold workload, a power of two: 32 MiB.
const PAGES: u32 = 8192;
/// From one page to the next, odd so that all are visited.
const STRIDE: u32 = 1031;
/// Reads in an iteration.
const READS: u32 = 64;
/// Guest memory of the cold workload.
pub(super) const COLD_MIB: u32 = 48;

/// Every read goes to another page, far away; page p holds p. A round over all pages takes
/// [`PAGES`] / [`READS`] iterations.
pub(super) fn cold(iterations: u32) -> Result<Image, Error> {
    let paging = Paging::Small { mib: COLD_MIB, user: true };
    let mut g = Guest::boot("memory-cold", Setup { paging, ..Setup::default() });
    x86!(g ; xor ecx, ecx ; fill:);
    address_of_page(&mut g);
    x86!(g ; mov [eax], ecx ; inc ecx ; cmp ecx, PAGES as i32 ; jb <fill);
    g.begin();
    x86!(g ; xor ebx, ebx ; xor ecx, ecx);
    g.repeat(iterations, |g| {
        x86!(g ; mov esi, READS as i32 ; read:);
        address_of_page(g);
        x86!(g
            ; add ebx, [eax]
            ; add ecx, STRIDE as i32
            ; and ecx, (PAGES - 1) as i32
            ; dec esi
            ; jnz <read
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(cold_sum(iterations))
}

/// The word of page ECX, to EAX: in another line of each page, so that pages do not share a set of
/// the cache. Changes EDX.
fn address_of_page(g: &mut Guest) {
    x86!(g
        ; mov eax, ecx
        ; shl eax, 12
        ; mov edx, ecx
        ; and edx, 63
        ; shl edx, 6
        ; lea eax, [eax + edx + layout::HEAP as i32]
    );
}

fn cold_sum(iterations: u32) -> u32 {
    let reads = u64::from(iterations) * u64::from(READS);
    let rounds = (reads / u64::from(PAGES)) as u32;
    let rest = (reads % u64::from(PAGES)) as u32;
    let visited = (0..rest).map(|read| (read * STRIDE) % PAGES);
    rounds.wrapping_mul(sum_to(PAGES - 1)).wrapping_add(visited.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cold_sum_agrees_with_walking() {
        for iterations in [1, 7, PAGES / READS, PAGES / READS + 1, 1000] {
            let walk = (0..iterations * READS).fold((0u32, 0u32), |(sum, page), _| {
                (sum.wrapping_add(page), (page + STRIDE) % PAGES)
            });
            assert_eq!(cold_sum(iterations), walk.0);
        }
    }
}
