//! Copies by REP MOVS: one of aligned doublewords, one of bytes to an odd address.

use super::kernel::{Kernel, bytes, function, noise, repeated};
use crate::runtime::prelude::*;

const LENGTH: u32 = 32 << 10;
/// Where the aligned copy goes.
const ALIGNED: i32 = LENGTH as i32;
/// Where the copy to an odd address goes.
const ODD: i32 = 2 * LENGTH as i32 + 1;
/// Offsets of the words that are looked at: the first, one across pages, the last.
const SAMPLES: [i32; 3] = [0, 4094, LENGTH as i32 - 4];

pub(super) const KERNEL: Kernel = Kernel {
    name: "memcpy",
    summary: "REP MOVSD and REP MOVSB; an iteration copies 32 KiB with each",
    sse: false,
    data_bytes: 3 * LENGTH + 4096,
    data: source,
    prepare: None,
    emit,
    checksum: |iterations| repeated(digest(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        for copy in [ALIGNED, ODD] {
            for sample in SAMPLES {
                x86!(asm ; mov DWORD [esi + copy + sample], 0);
            }
        }
        x86!(asm
            ; mov ebx, esi
            ; lea edi, [ebx + ALIGNED]
            ; mov ecx, LENGTH as i32 / 4
            ; rep movsd
            ; mov esi, ebx
            ; lea edi, [ebx + ODD]
            ; mov ecx, LENGTH as i32
            ; rep movsb
            ; xor eax, eax
        );
        for copy in [ALIGNED, ODD] {
            for sample in SAMPLES {
                x86!(asm ; rol eax, 1 ; add eax, [ebx + copy + sample]);
            }
        }
    });
}

fn source() -> Vec<u8> {
    bytes(noise(0x0BAD_CAFE).take(LENGTH as usize / 4))
}

fn digest() -> u32 {
    let source = source();
    let word = |at: i32| {
        let at = at as usize;
        u32::from_le_bytes([source[at], source[at + 1], source[at + 2], source[at + 3]])
    };
    [SAMPLES, SAMPLES]
        .concat()
        .into_iter()
        .fold(0, |digest: u32, at| digest.rotate_left(1).wrapping_add(word(at)))
}
