//! A text screen as control sequences for a terminal (ECMA-48): only what has changed since the last
//! frame.

use super::frame::character;
use machine::devices::{COLUMNS, Cell, TextScreen};
use std::fmt::Write;

/// What leaves the terminal usable: plain colours, a cursor, a line of its own.
pub(super) const END: &str = "\x1b[0m\x1b[?25h\x1b[26;1H\r\n";
/// An empty screen to begin with.
const BEGIN: &str = "\x1b[0m\x1b[2J";

/// Knows what the terminal shows.
#[derive(Default)]
pub(super) struct Painter {
    shown: Option<TextScreen>,
}

impl Painter {
    /// What makes the terminal show `screen`.
    pub(super) fn paint(&mut self, screen: &TextScreen) -> String {
        if self.shown.as_ref() == Some(screen) {
            return String::new();
        }
        let mut text = String::new();
        if self.shown.is_none() {
            text += BEGIN;
        }
        let same_palette = |old: &&TextScreen| old.palette == screen.palette;
        let old = self.shown.as_ref().filter(same_palette).map(|old| &old.cells);
        paint_cells(&mut text, screen, old);
        text += match screen.cursor {
            Some(_) => "\x1b[?25h",
            None => "\x1b[?25l",
        };
        if let Some((column, row)) = screen.cursor {
            // Writing to a string does not fail.
            let _ = write!(text, "\x1b[{};{}H", row + 1, column + 1);
        }
        self.shown = Some(screen.clone());
        text
    }
}

fn paint_cells(text: &mut String, screen: &TextScreen, old: Option<&Vec<Cell>>) {
    let mut place = None;
    let mut attribute = None;
    for (at, cell) in screen.cells.iter().enumerate() {
        if old.is_some_and(|old| old.get(at) == Some(cell)) {
            continue;
        }
        let (row, column) = (at / COLUMNS, at % COLUMNS);
        if place != Some(at) || column == 0 {
            let _ = write!(text, "\x1b[{};{}H", row + 1, column + 1);
        }
        if attribute != Some(cell.attribute) {
            paint_colours(text, screen, cell.attribute);
            attribute = Some(cell.attribute);
        }
        text.push(character(cell.character));
        place = Some(at + 1);
    }
    if attribute.is_some() {
        text.push_str("\x1b[0m");
    }
}

fn paint_colours(text: &mut String, screen: &TextScreen, attribute: u8) {
    let [r, g, b] = screen.palette[usize::from(attribute & 0xf)];
    let [br, bg, bb] = screen.palette[usize::from(attribute >> 4 & 7)];
    let blink = if attribute & 0x80 != 0 { ";5" } else { "" };
    let _ = write!(text, "\x1b[0{blink};38;2;{r};{g};{b};48;2;{br};{bg};{bb}m");
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::devices::ROWS;

    fn screen() -> TextScreen {
        TextScreen {
            cells: vec![Cell { character: b' ', attribute: 7 }; ROWS * COLUMNS],
            cursor: Some((0, 0)),
            palette: [[1, 2, 3]; 16],
        }
    }

    #[test]
    fn a_screen_that_stays_costs_nothing() {
        let mut painter = Painter::default();
        assert!(painter.paint(&screen()).starts_with(BEGIN));
        assert_eq!(painter.paint(&screen()), "");
    }

    #[test]
    fn only_what_changed_is_painted() {
        let mut painter = Painter::default();
        painter.paint(&screen());
        let mut changed = screen();
        changed.cells[COLUMNS + 2].character = b'x';
        let text = painter.paint(&changed);
        assert!(text.starts_with("\x1b[2;3H\x1b[0;38;2;1;2;3;48;2;1;2;3mx\x1b[0m"), "{text:?}");
        changed.cursor = None;
        assert_eq!(painter.paint(&changed), "\x1b[?25l");
    }

    #[test]
    fn nothing_of_the_guest_reaches_the_terminal_as_a_control_character() {
        let mut cells = screen();
        for (code, cell) in (0..=255).zip(&mut cells.cells) {
            cell.character = code;
        }
        let text = Painter::default().paint(&cells);
        let controls = text.chars().filter(|c| c.is_control() && *c != '\x1b').count();
        assert_eq!(controls, 0);
    }
}
