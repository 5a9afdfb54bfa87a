//! Linear sweep: executable sections are decoded from beginning to end.
//!
//! Where sections and symbols tell code from data, this misses nothing. Decoding begins anew at
//! each function, so that a gap between two cannot throw it out of step for long; what symbols call
//! data is passed over.

use super::decode::Code;
use super::image::{CodeSize, SymbolKind};

/// Decodes all executable pieces.
pub(super) fn sweep(code: &mut Code<'_>, size: CodeSize) {
    for number in 0..code.program.pieces.len() {
        if code.program.pieces[number].is_code {
            sweep_piece(code, number, size);
        }
    }
}

fn sweep_piece(code: &mut Code<'_>, number: usize, size: CodeSize) {
    let length = code.program.pieces[number].bytes.len();
    let mut landmarks = landmarks(code, number).into_iter().peekable();
    let mut offset = 0;
    while offset < length {
        while landmarks.next_if(|landmark| landmark.end.max(landmark.begin) <= offset).is_some() {}
        let limit = match landmarks.peek() {
            Some(data) if data.begin <= offset => {
                offset = data.end;
                continue;
            }
            Some(next) => next.begin.min(length),
            None => length,
        };
        offset += code.decode((number, offset), limit, size).map_or(1, |found| found.len());
    }
}

/// A place in a piece at which an instruction begins, or data that is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Landmark {
    begin: usize,
    /// The data's end; for a function, its beginning.
    end: usize,
}

/// The landmarks of a piece, by place.
fn landmarks(code: &Code<'_>, number: usize) -> Vec<Landmark> {
    let piece = &code.program.pieces[number];
    let landmark = |symbol: &super::image::Symbol| {
        let begin = piece.offset_of(symbol.address)?;
        let end = begin.saturating_add(symbol.size as usize).min(piece.bytes.len());
        match symbol.kind {
            SymbolKind::Function => Some(Landmark { begin, end: begin }),
            SymbolKind::Data if end > begin => Some(Landmark { begin, end }),
            _ => None,
        }
    };
    code.program.symbols.iter().filter_map(landmark).collect()
}
