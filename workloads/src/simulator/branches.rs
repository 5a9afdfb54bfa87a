//! Jumps, direct and indirect, within a page and to other pages: what a translator's chaining can
//! and cannot do.
//!
//! [`PLACES`] places are visited in a scattered order; an iteration is one round. The indirect
//! jumps go by two tables in turn, so that each of them has two targets.

use crate::runtime::prelude::*;

const PLACES: usize = 16;
/// The steps of the two rounds, odd so that every place is visited.
const STEPS: [usize; 2] = [5, 11];

/// One of the four workloads: how far apart the places are, and how one leads to the next.
#[derive(Clone, Copy)]
struct Branches {
    name: &'static str,
    /// Bytes from one place to the next.
    spacing: usize,
    indirect: bool,
}

const PAGE: usize = 4096;
/// A line of the cache each, so that places are not neighbours.
const SAME_PAGE: usize = 64;

pub(super) fn same_page(iterations: u32) -> Result<Image, Error> {
    Branches { name: "branch-same-page", spacing: SAME_PAGE, indirect: false }.assemble(iterations)
}

pub(super) fn same_page_indirect(iterations: u32) -> Result<Image, Error> {
    Branches { name: "branch-same-page-indirect", spacing: SAME_PAGE, indirect: true }
        .assemble(iterations)
}

pub(super) fn other_page(iterations: u32) -> Result<Image, Error> {
    Branches { name: "branch-other-page", spacing: PAGE, indirect: false }.assemble(iterations)
}

pub(super) fn other_page_indirect(iterations: u32) -> Result<Image, Error> {
    Branches { name: "branch-other-page-indirect", spacing: PAGE, indirect: true }
        .assemble(iterations)
}

/// The place after `place` in the round of `step`; none after the last.
fn successor(place: usize, step: usize) -> Option<usize> {
    Some((place + step) % PLACES).filter(|&next| next != 0)
}

impl Branches {
    fn assemble(self, iterations: u32) -> Result<Image, Error> {
        let mut g = Guest::boot(self.name, Setup::USUAL);
        let places: [DynamicLabel; PLACES] = std::array::from_fn(|_| g.label());
        let (over, out) = (g.label(), g.label());
        let tables = STEPS.map(|_| g.data(&[0; PLACES * 4]) as i32);
        x86!(g ; jmp =>over);
        self.emit_places(&mut g, &places, out);
        x86!(g ; =>over);
        if self.indirect {
            fill_tables(&mut g, tables, &places, out);
        }
        g.begin();
        x86!(g ; xor ebx, ebx ; mov esi, tables[0]);
        g.repeat(iterations, |g| {
            x86!(g ; jmp =>places[0] ; =>out ; xor esi, tables[0] ^ tables[1]);
        });
        g.end();
        x86!(g ; mov eax, ebx);
        // Place k adds k + 1.
        g.finish(iterations.wrapping_mul((PLACES * (PLACES + 1) / 2) as u32))
    }

    fn emit_places(self, g: &mut Guest, places: &[DynamicLabel; PLACES], out: DynamicLabel) {
        // All of them in one page, or each in its own.
        x86!(g ; .align PAGE);
        for (number, &place) in places.iter().enumerate() {
            x86!(g ; .align self.spacing ; =>place ; add ebx, number as i32 + 1);
            if self.indirect {
                x86!(g ; jmp DWORD [esi + 4 * number as i32]);
            } else {
                let next = successor(number, STEPS[0]).map_or(out, |next| places[next]);
                x86!(g ; jmp =>next);
            }
        }
        x86!(g ; .align PAGE);
    }
}

fn fill_tables(
    g: &mut Guest,
    tables: [i32; 2],
    places: &[DynamicLabel; PLACES],
    out: DynamicLabel,
) {
    for (table, step) in tables.into_iter().zip(STEPS) {
        for number in 0..PLACES {
            let next = successor(number, step).map_or(out, |next| places[next]);
            x86!(g ; lea eax, [=>next] ; mov [table + 4 * number as i32], eax);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_every_place_once() {
        for step in STEPS {
            let round = std::iter::successors(Some(0), |&place| successor(place, step));
            let mut visited: Vec<usize> = round.collect();
            visited.sort_unstable();
            assert_eq!(visited, (0..PLACES).collect::<Vec<_>>());
        }
    }
}
