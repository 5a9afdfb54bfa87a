//! A picture as a list of shapes, in points, before any file format.

use super::font;
use super::style::Ink;

/// Where a line of text is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line of text looks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Type {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) ink: Ink,
    pub(super) anchor: Anchor,
}

impl Type {
    pub(super) fn new(size: f64) -> Type {
        Type { size, bold: false, ink: Ink::TEXT, anchor: Anchor::Start }
    }

    pub(super) fn bold(self) -> Type {
        Type { bold: true, ..self }
    }

    pub(super) fn ink(self, ink: Ink) -> Type {
        Type { ink, ..self }
    }

    pub(super) fn middle(self) -> Type {
        Type { anchor: Anchor::Middle, ..self }
    }

    pub(super) fn end(self) -> Type {
        Type { anchor: Anchor::End, ..self }
    }
}

/// A rectangle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A part of a picture. All are opaque, and later ones cover earlier ones.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Shape {
    Line { points: Vec<(f64, f64)>, width: f64, ink: Ink },
    Polygon { points: Vec<(f64, f64)>, ink: Ink },
    Circle { centre: (f64, f64), radius: f64, ink: Ink },
    Text { at: (f64, f64), text: String, face: Type },
}

/// A picture.
#[derive(Clone, PartialEq, Debug)]
pub struct Scene {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}

/// Where a line of text stands. For tests of the layout.
#[derive(Clone, PartialEq, Debug)]
pub struct TextBox {
    /// The text.
    pub text: String,
    /// The left edge.
    pub left: f64,
    /// The upper edge.
    pub top: f64,
    /// The right edge.
    pub right: f64,
    /// The lower edge.
    pub bottom: f64,
}

impl TextBox {
    /// Whether two texts would be printed over each other.
    #[must_use]
    pub fn overlaps(&self, other: &TextBox) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

impl Scene {
    /// An empty picture. Its height is settled by [`Scene::finish`].
    pub(super) fn new(width: f64, title: &str) -> Scene {
        Scene { width, height: 0.0, title: font::printable(title), shapes: Vec::new() }
    }

    /// Settles the height, once everything has found its place.
    pub(super) fn finish(mut self, height: f64) -> Scene {
        self.height = height.ceil();
        self
    }

    /// Width and height in points, which are also the pixels of an SVG.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.width.ceil() as u32, self.height.ceil() as u32)
    }

    /// Where each line of text stands.
    #[must_use]
    pub fn text_boxes(&self) -> Vec<TextBox> {
        self.shapes
            .iter()
            .filter_map(|shape| match shape {
                Shape::Text { at, text, face } => Some(text_box(*at, text, face)),
                _ => None,
            })
            .collect()
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, ink: Ink) {
        self.path(vec![from, to], width, ink);
    }

    pub(super) fn path(&mut self, points: Vec<(f64, f64)>, width: f64, ink: Ink) {
        self.shapes.push(Shape::Line { points, width, ink });
    }

    pub(super) fn polygon(&mut self, points: Vec<(f64, f64)>, ink: Ink) {
        self.shapes.push(Shape::Polygon { points, ink });
    }

    pub(super) fn circle(&mut self, centre: (f64, f64), radius: f64, ink: Ink) {
        self.shapes.push(Shape::Circle { centre, radius, ink });
    }

    pub(super) fn rect(&mut self, rect: Rect, ink: Ink) {
        self.polygon(corners(rect), ink);
    }

    pub(super) fn outline(&mut self, rect: Rect, width: f64, ink: Ink) {
        let mut points = corners(rect);
        points.push(points[0]);
        self.path(points, width, ink);
    }

    /// A line of text, centred on `at` across its direction.
    pub(super) fn text(&mut self, at: (f64, f64), text: &str, face: Type) {
        self.shapes.push(Shape::Text { at, text: font::printable(text), face });
    }

    /// Lines of text below each other, centred on `at` as a block.
    pub(super) fn lines(&mut self, at: (f64, f64), lines: &[String], face: Type) {
        let step = face.size * 1.25;
        let first = at.1 - step * (lines.len().saturating_sub(1)) as f64 / 2.0;
        for (index, line) in lines.iter().enumerate() {
            self.text((at.0, first + step * index as f64), line, face);
        }
    }
}

fn corners(Rect { x, y, width, height }: Rect) -> Vec<(f64, f64)> {
    vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
}

fn text_box(at: (f64, f64), text: &str, face: &Type) -> TextBox {
    let length = font::width(text, face.size, face.bold);
    let before = match face.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => length / 2.0,
        Anchor::End => length,
    };
    // Capitals reach 0.73 em above the baseline; half of that on either side of the centre.
    let half = face.size * 0.37;
    let text = text.to_owned();
    let (top, bottom) = (at.1 - half, at.1 + half);
    TextBox { text, left: at.0 - before, right: at.0 - before + length, top, bottom }
}
