//! The DAC: 256 colours of three 6-bit components, read and written one component after another.

use crate::devices::state::array;

/// Entries that the attribute controller's palette names in text modes: the EGA's 64 colours.
const EGA_COLOURS: u8 = 64;

/// The DAC.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Dac {
    #[serde(with = "array")]
    entries: [[u8; 3]; 256],
    pub(super) mask: u8,
    read_at: (u8, usize),
    write_at: (u8, usize),
    reading: bool,
}

impl Dac {
    pub(super) fn new() -> Dac {
        let mut entries = [[0; 3]; 256];
        for colour in 0..EGA_COLOURS {
            entries[usize::from(colour)] = ega_colour(colour);
        }
        Dac { entries, mask: 0xff, read_at: (0, 0), write_at: (0, 0), reading: false }
    }

    /// Whether a DAC can be in this state: an entry has three components.
    pub(super) fn is_plausible(&self) -> bool {
        self.read_at.1 < 3 && self.write_at.1 < 3
    }

    pub(super) fn begin_reading(&mut self, index: u8) {
        self.read_at = (index, 0);
        self.reading = true;
    }

    pub(super) fn begin_writing(&mut self, index: u8) {
        self.write_at = (index, 0);
        self.reading = false;
    }

    /// 3 while the guest reads entries, 0 while it writes.
    pub(super) fn state(&self) -> u8 {
        if self.reading { 3 } else { 0 }
    }

    pub(super) fn write_index(&self) -> u8 {
        self.write_at.0
    }

    pub(super) fn read(&mut self) -> u8 {
        let (index, component) = self.read_at;
        self.read_at = next(self.read_at);
        self.entries[usize::from(index)][component]
    }

    pub(super) fn write(&mut self, value: u8) {
        let (index, component) = self.write_at;
        self.write_at = next(self.write_at);
        self.entries[usize::from(index)][component] = value & 0x3f;
    }

    /// A colour in 8-bit red, green and blue.
    pub(super) fn colour(&self, index: u8) -> [u8; 3] {
        let entry = self.entries[usize::from(index & self.mask)];
        entry.map(|component| component << 2 | component >> 4)
    }
}

fn next((index, component): (u8, usize)) -> (u8, usize) {
    if component == 2 { (index.wrapping_add(1), 0) } else { (index, component + 1) }
}

/// Bits 2 to 0 are red, green and blue at two thirds, bits 5 to 3 the same at one third.
fn ega_colour(colour: u8) -> [u8; 3] {
    [2, 1, 0].map(|bit| {
        let (strong, weak) = (colour >> bit & 1, colour >> (bit + 3) & 1);
        strong * 0x2a + weak * 0x15
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ega_s_colours_are_there() {
        let dac = Dac::new();
        assert_eq!(dac.colour(0), [0, 0, 0]);
        assert_eq!(dac.colour(7), [0xaa, 0xaa, 0xaa]);
        assert_eq!(dac.colour(0x14), [0xaa, 0x55, 0x00], "brown");
        assert_eq!(dac.colour(0x3f), [0xff, 0xff, 0xff]);
    }

    #[test]
    fn entries_are_written_and_read_component_by_component() {
        let mut dac = Dac::new();
        dac.begin_writing(255);
        [1, 2, 0xff, 4].into_iter().for_each(|value| dac.write(value));
        assert_eq!(dac.write_index(), 0, "the index wraps");
        dac.begin_reading(255);
        assert_eq!(dac.state(), 3);
        assert_eq!([dac.read(), dac.read(), dac.read(), dac.read()], [1, 2, 0x3f, 4]);
    }
}
