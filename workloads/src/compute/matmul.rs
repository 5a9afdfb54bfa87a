//! Matrix multiplication in double precision on the x87.

use super::kernel::{Kernel, function, repeated};
use crate::runtime::prelude::*;

/// Rows and columns.
const SIZE: u32 = 16;
const ROW: i32 = SIZE as i32 * 8;
const MATRIX: i32 = ROW * SIZE as i32;
/// Where a sum is stored as an integer, after the three matrices A, B and C.
const TOTAL: i32 = 3 * MATRIX;

pub(super) const KERNEL: Kernel = Kernel {
    name: "matmul",
    summary: "x87 matrix multiplication; an iteration multiplies two 16x16 matrices of doubles",
    sse: false,
    data_bytes: TOTAL as u32 + 8,
    data,
    prepare: None,
    emit,
    checksum: |iterations| repeated(total(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        x86!(asm
            ; fldz // the sum of all elements of C stays at the stack's bottom
            ; lea edi, [esi + 2 * MATRIX]
            ; mov ebx, esi // row of A
            ; mov ebp, SIZE as i32
            ; row:
            ; lea edx, [esi + MATRIX] // column of B
            ; mov ecx, SIZE as i32
            ; column:
            ; fldz
            ; xor eax, eax
            ; push edx
            ; term:
            ; fld QWORD [ebx + eax * 8]
            ; fmul QWORD [edx]
            ; faddp st1, st0
            ; add edx, ROW
            ; inc eax
            ; cmp eax, SIZE as i32
            ; jb <term
            ; pop edx
            ; fst QWORD [edi]
            ; faddp st1, st0
            ; add edi, 8
            ; add edx, 8
            ; dec ecx
            ; jnz <column
            ; add ebx, ROW
            ; dec ebp
            ; jnz <row
            ; fistp DWORD [esi + TOTAL]
            ; mov eax, [esi + TOTAL]
            ; xor eax, [esi + 2 * MATRIX + ROW + 12] // and one element of C, as it was stored
        );
    });
}

/// The elements of the two factors: small integers, so that the result does not depend on rounding.
fn element(matrix: u32, row: u32, column: u32) -> u32 {
    (row * 7 + column * 3 + matrix * 5) % 16
}

fn data() -> Vec<u8> {
    let elements =
        (0..2).flat_map(|m| (0..SIZE * SIZE).map(move |i| element(m, i / SIZE, i % SIZE)));
    elements.flat_map(|element| f64::from(element).to_le_bytes()).collect()
}

fn product(row: u32, column: u32) -> u32 {
    (0..SIZE).map(|k| element(0, row, k) * element(1, k, column)).sum()
}

fn total() -> u32 {
    let sum: u32 = (0..SIZE * SIZE).map(|i| product(i / SIZE, i % SIZE)).sum();
    sum ^ (f64::from(product(1, 1)).to_bits() >> 32) as u32
}
