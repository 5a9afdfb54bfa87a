//! Checked access to the bytes of an image, and what can be wrong with them.

/// A reason not to audit an image, with the place in the file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// There is nothing in it.
    #[error("the image is empty")]
    Empty,
    /// No format that is known.
    #[error(
        "neither an ELF file, nor a Linux bzImage (\"HdrS\" at 0x202), nor a multiboot image \
         (header in the first 8 KiB): for a flat binary say --kind flat32 or --kind flat16"
    )]
    Unknown,
    /// Something lies past the end.
    #[error("truncated: {what} takes {length} bytes at offset {offset:#x}, there are {size}")]
    Truncated {
        /// What does.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Bytes in the image.
        size: u64,
    },
    /// A field has a value that makes no sense.
    #[error("{what} at offset {offset:#x} is {found:#x}: expected {expected}")]
    Field {
        /// Which field.
        what: &'static str,
        /// Where it is.
        offset: u64,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: String,
    },
    /// A kernel packed in a way that is not unpacked here.
    #[error(
        "the payload at offset {offset:#x} is packed by {method}, which is not unpacked here: unpack \
         it (with scripts/extract-vmlinux of the kernel's sources, for one) and audit the ELF file"
    )]
    Packing {
        /// By what.
        method: String,
        /// Where the payload begins.
        offset: u64,
    },
    /// The payload is damaged.
    #[error("the {method} payload at offset {offset:#x} cannot be unpacked: {reason}")]
    Unpacking {
        /// How it is packed.
        method: &'static str,
        /// Where it begins.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// The payload is sound, what is in it is not.
    #[error("in the unpacked kernel: {0}")]
    Inner(Box<Fault>),
    /// Nothing to look at.
    #[error("no executable section or segment with bytes in it")]
    NoCode,
}

/// An image's bytes. Nothing reads them past this type, so that no offset goes unchecked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn size(self) -> u64 {
        self.0.len() as u64
    }

    /// `length` bytes at `offset`.
    pub(super) fn slice(
        self,
        what: &'static str,
        offset: u64,
        length: u64,
    ) -> Result<&'a [u8], Fault> {
        match offset.checked_add(length).filter(|&end| end <= self.size()) {
            Some(end) => Ok(&self.0[offset as usize..end as usize]),
            None => Err(Fault::Truncated { what, offset, length, size: self.size() }),
        }
    }

    pub(super) fn u8(self, what: &'static str, offset: u64) -> Result<u8, Fault> {
        Ok(self.slice(what, offset, 1)?[0])
    }

    pub(super) fn u16(self, what: &'static str, offset: u64) -> Result<u16, Fault> {
        let bytes = self.slice(what, offset, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(self, what: &'static str, offset: u64) -> Result<u32, Fault> {
        let bytes = self.slice(what, offset, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Text up to a zero byte or the end of the bytes; what is no UTF-8 is replaced.
    pub(super) fn text(self, offset: u64) -> String {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        let rest = rest.unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).chars().filter(|c| !c.is_control()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_near_the_end_of_the_number_range_are_refused() {
        let bytes = Bytes(&[1, 2, 3, 4, 5]);
        assert_eq!(bytes.u32("x", 1), Ok(0x0504_0302));
        for offset in [2, 5, u64::MAX - 3, u64::MAX] {
            let fault = Fault::Truncated { what: "x", offset, length: 4, size: 5 };
            assert_eq!(bytes.u32("x", offset), Err(fault));
        }
        assert_eq!(bytes.text(u64::MAX), "");
    }
}
