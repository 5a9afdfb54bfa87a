//! Colours, markers and hatchings, and what they stand for.

use super::scene::{Rect, Scene};
use crate::strategies::NAMED;
use strategy::{ExitKind, StrategyId};

/// An opaque colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ink(pub(super) u8, pub(super) u8, pub(super) u8);

/// The palette of Okabe and Ito (Color Universal Design, 2008), and greys.
impl Ink {
    pub(super) const PAPER: Ink = Ink(255, 255, 255);
    pub(super) const TEXT: Ink = Ink(26, 26, 26);
    pub(super) const QUIET: Ink = Ink(95, 95, 95);
    pub(super) const RULE: Ink = Ink(190, 190, 190);
    pub(super) const GRID: Ink = Ink(228, 228, 228);
    pub(super) const BAND: Ink = Ink(246, 246, 246);
    pub(super) const BLACK: Ink = Ink(0, 0, 0);
    pub(super) const GREY: Ink = Ink(130, 130, 130);
    pub(super) const ORANGE: Ink = Ink(230, 159, 0);
    pub(super) const SKY: Ink = Ink(86, 180, 233);
    pub(super) const GREEN: Ink = Ink(0, 158, 115);
    pub(super) const YELLOW: Ink = Ink(240, 228, 66);
    pub(super) const BLUE: Ink = Ink(0, 114, 178);
    pub(super) const VERMILION: Ink = Ink(213, 94, 0);
    pub(super) const PURPLE: Ink = Ink(204, 121, 167);

    /// This colour thinned with white: `part` of it remains.
    pub(super) fn tint(self, part: f64) -> Ink {
        let mix = |c: u8| (255.0 - (255.0 - f64::from(c)) * part).round() as u8;
        Ink(mix(self.0), mix(self.1), mix(self.2))
    }

    /// Lightness from 0 to 1 (ITU-R BT.601 luma): what remains in greyscale.
    pub(super) fn lightness(self) -> f64 {
        (0.299 * f64::from(self.0) + 0.587 * f64::from(self.1) + 0.114 * f64::from(self.2)) / 255.0
    }

    /// Black or white, whichever can be read on this colour.
    pub(super) fn contrast(self) -> Ink {
        if self.lightness() > 0.5 { Ink::BLACK } else { Ink::PAPER }
    }
}

/// The shape of a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Marker {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
    Plus,
}

/// How the points of one strategy or peer look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    pub(super) marker: Marker,
    pub(super) ink: Ink,
    /// Whether its middle is white.
    pub(super) hollow: bool,
}

impl Look {
    const fn new(marker: Marker, ink: Ink) -> Look {
        Look { marker, ink, hollow: false }
    }
}

/// The look of a strategy or peer, the same in every plot and every run. A strategy with other
/// options than usual looks as it does otherwise, but hollow. Unknown names take the looks in turn,
/// by their place among what is shown.
pub(super) fn look(name: &str, place: usize) -> Look {
    const LOOKS: [Look; 8] = [
        Look::new(Marker::Circle, Ink::BLACK),
        Look::new(Marker::Up, Ink::ORANGE),
        Look::new(Marker::Square, Ink::SKY),
        Look::new(Marker::Diamond, Ink::GREEN),
        Look::new(Marker::Down, Ink::VERMILION),
        Look::new(Marker::Cross, Ink::BLUE),
        Look::new(Marker::Plus, Ink::PURPLE),
        Look { hollow: true, ..Look::new(Marker::Circle, Ink::GREY) },
    ];
    let named = NAMED.iter().find(|named| named.name == name);
    let plain = named.map_or(name, |named| named.id.name());
    let strategies = StrategyId::ALL.map(StrategyId::name);
    let names = strategies.iter().chain(&["qemu-tcg", "qemu-kvm", "native"]);
    let index = names.into_iter().position(|&known| known == plain).unwrap_or(place);
    let look = LOOKS[index % LOOKS.len()];
    Look { hollow: look.hollow || named.is_some(), ..look }
}

/// The part of a hollow marker that is white.
const HOLLOW: f64 = 0.5;

/// Draws a point. A white rim keeps points apart that lie over each other.
pub(super) fn point(scene: &mut Scene, (x, y): (f64, f64), radius: f64, look: Look) {
    let rim = 0.8;
    match look.marker {
        Marker::Circle => {
            scene.circle((x, y), radius + rim, Ink::PAPER);
            scene.circle((x, y), radius, look.ink);
            if look.hollow {
                scene.circle((x, y), radius * HOLLOW, Ink::PAPER);
            }
        }
        Marker::Cross | Marker::Plus => {
            for (width, ink) in [(radius * 0.65 + 2.0 * rim, Ink::PAPER), (radius * 0.65, look.ink)]
            {
                strokes(scene, (x, y), radius, (width, ink), look.marker == Marker::Cross);
            }
        }
        Marker::Square | Marker::Diamond | Marker::Up | Marker::Down => {
            scene.polygon(outline((x, y), radius + rim * 1.4, look.marker), Ink::PAPER);
            scene.polygon(outline((x, y), radius, look.marker), look.ink);
            if look.hollow {
                scene.polygon(outline((x, y), radius * HOLLOW, look.marker), Ink::PAPER);
            }
        }
    }
}

