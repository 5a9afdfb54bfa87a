//! Checked access to the bytes of an image, and text that goes to the guest.

use super::fault::Fault;

/// An image's bytes. Nothing reads them past this type, so that no offset goes unchecked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image<'a> {
    bytes: &'a [u8],
}

impl<'a> Image<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Image<'a> {
        Image { bytes }
    }

    /// Bytes in the image.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `length` bytes at `offset`.
    pub(super) fn slice(
        &self,
        what: &'static str,
        offset: u64,
        length: u64,
    ) -> Result<&'a [u8], Fault> {
        let end = offset.checked_add(length).filter(|&end| end <= self.size());
        match end {
            Some(end) => Ok(&self.bytes[offset as usize..end as usize]),
            None => Err(Fault::Truncated { what, offset, length, size: self.size() }),
        }
    }

    /// The byte at `offset`.
    pub(super) fn u8(&self, what: &'static str, offset: u64) -> Result<u8, Fault> {
        Ok(self.slice(what, offset, 1)?[0])
    }

    /// The little-endian word at `offset`.
    pub(super) fn u16(&self, what: &'static str, offset: u64) -> Result<u16, Fault> {
        let bytes = self.slice(what, offset, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// The little-endian doubleword at `offset`.
    pub(super) fn u32(&self, what: &'static str, offset: u64) -> Result<u32, Fault> {
        let bytes = self.slice(what, offset, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// `text` as a guest reads it: with a zero byte behind it, so with none inside.
pub(super) fn zero_terminated(what: &'static str, text: &str) -> Result<Vec<u8>, Fault> {
    match text.bytes().position(|byte| byte == 0) {
        Some(at) => Err(Fault::ZeroByte { what, at }),
        None => Ok([text.as_bytes(), &[0]].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_near_the_end_of_the_number_range_are_refused() {
        let image = Image::new(&[1, 2, 3, 4, 5]);
        assert_eq!(image.u32("x", 1), Ok(0x0504_0302));
        for offset in [2, 5, u64::MAX - 3, u64::MAX] {
            let fault = Fault::Truncated { what: "x", offset, length: 4, size: 5 };
            assert_eq!(image.u32("x", offset), Err(fault));
        }
    }

    #[test]
    fn text_with_a_zero_byte_is_refused() {
        assert_eq!(zero_terminated("x", "ab"), Ok(b"ab\0".to_vec()));
        assert_eq!(zero_terminated("x", "a\0b"), Err(Fault::ZeroByte { what: "x", at: 1 }));
    }
}
