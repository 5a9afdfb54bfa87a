//! A text screen as bytes of fixed size: cells, cursor, palette. Any bytes are a screen.

use machine::devices::{COLUMNS, Cell, ROWS, TextScreen};

const CELLS: usize = ROWS * COLUMNS * 2;
const PALETTE: usize = 16 * 3;
/// Bytes of a frame.
pub(in crate::run) const SIZE: usize = CELLS + 2 + PALETTE;

/// Where no cursor is.
const NO_CURSOR: u8 = 0xff;

/// The bytes of a screen.
pub(in crate::run) fn encode(screen: &TextScreen) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (pair, cell) in bytes[..CELLS].chunks_exact_mut(2).zip(&screen.cells) {
        pair.copy_from_slice(&[cell.character, cell.attribute]);
    }
    let (column, row) = screen.cursor.unwrap_or((NO_CURSOR.into(), NO_CURSOR.into()));
    bytes[CELLS] = u8::try_from(column).unwrap_or(NO_CURSOR);
    bytes[CELLS + 1] = u8::try_from(row).unwrap_or(NO_CURSOR);
    bytes[CELLS + 2..].copy_from_slice(screen.palette.as_flattened());
    bytes
}

/// The screen of some bytes.
pub(super) fn decode(bytes: &[u8; SIZE]) -> TextScreen {
    let cell = |pair: &[u8]| Cell { character: pair[0], attribute: pair[1] };
    let (column, row) = (usize::from(bytes[CELLS]), usize::from(bytes[CELLS + 1]));
    let colour = |number: usize| std::array::from_fn(|part| bytes[CELLS + 2 + 3 * number + part]);
    TextScreen {
        cells: bytes[..CELLS].chunks_exact(2).map(cell).collect(),
        cursor: (column < COLUMNS && row < ROWS).then_some((column, row)),
        palette: std::array::from_fn(colour),
    }
}

/// The character that a code of code page 437 shows.
pub(super) fn character(code: u8) -> char {
    let shown = PAGE_437.chars().nth(usize::from(code));
    shown.unwrap_or(' ')
}

const PAGE_437: &str = concat!(
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_",
    "`abcdefghijklmnopqrstuvwxyz{|}~⌂",
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»",
    "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_survives_the_way_through_the_file() {
        let screen = TextScreen {
            cells: (0..ROWS * COLUMNS)
                .map(|at| Cell { character: at as u8, attribute: (at >> 8) as u8 })
                .collect(),
            cursor: Some((79, 24)),
            palette: std::array::from_fn(|colour| [colour as u8, 1, 2]),
        };
        assert_eq!(decode(&encode(&screen)), screen);
        let hidden = TextScreen { cursor: None, ..screen };
        assert_eq!(decode(&encode(&hidden)), hidden);
    }

    #[test]
    fn any_bytes_are_a_screen() {
        let screen = decode(&[0xff; SIZE]);
        assert_eq!((screen.cells.len(), screen.cursor), (ROWS * COLUMNS, None));
    }

    #[test]
    fn the_code_page_is_whole() {
        assert_eq!(PAGE_437.chars().count(), 256);
        assert!((0x20..0x7f).all(|code: u8| character(code) == char::from(code)));
        assert_eq!([0xb3, 0xc4, 0xdb, 0xfe].map(character), ['│', '─', '█', '■']);
    }
}
