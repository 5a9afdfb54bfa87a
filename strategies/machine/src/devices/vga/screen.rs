//! What a VGA text screen shows, as data: for a terminal, a picture, or a test.

use super::Vga;
use super::memory::TEXT;
use super::registers::crt;

/// Columns of the text screen.
pub const COLUMNS: usize = 80;
/// Rows of the text screen.
pub const ROWS: usize = 25;

/// A character on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// The character's code in code page 437.
    pub character: u8,
    /// Foreground colour in bits 0 to 3, background in 4 to 6, blinking in bit 7.
    pub attribute: u8,
}

/// The screen at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextScreen {
    /// [`ROWS`] rows of [`COLUMNS`] cells, from the top left.
    pub cells: Vec<Cell>,
    /// Column and row of the cursor, unless it is off or off the screen.
    pub cursor: Option<(usize, usize)>,
    /// The sixteen colours of attributes, in 8-bit red, green and blue.
    pub palette: [[u8; 3]; 16],
}

impl TextScreen {
    /// The rows as text, without the blanks at their ends. What is not printable ASCII shows as a
    /// full stop, and NUL as a blank.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let printable = |cell: &Cell| match cell.character {
            0 => ' ',
            printable @ 0x20..=0x7e => char::from(printable),
            _ => '.',
        };
        let line = |row: &[Cell]| row.iter().map(printable).collect::<String>();
        self.cells.chunks(COLUMNS).map(|row| line(row).trim_end().to_owned()).collect()
    }
}

impl Vga {
    /// What the text screen shows now.
    #[must_use]
    pub fn text_screen(&self) -> TextScreen {
        let crtc = &self.crt_controller;
        let start = usize::from(crtc.pair(crt::START_HIGH));
        // The offset register counts in units of two characters.
        let pitch = match usize::from(crtc.registers[crt::OFFSET]) * 2 {
            0 => COLUMNS,
            pitch => pitch,
        };
        let cell = |row: usize, column: usize| self.cell(start + row * pitch + column);
        let rows = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
        TextScreen {
            cells: rows.map(|(row, column)| cell(row, column)).collect(),
            cursor: self.cursor(start, pitch),
            palette: std::array::from_fn(|colour| self.colour(colour)),
        }
    }

    /// A character and its attribute, in 32 KiB of text memory that wraps.
    fn cell(&self, index: usize) -> Cell {
        let text = &self.memory.bytes()[TEXT];
        let at = 2 * index % text.len();
        Cell { character: text[at], attribute: text[at + 1] }
    }

    fn cursor(&self, start: usize, pitch: usize) -> Option<(usize, usize)> {
        let crtc = &self.crt_controller;
        let off = crtc.registers[crt::CURSOR_START] & crt::CURSOR_OFF != 0;
        let at = usize::from(crtc.pair(crt::CURSOR_HIGH)).checked_sub(start)?;
        let (column, row) = (at % pitch, at / pitch);
        (!off && column < COLUMNS && row < ROWS).then_some((column, row))
    }

    fn colour(&self, attribute: usize) -> [u8; 3] {
        self.dac.colour(self.attribute.registers[attribute] & 0x3f)
    }
}
