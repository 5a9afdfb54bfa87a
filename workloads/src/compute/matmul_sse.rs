//! Matrix multiplication in packed single precision with SSE.

use super::kernel::{Kernel, function, repeated};
use crate::runtime::prelude::*;

/// Rows and columns.
const SIZE: u32 = 32;
const ROW: i32 = SIZE as i32 * 4;
const MATRIX: i32 = ROW * SIZE as i32;

pub(super) const KERNEL: Kernel = Kernel {
    name: "matmul-sse",
    summary: "SSE matrix multiplication; an iteration multiplies two 32x32 matrices of singles",
    sse: true,
    data_bytes: 3 * MATRIX as u32,
    data,
    prepare: None,
    emit,
    checksum: |iterations| repeated(total(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        x86!(asm
            ; lea edi, [esi + 2 * MATRIX]
            ; mov ebx, esi // row of A
            ; mov ebp, SIZE as i32
            ; row:
            ; lea edx, [esi + MATRIX] // four columns of B
            ; mov ecx, SIZE as i32 / 4
            ; columns:
            ; xorps xmm0, xmm0
            ; xor eax, eax
            ; push edx
            ; term:
            ; movss xmm1, [ebx + eax * 4]
            ; shufps xmm1, xmm1, 0
            ; mulps xmm1, [edx]
            ; addps xmm0, xmm1
            ; add edx, ROW
            ; inc eax
            ; cmp eax, SIZE as i32
            ; jb <term
            ; pop edx
            ; movaps [edi], xmm0
            ; add edi, 16
            ; add edx, 16
            ; dec ecx
            ; jnz <columns
            ; add ebx, ROW
            ; dec ebp
            ; jnz <row
            // The bit patterns of C, rotated and summed, from the last.
            ; xor eax, eax
            ; mov ecx, (SIZE * SIZE) as i32
            ; element:
            ; rol eax, 1
            ; add eax, [esi + ecx * 4 + 2 * MATRIX - 4]
            ; dec ecx
            ; jnz <element
        );
    });
}

/// The elements of the two factors: small integers, so that the result does not depend on rounding.
fn element(matrix: u32, row: u32, column: u32) -> u32 {
    (row * 5 + column * 11 + matrix * 3) % 16
}

fn data() -> Vec<u8> {
    let elements =
        (0..2).flat_map(|m| (0..SIZE * SIZE).map(move |i| element(m, i / SIZE, i % SIZE)));
    elements.flat_map(|element| (element as f32).to_le_bytes()).collect()
}

fn total() -> u32 {
    let product = |row, column| -> u32 {
        (0..SIZE).map(|k| element(0, row, k) * element(1, k, column)).sum()
    };
    let bits = (0..SIZE * SIZE).rev().map(|i| (product(i / SIZE, i % SIZE) as f32).to_bits());
    bits.fold(0, |digest: u32, bits| digest.rotate_left(1).wrapping_add(bits))
}