fn strokes(
    scene: &mut Scene,
    (x, y): (f64, f64),
    radius: f64,
    (width, ink): (f64, Ink),
    diagonal: bool,
) {
    if diagonal {
        let r = radius * 0.8;
        scene.line((x - r, y - r), (x + r, y + r), width, ink);
        scene.line((x - r, y + r), (x + r, y - r), width, ink);
    } else {
        scene.line((x - radius, y), (x + radius, y), width, ink);
        scene.line((x, y - radius), (x, y + radius), width, ink);
    }
}

fn outline((x, y): (f64, f64), radius: f64, marker: Marker) -> Vec<(f64, f64)> {
    let unit: &[(f64, f64)] = match marker {
        Marker::Square => &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        Marker::Up => &[(0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)],
        Marker::Down => &[(0.0, 1.1), (1.05, -0.8), (-1.05, -0.8)],
        _ => &[(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)],
    };
    unit.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect()
}

/// Lines over a colour, so that areas differ without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hatch {
    None,
    Rising,
    Falling,
}

/// How an exit kind looks, and the number that stands in its areas. The same in every run, because
/// it follows the list of kinds. Kinds that are not in the list are from another version: they share
/// a number past its end.
pub(super) fn kind_look(kind: &str) -> (usize, Ink, Hatch) {
    const INKS: [Ink; 8] = [
        Ink::BLUE,
        Ink::ORANGE,
        Ink::SKY,
        Ink::VERMILION,
        Ink::YELLOW,
        Ink::GREEN,
        Ink::PURPLE,
        Ink(70, 70, 70),
    ];
    const HATCHES: [Hatch; 3] = [Hatch::None, Hatch::Rising, Hatch::Falling];
    let known = ExitKind::ALL.iter().position(|known| known.name() == kind);
    let index = known.unwrap_or(ExitKind::ALL.len());
    (index + 1, INKS[index % INKS.len()], HATCHES[index / INKS.len() % HATCHES.len()])
}

/// Fills a rectangle with a colour and a hatching.
pub(super) fn area(scene: &mut Scene, rect: Rect, ink: Ink, hatch: Hatch) {
    scene.rect(rect, ink);
    if hatch == Hatch::None {
        return;
    }
    let line = if ink.lightness() > 0.5 { Ink(60, 60, 60) } else { Ink(235, 235, 235) };
    let mut offset = -rect.height + 2.5;
    while offset < rect.width {
        // A line at 45 degrees through (offset, bottom), cut at the rectangle's sides.
        let (from, to) = (offset.max(0.0), (offset + rect.height).min(rect.width));
        let rise = |x: f64| match hatch {
            Hatch::Falling => rect.y + (x - offset),
            _ => rect.y + rect.height - (x - offset),
        };
        if to > from {
            scene.line((rect.x + from, rise(from)), (rect.x + to, rise(to)), 0.8, line);
        }
        offset += 6.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_exit_kinds_look_alike() {
        let looks: Vec<_> = ExitKind::ALL.iter().map(|kind| kind_look(kind.name())).collect();
        for (index, (number, ink, hatch)) in looks.iter().enumerate() {
            assert_eq!(*number, index + 1);
            assert!(looks[..index].iter().all(|(_, i, h)| (i, h) != (ink, hatch)));
        }
        assert_eq!(kind_look("from-another-version").0, ExitKind::ALL.len() + 1);
    }

    #[test]
    fn strategies_differ_by_marker_as_well_as_by_colour() {
        let looks: Vec<_> = (0..8).map(|place| look("unknown", place)).collect();
        for (index, a) in looks.iter().enumerate() {
            let shape = |look: &Look| (look.marker, look.hollow);
            assert!(looks[..index].iter().all(|b| shape(a) != shape(b) && a.ink != b.ink));
        }
        assert_eq!(look("qemu-tcg", 0), looks[5]);
        for named in &NAMED {
            let plain = look(named.id.name(), 0);
            assert_eq!(look(named.name, 0), Look { hollow: true, ..plain });
        }
    }

    #[test]
    fn hatching_stays_within_its_rectangle() {
        let mut scene = Scene::new(100.0, "");
        let rect = Rect { x: 10.0, y: 20.0, width: 7.0, height: 30.0 };
        area(&mut scene, rect, Ink::YELLOW, Hatch::Rising);
        area(&mut scene, rect, Ink::BLUE, Hatch::Falling);
        for shape in &scene.shapes {
            if let super::super::scene::Shape::Line { points, .. } = shape {
                assert!(
                    points
                        .iter()
                        .all(|(x, y)| (10.0..=17.0).contains(x) && (20.0..=50.0).contains(y))
                );
            }
        }
        assert!(scene.shapes.len() > 10);
    }
}
