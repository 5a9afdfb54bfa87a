//! A text screen as a picture: 720 x 400 pixels, as a VGA shows it, with a font of 8 x 8 dots whose
//! rows are doubled.

use super::frame::character;
use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};
use machine::devices::{COLUMNS, Cell, TextScreen};

const WIDTH: u32 = 9;
const HEIGHT: u32 = 16;
/// Characters whose eighth column is repeated in the ninth, so that lines join.
const JOINED: std::ops::RangeInclusive<u8> = 0xc0..=0xdf;

/// The picture.
pub(super) fn draw(screen: &TextScreen) -> RgbImage {
    let rows = (screen.cells.len() / COLUMNS) as u32;
    let mut picture = RgbImage::new(COLUMNS as u32 * WIDTH, rows * HEIGHT);
    for (at, &cell) in screen.cells.iter().enumerate() {
        let corner = ((at % COLUMNS) as u32 * WIDTH, (at / COLUMNS) as u32 * HEIGHT);
        draw_cell(&mut picture, screen, cell, corner);
    }
    if let Some((column, row)) = screen.cursor {
        let cell = screen.cells[row * COLUMNS + column];
        let colour = Rgb(screen.palette[usize::from(cell.attribute & 0xf)]);
        for x in 0..WIDTH {
            for y in HEIGHT - 3..HEIGHT - 1 {
                picture.put_pixel(column as u32 * WIDTH + x, row as u32 * HEIGHT + y, colour);
            }
        }
    }
    picture
}

fn draw_cell(picture: &mut RgbImage, screen: &TextScreen, cell: Cell, (left, top): (u32, u32)) {
    let glyph = glyph(character(cell.character));
    let foreground = Rgb(screen.palette[usize::from(cell.attribute & 0xf)]);
    let background = Rgb(screen.palette[usize::from(cell.attribute >> 4 & 7)]);
    for y in 0..HEIGHT {
        let dots = glyph[(y / 2) as usize];
        for x in 0..WIDTH {
            let column = if x == 8 && JOINED.contains(&cell.character) { 7 } else { x };
            let is_set = column < 8 && dots >> column & 1 != 0;
            picture.put_pixel(left + x, top + y, if is_set { foreground } else { background });
        }
    }
}

/// Eight rows of dots, the leftmost in bit 0.
fn glyph(character: char) -> [u8; 8] {
    let fonts = [
        font8x8::BASIC_FONTS.get(character),
        font8x8::BOX_FONTS.get(character),
        font8x8::BLOCK_FONTS.get(character),
        font8x8::LATIN_FONTS.get(character),
        font8x8::GREEK_FONTS.get(character),
        font8x8::MISC_FONTS.get(character),
    ];
    fonts.into_iter().flatten().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::devices::ROWS;

    #[test]
    fn a_block_fills_its_cell_and_nothing_else() {
        let mut screen = TextScreen {
            cells: vec![Cell { character: b' ', attribute: 0x1f }; ROWS * COLUMNS],
            cursor: None,
            palette: std::array::from_fn(|colour| [colour as u8; 3]),
        };
        screen.cells[1].character = 0xdb;
        let picture = draw(&screen);
        assert_eq!(picture.dimensions(), (720, 400));
        let lit = |x: u32, y: u32| picture.get_pixel(x, y).0 == [15; 3];
        assert!((9..18).all(|x| (0..16).all(|y| lit(x, y))));
        assert!(!lit(8, 0) && !lit(18, 0) && !lit(9, 16));
        assert_eq!(picture.get_pixel(0, 0).0, [1; 3]);
    }
}
