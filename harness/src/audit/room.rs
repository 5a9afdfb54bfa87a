//! Whether code patching has room at a site for a jump to a stub.
//!
//! The jump takes five bytes. Where the instruction is shorter, its neighbours before and behind it
//! move into the stub along with it, under two conditions: control comes to none of them from
//! elsewhere, but for the first, and none but the last calls or ends there; conditional jumps get a
//! longer displacement. Padding behind an instruction that does not go on is room too. For
//! `sti; ret; nop; nop; nop`:
//!
//! ```text
//! fb c3 90 90 90      →   e9 xx xx xx xx      jmp stub
//!                         stub: (set IF on the virtual CPU); ret
//! ```
//!
//! Which places control comes to is known as far as the image tells: branches, return addresses,
//! symbols, constants in code, and words of data that are addresses in code. A patcher that watches
//! the guest run knows no more, and has to be ready for a jump into the middle of a patch.

use super::decode::{Code, Mark, Site};

/// Bytes of a jump with a 32-bit displacement.
const JUMP: usize = 5;
/// NOP and INT3, with which compilers fill up.
const PADDING: [u8; 2] = [0x90, 0xcc];

/// Whether a jump finds room.
pub(super) fn has_room(code: &Code<'_>, site: &Site) -> bool {
    let marks = &code.marks[site.piece];
    let site_end = site.offset + site.length;
    let mut first = site.offset;
    loop {
        if can_move(code, site.piece, first, site_end.max(first + JUMP)) {
            return true;
        }
        match before(marks, first) {
            Some(previous) if site_end - first < JUMP => first = previous,
            _ => return false,
        }
    }
}

/// Whether the instructions from `first` on can be moved, at least up to `end`.
fn can_move(code: &Code<'_>, piece: usize, first: usize, end: usize) -> bool {
    let marks = &code.marks[piece];
    let mut at = first;
    while at < end {
        let Some(next) = end_of(marks, at) else { return false };
        let others = &marks[at.max(first + 1)..next];
        if others.iter().any(|mark| mark.has(Mark::TARGET)) {
            return false;
        }
        if marks[at].has(Mark::END) {
            return next >= end || is_padding(code, piece, next, end);
        }
        if marks[at].has(Mark::TRANSFER) {
            return next >= end;
        }
        at = next;
    }
    true
}

/// Where the instruction ends that begins at `at`, if one does.
fn end_of(marks: &[Mark], at: usize) -> Option<usize> {
    marks.get(at).filter(|mark| mark.has(Mark::START))?;
    let goes_on = |mark: &&Mark| mark.has(Mark::BODY) && !mark.has(Mark::START);
    Some(at + 1 + marks[at + 1..].iter().take_while(goes_on).count())
}

/// Where the instruction begins that ends at `at` and goes on there.
fn before(marks: &[Mark], at: usize) -> Option<usize> {
    let previous = marks[..at].iter().rposition(|mark| !mark.has(Mark::BODY))?;
    let leaves = marks[previous].has(Mark::TRANSFER) || marks[previous].has(Mark::END);
    (marks[previous].has(Mark::START) && !leaves).then_some(previous)
}

/// Whether there is only padding, to which control does not come.
fn is_padding(code: &Code<'_>, piece: usize, from: usize, to: usize) -> bool {
    let bytes = code.program.pieces[piece].bytes.get(from..to);
    let marks = code.marks[piece].get(from..to).unwrap_or_default();
    bytes.is_some_and(|bytes| bytes.iter().all(|byte| PADDING.contains(byte)))
        && marks.iter().all(|mark| !mark.has(Mark::TARGET))
}
