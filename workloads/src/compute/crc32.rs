//! CRC-32 by table, a byte at a time: a chain of dependent loads.

use super::kernel::{Kernel, bytes, function, noise, repeated};
use crate::runtime::prelude::*;

const TABLE: i32 = 0;
const MESSAGE: i32 = 1024;
const LENGTH: u32 = 4096;

pub(super) const KERNEL: Kernel = Kernel {
    name: "crc32",
    summary: "CRC-32 by table; an iteration covers 4096 bytes",
    sse: false,
    data_bytes: MESSAGE as u32 + LENGTH,
    data: || [bytes(table()), message()].concat(),
    prepare: None,
    emit,
    checksum: |iterations| repeated(crc32(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        x86!(asm
            ; lea edi, [esi + MESSAGE]
            ; mov ecx, LENGTH as i32
            ; mov eax, -1
            ; byte:
            ; movzx edx, BYTE [edi]
            ; movzx ebx, al
            ; xor edx, ebx
            ; shr eax, 8
            ; xor eax, [esi + edx * 4 + TABLE]
            ; inc edi
            ; dec ecx
            ; jnz <byte
            ; not eax
        );
    });
}

fn table() -> impl Iterator<Item = u32> {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
    (0..256).map(move |index| (0..8).fold(index, step))
}

fn message() -> Vec<u8> {
    bytes(noise(0x1234_5678).take(LENGTH as usize / 4))
}

fn crc32() -> u32 {
    let table: Vec<u32> = table().collect();
    let step = |crc: u32, byte: u8| crc >> 8 ^ table[(crc as u8 ^ byte) as usize];
    !message().into_iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_that_of_crc_32() {
        assert_eq!(super::table().nth(1), Some(0x7707_3096));
        assert_eq!(super::table().nth(255), Some(0x2D02_EF8D));
    }
}
