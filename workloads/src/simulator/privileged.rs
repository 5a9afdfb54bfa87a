//! Reads of control registers, and a device behind memory addresses.

use crate::runtime::prelude::*;
use crate::sums::sum_to;

pub(super) fn control_register(iterations: u32) -> Result<Image, Error> {
    /// CR0 as the runtime leaves it: PG, WP, NE, ET, MP, PE.
    const CR0: u32 = 0x8001_0033;
    let mut g = Guest::boot("control-register", Setup::USUAL);
    g.begin();
    x86!(g ; xor ebx, ebx);
    g.repeat(iterations, |g| {
        x86!(g ; mov eax, cr0 ; add ebx, eax ; mov eax, cr3 ; add ebx, eax);
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations.wrapping_mul(CR0.wrapping_add(layout::PAGE_DIRECTORY)))
}

/// A cell of the text screen, near its end: written, and read back.
pub(super) fn device_access(iterations: u32) -> Result<Image, Error> {
    const CELL: i32 = 0xB_8F00;
    let mut g = Guest::boot("device-access", Setup::USUAL);
    g.begin();
    x86!(g ; xor ebx, ebx);
    g.repeat(iterations, |g| {
        x86!(g ; mov [CELL], bp ; movzx eax, WORD [CELL] ; add ebx, eax);
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(sum_of_low_halves(iterations))
}

/// The sum of the low halves of 1, 2, …, `last`.
fn sum_of_low_halves(last: u32) -> u32 {
    let rounds = last >> 16;
    rounds.wrapping_mul(sum_to(0xFFFF)).wrapping_add(sum_to(last & 0xFFFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_low_halves_is_right_beyond_a_round() {
        for last in [1, 0xFFFF, 0x1_0000, 0x2_0003] {
            let sum = (1..=last).fold(0u32, |sum, value| sum.wrapping_add(value & 0xFFFF));
            assert_eq!(sum_of_low_halves(last), sum);
        }
    }
}
