//! The namespace in ACPI machine language: the sleep state S5 and the devices on the ISA bus.
//!
//! Only what that takes of the language (ACPI specification 6.4, chapter 20) and of resource
//! descriptors (6.4.2). As source it would be:
//!
//! ```text
//! Name (\_S5, Package () { 0, 0, 0, 0 })
//! Scope (\_SB) {
//!     Device (RTC0) {
//!         Name (_HID, EisaId ("PNP0B00"))
//!         Name (_CRS, ResourceTemplate () { IO (Decode16, 0x70, 0x70, 1, 2) IRQNoFlags () { 8 } })
//!     }
//!     …
//! }
//! ```

use crate::devices::S5_SLEEP_TYPE;

const NAME: u8 = 0x08;
const BYTE: u8 = 0x0a;
const DOUBLE_WORD: u8 = 0x0c;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const DEVICE: [u8; 2] = [0x5b, 0x82];

/// Small resource descriptors: a range of ports, an interrupt line, the end.
const PORTS: u8 = 0x47;
const LINE: u8 = 0x22;
const END: u8 = 0x79;
/// All 16 bits of a port are decoded.
const DECODE_16: u8 = 1;

/// A device with its identity, its ports (first, count) and its interrupt line.
struct IsaDevice {
    name: &'static [u8; 4],
    /// Of a PNP identity, the four hexadecimal digits.
    number: u16,
    ports: &'static [(u16, u8)],
    line: u8,
}

const DEVICES: [IsaDevice; 4] = [
    IsaDevice { name: b"TIM0", number: 0x0100, ports: &[(0x40, 4)], line: 0 },
    IsaDevice { name: b"KBD0", number: 0x0303, ports: &[(0x60, 1), (0x64, 1)], line: 1 },
    IsaDevice { name: b"COM1", number: 0x0501, ports: &[(0x3f8, 8)], line: 4 },
    IsaDevice { name: b"RTC0", number: 0x0b00, ports: &[(0x70, 2)], line: 8 },
];

/// The whole namespace.
pub(super) fn namespace() -> Vec<u8> {
    let off = [BYTE, S5_SLEEP_TYPE];
    let states = [&[4], &off[..], &off, &[BYTE, 0], &[BYTE, 0]].concat();
    let sleep = name(b"_S5_", &with_length(&[PACKAGE], &states));
    let devices: Vec<u8> = DEVICES.iter().flat_map(IsaDevice::encode).collect();
    // A backslash: from the root.
    let bus = with_length(&[SCOPE], &[b"\\_SB_", &devices[..]].concat());
    [sleep, bus].concat()
}

impl IsaDevice {
    fn encode(&self) -> Vec<u8> {
        let identity = [&[DOUBLE_WORD], &pnp(self.number)[..]].concat();
        let contents = [name(b"_HID", &identity), name(b"_CRS", &self.resources())].concat();
        with_length(&DEVICE, &[&self.name[..], &contents].concat())
    }

    /// A buffer with the device's resources.
    fn resources(&self) -> Vec<u8> {
        let mut template = Vec::new();
        for (first, count) in self.ports {
            let [low, high] = first.to_le_bytes();
            template.extend([PORTS, DECODE_16, low, high, low, high, 1, *count]);
        }
        template.push(LINE);
        template.extend((1u16 << self.line).to_le_bytes());
        // A checksum of 0 is taken for right.
        template.extend([END, 0]);
        let size = [BYTE, template.len() as u8];
        with_length(&[BUFFER], &[&size[..], &template].concat())
    }
}

/// Something under a name.
fn name(name: &[u8; 4], value: &[u8]) -> Vec<u8> {
    [&[NAME], &name[..], value].concat()
}

/// An operator with the length of what follows (20.2.4): of the length itself, too.
fn with_length(operator: &[u8], contents: &[u8]) -> Vec<u8> {
    let short = contents.len() + 1;
    if short < 0x40 {
        return [operator, &[short as u8], contents].concat();
    }
    // The low four bits in the first byte, with the number of bytes that follow; eight more in each.
    let long = contents.len() + 2;
    debug_assert!(long < 0x1000, "a length of three bytes");
    let length = [0x40 | (long & 0xf) as u8, (long >> 4) as u8];
    [operator, &length, contents].concat()
}

/// A PNP identity as EISA compresses it: three letters of five bits, then the digits, highest first.
fn pnp(number: u16) -> [u8; 4] {
    let letters = b"PNP".iter().fold(0u16, |all, letter| all << 5 | u16::from(letter - 0x40));
    let ([a, b], [c, d]) = (letters.to_be_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_compressed_as_in_the_specification() {
        assert_eq!(pnp(0x0b00), [0x41, 0xd0, 0x0b, 0x00]);
    }

    #[test]
    fn lengths_take_one_or_two_bytes() {
        assert_eq!(with_length(&[SCOPE], &[7; 3]), [SCOPE, 4, 7, 7, 7]);
        let long = with_length(&[SCOPE], &[7; 100]);
        assert_eq!((&long[..3], long.len()), (&[SCOPE, 0x46, 0x06][..], 103));
    }

    #[test]
    fn the_sleep_state_is_what_compilers_make_of_it() {
        let expected = b"\x08_S5_\x12\x0a\x04\x0a\x00\x0a\x00\x0a\x00\x0a\x00";
        assert_eq!(&namespace()[..expected.len()], expected);
    }

    #[test]
    fn a_device_holds_its_identity_and_its_resources() {
        let rtc = DEVICES[3].encode();
        let expected = b"\x5b\x82\x25RTC0\x08_HID\x0c\x41\xd0\x0b\x00\x08_CRS\x11\x10\x0a\x0d\
            \x47\x01\x70\x00\x70\x00\x01\x02\x22\x00\x01\x79\x00";
        assert_eq!(rtc, expected);
    }
}
