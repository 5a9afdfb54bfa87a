//! Serial output on COM1 by polling the line status, as kernels print while they boot.

use crate::runtime::prelude::*;

const DATA: u16 = 0x3F8;
const LINE_STATUS: u16 = DATA + 5;
/// The bytes written are [`FIRST`] and the 63 after it, over and over.
const FIRST: u32 = 0x20;
const CYCLE: u32 = 64;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("console", Setup::USUAL);
    emit_set_up(&mut g);
    x86!(g ; xor ebx, ebx);
    g.begin();
    g.repeat(iterations, |g| {
        x86!(g
            ; mov edx, i32::from(LINE_STATUS)
            ; busy:
            ; in al, dx
            ; test al, 0x20 // the holding register is empty
            ; jz <busy
            ; mov edx, i32::from(DATA)
            ; mov eax, ebp
            ; and eax, (CYCLE - 1) as i32
            ; add eax, FIRST as i32
            ; out dx, al
            ; add ebx, eax
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(checksum(iterations))
}

/// 115200 baud, 8N1, FIFOs on, no interrupts.
fn emit_set_up(g: &mut Guest) {
    let writes = [(1, 0x00u8), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0x07), (4, 0x03)];
    for (register, value) in writes {
        x86!(g
            ; mov edx, i32::from(DATA + register)
            ; mov al, value as i8
            ; out dx, al
        );
    }
}

/// The sum of the bytes: EBP runs from `iterations` down to 1.
fn checksum(iterations: u32) -> u32 {
    let (cycles, rest) = (iterations / CYCLE, iterations % CYCLE);
    let sum_to = |last: u32| last * (last + 1) / 2;
    let residues = cycles.wrapping_mul(sum_to(CYCLE - 1)).wrapping_add(sum_to(rest));
    residues.wrapping_add(iterations.wrapping_mul(FIRST))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_closed_form_agrees_with_the_sum() {
        for iterations in [1u32, 63, 64, 65, 1000] {
            let sum: u32 = (1..=iterations).map(|byte| byte % 64 + 0x20).sum();
            assert_eq!(super::checksum(iterations), sum);
        }
    }
}
