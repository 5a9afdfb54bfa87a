//! The font: how wide text is, and its pixels.
//!
//! A small subset of DejaVu Sans comes with the program, so that PNGs look the same on every host
//! and layout needs no system fonts. SVGs name a list of families and leave the choice to the
//! viewer; DejaVu is wider than the others in the list, so text that fits here fits there.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use std::sync::LazyLock;

/// What SVGs ask the viewer for.
pub(super) const FAMILIES: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

static REGULAR: LazyLock<FontRef<'static>> =
    LazyLock::new(|| parse(include_bytes!("font/DejaVuSans-subset.ttf")));
static BOLD: LazyLock<FontRef<'static>> =
    LazyLock::new(|| parse(include_bytes!("font/DejaVuSans-Bold-subset.ttf")));

fn parse(bytes: &'static [u8]) -> FontRef<'static> {
    FontRef::try_from_slice(bytes).expect("the font that comes with the program is valid")
}

fn font(bold: bool) -> &'static FontRef<'static> {
    if bold { &BOLD } else { &REGULAR }
}

/// `PxScale` counts from ascender to descender, sizes are those of the em square.
fn scale(font: &FontRef<'_>, size: f64) -> PxScale {
    let units = font.units_per_em().unwrap_or(2048.0);
    PxScale::from((size * f64::from(font.height_unscaled() / units)) as f32)
}

/// The width of a line of text.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let font = font(bold);
    let scaled = font.as_scaled(scale(font, size));
    text.chars().map(|c| f64::from(scaled.h_advance(scaled.glyph_id(c)))).sum()
}

/// Calls `pixel` with offset and coverage for every pixel of a line of text whose baseline begins at
/// the origin.
pub(super) fn rasterize(text: &str, size: f64, bold: bool, mut pixel: impl FnMut(i32, i32, f32)) {
    let font = font(bold);
    let scaled = font.as_scaled(scale(font, size));
    let mut x = 0.0;
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        let glyph = id.with_scale_and_position(scaled.scale(), point(x, 0.0));
        x += scaled.h_advance(id);
        if let Some(outline) = font.outline_glyph(glyph) {
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                pixel(corner.x as i32 + dx as i32, corner.y as i32 + dy as i32, coverage);
            });
        }
    }
}

/// Text without what neither XML nor a picture can hold.
pub(super) fn printable(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !('\u{fffe}'..='\u{ffff}').contains(&c);
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}

/// Breaks text at spaces so that no line is wider than `room`, into at most `lines` lines. What does
/// not fit ends in an ellipsis.
pub(super) fn wrap(text: &str, size: f64, room: f64, lines: usize) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let joined = result.last().map(|line| format!("{line} {word}"));
        match joined {
            Some(joined) if width(&joined, size, false) <= room => {
                result.pop();
                result.push(joined);
            }
            Some(joined) if result.len() == lines => {
                result.pop();
                let rest: Vec<&str> = words.collect();
                result.push(elide(&format!("{joined} {}", rest.join(" ")), size, room));
                return result;
            }
            _ => result.push(elide(word, size, room)),
        }
    }
    result
}

/// Cuts text to the width `room`.
pub(super) fn elide(text: &str, size: f64, room: f64) -> String {
    if width(text, size, false) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = width("…", size, false);
    for c in text.chars() {
        used += width(c.encode_utf8(&mut [0; 4]), size, false);
        if used > room {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // DejaVu Sans: every digit is 1303 of 2048 units wide.
        assert!((width("0123456789", 10.0, false) - 63.62).abs() < 0.05);
        assert!(width("0123", 10.0, true) > width("0123", 10.0, false));
    }

    #[test]
    fn every_character_that_plots_use_has_a_glyph() {
        for c in "×µ–—…·≥≤±⁻⁰¹²³⁴⁵⁶⁷⁸⁹½%\u{fffd}".chars() {
            assert_ne!(REGULAR.glyph_id(c).0, 0, "{c}");
            assert_ne!(BOLD.glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn wrapped_lines_fit_and_lose_nothing() {
        let lines = wrap("hardware-assist (KVM in software: kvm_pvm)", 11.0, 150.0, 3);
        assert!(lines.iter().all(|line| width(line, 11.0, false) <= 150.0));
        assert_eq!(lines.join(" "), "hardware-assist (KVM in software: kvm_pvm)");
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis() {
        let long = "word ".repeat(100) + &"x".repeat(500);
        let lines = wrap(&long, 11.0, 100.0, 2);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with('…'));
        assert!(lines.iter().all(|line| width(line, 11.0, false) <= 100.0));
    }

    #[test]
    fn text_has_pixels() {
        let mut dark = 0;
        rasterize("Ag", 20.0, false, |_, y, coverage| {
            assert!((-20..8).contains(&y));
            dark += u32::from(coverage > 0.5);
        });
        assert!(dark > 50);
    }
}
