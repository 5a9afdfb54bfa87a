//! What IDENTIFY DEVICE answers (ATA/ATAPI-6, 8.15).

use super::MAX_MULTIPLE;
use super::geometry::Geometry;
use super::image::SECTOR;

const MODEL: &str = "Ringside disk";
const SERIAL: &str = "RS0001";
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// The 256 words, as bytes. `multiple` is the block size of SET MULTIPLE MODE, or 0.
pub(super) fn identify(
    sectors: u64,
    physical: Geometry,
    current: Geometry,
    multiple: u8,
) -> Vec<u8> {
    let mut words = [0u16; SECTOR / 2];
    let low_high = |value: u64| [value as u16, (value >> 16) as u16];
    let lba28 = sectors.min(0x0fff_ffff);
    let (default_cylinders, cylinders) = (physical.cylinders(sectors), current.cylinders(sectors));
    let reached = u64::from(cylinders) * u64::from(current.sectors_per_cylinder());
    for (at, value) in [
        // Not removable.
        (0, 0x0040),
        (1, default_cylinders),
        (3, u16::from(physical.heads)),
        (6, u16::from(physical.sectors)),
        (47, 0x8000 | u16::from(MAX_MULTIPLE)),
        // 32-bit data port.
        (48, 1),
        // LBA, no DMA.
        (49, 0x0200),
        (50, 0x4000),
        (51, 0x0200),
        // Words 54 to 58 and 64 to 70 are valid.
        (53, 0x0003),
        (54, cylinders),
        (55, u16::from(current.heads)),
        (56, u16::from(current.sectors)),
        (59, if multiple > 0 { 0x0100 | u16::from(multiple) } else { 0 }),
        // PIO modes 3 and 4 at 120 ns.
        (64, 0x0003),
        (67, 120),
        (68, 120),
        // ATA-1 to ATA-6.
        (80, 0x007e),
        // Power management, write cache, look-ahead.
        (82, 0x0068),
        // FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses.
        (83, 0x7400),
        (84, 0x4000),
        (85, 0x0068),
        (86, 0x3400),
        (87, 0x4000),
        // Device 0, which passed its diagnostic.
        (93, 0x400b),
    ] {
        words[at] = value;
    }
    words[57..59].copy_from_slice(&low_high(reached));
    words[60..62].copy_from_slice(&low_high(lba28));
    words[100..102].copy_from_slice(&low_high(sectors));
    words[102..104].copy_from_slice(&low_high(sectors >> 32));
    put_text(&mut words[10..20], SERIAL);
    put_text(&mut words[23..27], FIRMWARE);
    put_text(&mut words[27..47], MODEL);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Text is padded with spaces, its first character in the high byte.
fn put_text(words: &mut [u16], text: &str) {
    let mut characters = text.bytes().chain(std::iter::repeat(b' '));
    for word in words {
        *word = u16::from_be_bytes([0; 2].map(|_| characters.next().unwrap_or(b' ')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_texts_and_geometry_are_in_their_words() {
        let sectors = 0x1_2345_6789;
        let data = identify(sectors, Geometry::DEFAULT, Geometry { heads: 4, sectors: 17 }, 8);
        let word = |at: usize| u16::from_le_bytes([data[2 * at], data[2 * at + 1]]);
        assert_eq!(data.len(), SECTOR);
        assert_eq!([word(1), word(3), word(6)], [16383, 16, 63]);
        assert_eq!([word(54), word(55), word(56)], [65535, 4, 17]);
        assert_eq!([word(60), word(61)], [0xffff, 0x0fff]);
        assert_eq!([word(100), word(101), word(102), word(103)], [0x6789, 0x2345, 1, 0]);
        assert_eq!(word(59), 0x0108);
        assert_eq!(word(27).to_be_bytes(), *b"Ri");
    }
}
