//! The sieve of Eratosthenes on a byte array: short loops, byte stores, branches.

use super::kernel::{Kernel, function, repeated};
use crate::runtime::prelude::*;

const NUMBERS: u32 = 8192;

pub(super) const KERNEL: Kernel = Kernel {
    name: "sieve",
    summary: "sieve of Eratosthenes; an iteration sieves 8192 numbers and sums the primes",
    sse: false,
    data_bytes: NUMBERS,
    data: Vec::new,
    prepare: None,
    emit,
    checksum: |iterations| repeated(sum_of_primes(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        x86!(asm
            ; mov edi, esi
            ; mov eax, 0x0101_0101
            ; mov ecx, NUMBERS as i32 / 4
            ; rep stosd
            ; xor eax, eax // the sum
            ; mov ecx, 2
            ; number:
            ; cmp BYTE [esi + ecx], 0
            ; je >next
            ; add eax, ecx
            ; lea edx, [ecx + ecx]
            ; cmp edx, NUMBERS as i32
            ; jae >next
            ; multiple:
            ; mov BYTE [esi + edx], 0
            ; add edx, ecx
            ; cmp edx, NUMBERS as i32
            ; jb <multiple
            ; next:
            ; inc ecx
            ; cmp ecx, NUMBERS as i32
            ; jb <number
        );
    });
}

fn sum_of_primes() -> u32 {
    let is_prime = |n: u32| (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (2..NUMBERS).filter(|&n| is_prime(n)).sum()
}
