//! Addresses of code in data: tables of handlers, jump tables, the kernel's lists of fixups.
//!
//! They are no proof that code is there, so nothing is decoded on their account. But control may
//! come there, and what it may come to, code patching must leave where it is.

use super::decode::Code;

/// Notes as targets what aligned words of data point to: words outside of instructions, as addresses
/// and, as Linux keeps its tables, as distances from where they stand.
pub(super) fn note(code: &mut Code<'_>) {
    for number in 0..code.program.pieces.len() {
        let piece = &code.program.pieces[number];
        for (index, word) in piece.bytes.chunks_exact(4).enumerate() {
            let marks = code.marks[number].get(index * 4..index * 4 + 4).unwrap_or_default();
            if marks.iter().any(|mark| mark.is_decoded()) {
                continue;
            }
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let address = piece.address.wrapping_add(index as u32 * 4);
            if value != 0 {
                code.note_target(value);
                code.note_target(value.wrapping_add(address));
            }
        }
    }
}
