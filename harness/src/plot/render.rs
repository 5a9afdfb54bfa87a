//! From a [`Scene`] to SVG and PNG, through plotters' backends.
//!
//! Backends take whole numbers as coordinates, so an SVG is drawn ten times as large and scaled by
//! its `viewBox`. A PNG has two pixels a point, for today's screens and for print, and is drawn at
//! twice that and averaged, because the bitmap backend smooths no edges.

use super::font;
use super::scene::{Anchor, Scene, Shape, Type};
use super::style::Ink;
use anyhow::Result;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ColorType, ImageEncoder};
use plotters::prelude::{
    BitMapBackend, Color, DrawingBackend, IntoTextStyle, RGBAColor, RGBColor, SVGBackend,
    ShapeStyle, TextStyle,
};
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const SVG_UNITS: f64 = 10.0;
const PNG_PIXELS: u32 = 2;
const SMOOTHING: u32 = 2;
/// From the middle of a lower-case letter down to the baseline, in ems: half of the x-height.
const BASELINE: f64 = 0.29;

/// A backend, and how many of its units make a point.
struct Canvas<B> {
    backend: B,
    scale: f64,
}

/// The scene as an SVG document.
pub(super) fn svg(scene: &Scene) -> String {
    let (width, height) = scene.size();
    let scaled = |points: u32| (f64::from(points) * SVG_UNITS) as u32;
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, (scaled(width), scaled(height)));
    let mut canvas = Canvas { backend, scale: SVG_UNITS };
    canvas.draw(scene, Canvas::svg_text).expect("drawing into a string does not fail");
    drop(canvas);
    let text = text.replace(" opacity=\"1\"", "");
    let (_, body) = text.split_once(">\n").unwrap_or_default();
    format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<title>{}</title>\n{body}",
        scaled(width),
        scaled(height),
        escape(&scene.title),
    )
}

/// Writes the scene into a file: a PNG if its name ends so, or else an SVG.
pub(super) fn save(scene: &Scene, path: &Path) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "png") {
        png(scene, path)
    } else {
        Ok(std::fs::write(path, svg(scene))?)
    }
}

/// Text as XML and HTML can hold it.
pub(crate) fn escape(text: &str) -> String {
    font::printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Writes the scene as a PNG.
pub(super) fn png(scene: &Scene, path: &Path) -> Result<()> {
    let (width, height) = scene.size();
    let factor = PNG_PIXELS * SMOOTHING;
    let (fine_width, fine_height) = (width * factor, height * factor);
    let mut fine = vec![0; fine_width as usize * fine_height as usize * 3];
    let backend = BitMapBackend::with_buffer(&mut fine, (fine_width, fine_height));
    let mut canvas = Canvas { backend, scale: f64::from(factor) };
    canvas.draw(scene, Canvas::bitmap_text)?;
    drop(canvas);
    let pixels = average(&fine, fine_width as usize);
    // plotters' own encoder writes files three times as large.
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let encoder = PngEncoder::new_with_quality(file, CompressionType::Best, FilterType::Adaptive);
    let (width, height) = (width * PNG_PIXELS, height * PNG_PIXELS);
    Ok(encoder.write_image(&pixels, width, height, ColorType::Rgb8)?)
}

/// Each output pixel is the mean of a square of fine pixels.
fn average(fine: &[u8], fine_width: usize) -> Vec<u8> {
    let side = SMOOTHING as usize;
    let row = fine_width * 3;
    let mut pixels = Vec::with_capacity(fine.len() / (side * side));
    for rows in fine.chunks_exact(row * side) {
        for x in (0..row).step_by(3 * side) {
            for channel in 0..3 {
                let square = (0..side * side).map(|i| (i / side * row) + x + (i % side) * 3);
                let sum: u32 = square.map(|at| u32::from(rows[at + channel])).sum();
                pixels.push((sum / (SMOOTHING * SMOOTHING)) as u8);
            }
        }
    }
    pixels
}

impl<B: DrawingBackend<ErrorType: 'static>> Canvas<B> {
    fn draw(
        &mut self,
        scene: &Scene,
        mut text: impl FnMut(&mut Self, (f64, f64), &str, &Type) -> Result<()>,
    ) -> Result<()> {
        let corner = self.at((scene.width, scene.height));
        self.backend.draw_rect((0, 0), corner, &colour(Ink::PAPER), true)?;
        for shape in &scene.shapes {
            match shape {
                Shape::Line { points, width, ink } => self.line(points, *width, *ink)?,
                Shape::Polygon { points, ink } => {
                    let points: Vec<_> = points.iter().map(|&point| self.at(point)).collect();
                    self.backend.fill_polygon(points, &colour(*ink))?;
                }
                Shape::Circle { centre, radius, ink } => {
                    let radius = (radius * self.scale).round() as u32;
                    let centre = self.at(*centre);
                    self.backend.draw_circle(centre, radius, &colour(*ink), true)?;
                }
                Shape::Text { at, text: line, face } => text(self, *at, line, face)?,
            }
        }
        Ok(self.backend.present()?)
    }

    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn line(&mut self, points: &[(f64, f64)], width: f64, ink: Ink) -> Result<()> {
        let stroke_width = (width * self.scale).round().max(1.0) as u32;
        let style = ShapeStyle { color: colour(ink), filled: false, stroke_width };
        let points: Vec<_> = points.iter().map(|&point| self.at(point)).collect();
        Ok(self.backend.draw_path(points, &style)?)
    }

    /// Leaves the choice of a font to the viewer.
    fn svg_text(&mut self, at: (f64, f64), text: &str, face: &Type) -> Result<()> {
        // plotters divides sizes by 1.24 on their way into the SVG.
        let size = face.size * self.scale * 1.24;
        let style = if face.bold { FontStyle::Bold } else { FontStyle::Normal };
        let horizontal = match face.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let style: TextStyle<'_> = (font::FAMILIES, size, style).into_text_style(&(1, 1));
        let ink = colour(face.ink);
        let style = style.color(&ink).pos(Pos::new(horizontal, VPos::Center));
        let at = self.at(at);
        Ok(self.backend.draw_text(text, &style, at)?)
    }

    /// Draws the font that comes with the program.
    fn bitmap_text(&mut self, at: (f64, f64), text: &str, face: &Type) -> Result<()> {
        let size = face.size * self.scale;
        let length = font::width(text, size, face.bold);
        let before = match face.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => length / 2.0,
            Anchor::End => length,
        };
        let (x, y) = self.at(at);
        let (along, across) = (before.round() as i32, (size * BASELINE).round() as i32);
        let mut result = Ok(());
        font::rasterize(text, size, face.bold, |dx, dy, coverage| {
            let (dx, dy) = (dx - along, dy + across);
            let place = (x + dx, y + dy);
            let ink = colour(face.ink).mix(f64::from(coverage)).to_backend_color();
            if let Err(error) = self.backend.draw_pixel(place, ink) {
                result = Err(error);
            }
        });
        Ok(result?)
    }
}

fn colour(Ink(red, green, blue): Ink) -> RGBAColor {
    RGBAColor::from(RGBColor(red, green, blue))
}
