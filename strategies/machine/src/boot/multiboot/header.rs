//! The multiboot header: where it is and what it asks for (section 3.1 of the specification).

use super::super::fault::Fault;
use super::super::image::Image;

/// The header lies within this many bytes.
const SEARCHED: usize = 8192;
/// The header's magic number.
const MAGIC: u32 = 0x1bad_b002;
/// Bytes of magic, flags and checksum.
const SHORTEST: usize = 12;

/// Flag: modules on page boundaries. They always are.
const PAGE_ALIGN: u32 = 1 << 0;
/// Flag: the kernel needs to know the memory. It is always told.
const MEMORY_INFO: u32 = 1 << 1;
/// Flag: the video fields are valid.
const VIDEO: u32 = 1 << 2;
/// Flag: the address fields are valid and go before an ELF header (the "a.out kludge").
const ADDRESSES: u32 = 1 << 16;
/// Features that a loader must provide or else refuse the image; bits 16 and up may be ignored.
const REQUIRED: u32 = 0xffff;

/// The video mode type that means text.
const TEXT: u32 = 1;

/// The address fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    pub(super) header: u32,
    pub(super) load: u32,
    /// 0 means: to the end of the file.
    pub(super) load_end: u32,
    /// 0 means: no zeros behind it.
    pub(super) bss_end: u32,
    pub(super) entry: u32,
}

/// A checked header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Where it is in the file.
    pub(super) offset: u64,
    /// Where the image goes, if it is not for an ELF header to say.
    pub(super) addresses: Option<Addresses>,
    /// Whether a text mode is asked for: the machine is in one. Graphics modes are not provided,
    /// and the request is passed over as QEMU does.
    pub(super) wants_text_mode: bool,
}

/// Whether there is a header with the right checksum.
pub(crate) fn is_multiboot(bytes: &[u8]) -> bool {
    find(bytes).is_some()
}

/// The offset and flags of the first header whose three fields add up to zero.
fn find(bytes: &[u8]) -> Option<(usize, u32)> {
    let searched = &bytes[..bytes.len().min(SEARCHED)];
    searched.windows(SHORTEST).step_by(4).enumerate().find_map(|(index, window)| {
        let field = |at: usize| u32::from_le_bytes(window[at..at + 4].try_into().expect("4 bytes"));
        let sum = MAGIC.wrapping_add(field(4)).wrapping_add(field(8));
        (field(0) == MAGIC && sum == 0).then(|| (index * 4, field(4)))
    })
}

impl Header {
    /// Finds and checks the header.
    pub(super) fn find(image: &Image<'_>) -> Result<Header, Fault> {
        let head = image.slice("the image", 0, image.size().min(SEARCHED as u64))?;
        let (offset, flags) = find(head).ok_or(Fault::NoMultibootHeader)?;
        let offset = offset as u64;
        let unknown = flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO | VIDEO);
        if unknown != 0 {
            return Err(Fault::Field {
                what: "the multiboot header's flags",
                offset: offset + 4,
                found: flags.into(),
                expected: format!("no required feature but bits 0 to 2 (here {unknown:#x})"),
            });
        }
        let field = |index| image.u32("the multiboot header", offset + index);
        Ok(Header {
            offset,
            addresses: (flags & ADDRESSES != 0).then(|| addresses(field)).transpose()?,
            wants_text_mode: flags & VIDEO != 0 && field(32)? == TEXT,
        })
    }
}

fn addresses(field: impl Fn(u64) -> Result<u32, Fault>) -> Result<Addresses, Fault> {
    Ok(Addresses {
        header: field(12)?,
        load: field(16)?,
        load_end: field(20)?,
        bss_end: field(24)?,
        entry: field(28)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(at: usize, flags: u32, checksum: u32) -> Vec<u8> {
        let mut bytes = vec![0; at + 48];
        for (index, value) in [MAGIC, flags, checksum].into_iter().enumerate() {
            bytes[at + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn sum(flags: u32) -> u32 {
        0u32.wrapping_sub(MAGIC).wrapping_sub(flags)
    }

    #[test]
    fn the_header_is_found_only_where_it_may_be() {
        for at in [0, 4, 4096, SEARCHED - SHORTEST] {
            assert!(is_multiboot(&with_header(at, 3, sum(3))), "{at}");
        }
        for at in [1, 2, SEARCHED - SHORTEST + 4, SEARCHED] {
            assert!(!is_multiboot(&with_header(at, 3, sum(3))), "{at}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_header_and_the_search_goes_on() {
        let mut bytes = with_header(0, 3, sum(3).wrapping_add(1));
        assert!(!is_multiboot(&bytes));
        bytes.extend(with_header(0, 0, sum(0)));
        assert_eq!(find(&bytes), Some((48, 0)));
    }

    #[test]
    fn unknown_required_features_are_refused_and_optional_ones_passed_over() {
        let parse = |flags| Header::find(&Image::new(&with_header(0, flags, sum(flags))));
        for flags in [1 << 3, 1 << 15, 0xffff] {
            assert!(matches!(parse(flags), Err(Fault::Field { offset: 4, .. })), "{flags:#x}");
        }
        for flags in [0, 7, 1 << 17, 1 << 31] {
            assert!(parse(flags).is_ok(), "{flags:#x}");
        }
    }
}
