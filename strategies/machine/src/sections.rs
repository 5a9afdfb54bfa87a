//! The form of the files that this crate writes: saved machines and recorded logs.
//!
//! ```text
//! magic[8]  version: u32  crc32 of both: u32
//! name[8]  length: u32  crc32 of name, length and payload: u32  payload      … again and again
//! ```
//!
//! Numbers are little-endian. A name is ASCII, filled up with zeros. What a section means is the
//! reader's concern; structures in it are in postcard's encoding. Nothing that a file says is
//! believed: a length makes no memory be reserved before the bytes are there.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};

/// The longest payload that is written, with room for what may come.
const LONGEST: u32 = 4 << 20;

/// Why a saved machine or a recorded log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The host could not read or write it.
    #[error("the {what} cannot be read or written: {source}")]
    Host {
        /// What the file should be.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("no {what}: it begins with {found:02x?}")]
    Foreign {
        /// What the file should be.
        what: &'static str,
        /// Its first bytes.
        found: [u8; 8],
    },
    /// The file was written by another version of this program.
    #[error("a {what} of version {found}: expected version {expected}")]
    Version {
        /// What the file is.
        what: &'static str,
        /// The version that this program reads.
        expected: u32,
        /// The file's.
        found: u32,
    },
    /// The file ends too early.
    #[error("truncated in section {section}: expected {expected} bytes, found {found}")]
    Truncated {
        /// Where it ends.
        section: String,
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are.
        found: u64,
    },
    /// A checksum is wrong.
    #[error("section {section} is damaged: expected checksum {expected:08x}, found {found:08x}")]
    Damaged {
        /// Which section.
        section: String,
        /// The checksum in the file.
        expected: u32,
        /// The checksum of what is in the file.
        found: u32,
    },
    /// A section is missing, or in another's place.
    #[error("expected section {expected}, found {found}")]
    Order {
        /// The section that should come.
        expected: &'static str,
        /// The one that is there.
        found: String,
    },
    /// A section is whole, and what it says makes no sense.
    #[error("section {section}: {reason}")]
    Content {
        /// Which section.
        section: String,
        /// What is wrong.
        reason: String,
    },
    /// The machine had another disk, or none.
    #[error("the disk is not the machine's: expected {expected}, found {found}")]
    OtherDisk {
        /// What the machine had.
        expected: String,
        /// What there is now.
        found: String,
    },
    /// The machine is not in the state in which the recording began.
    #[error("the recording began in another state: expected {expected}, found {found}")]
    OtherStart {
        /// The state in which it began.
        expected: crate::Fingerprint,
        /// The machine's.
        found: crate::Fingerprint,
    },
}

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// What people call it.
    pub(crate) what: &'static str,
    /// How it begins.
    pub(crate) magic: [u8; 8],
    /// The version that is read and written.
    pub(crate) version: u32,
}

impl Format {
    fn host(self, source: io::Error) -> FormatError {
        FormatError::Host { what: self.what, source }
    }
}

/// Says that what a section holds makes no sense.
pub(crate) fn nonsense(section: &str, reason: impl Into<String>) -> FormatError {
    FormatError::Content { section: section.to_owned(), reason: reason.into() }
}

/// Reads a structure, which must fill the payload.
pub(crate) fn decode<T: DeserializeOwned>(name: &str, payload: &[u8]) -> Result<T, FormatError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(nonsense(name, format!("{} bytes too many", rest.len()))),
        Err(error) => Err(nonsense(name, error.to_string())),
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// Writes a file.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    to: W,
    format: Format,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(crate) fn new(mut to: W, format: Format) -> Result<Writer<W>, FormatError> {
        let mut head = [format.magic.as_slice(), &format.version.to_le_bytes()].concat();
        head.extend(checksum(&head, &[]).to_le_bytes());
        to.write_all(&head).map_err(|source| format.host(source))?;
        Ok(Writer { to, format })
    }

    /// Writes a section of plain bytes, at most [`LONGEST`]. The name has at most eight letters.
    pub(crate) fn section(&mut self, name: &str, payload: &[u8]) -> Result<(), FormatError> {
        let length = u32::try_from(payload.len()).ok().filter(|&length| length <= LONGEST);
        let length = length.ok_or_else(|| nonsense(name, "it has become too long"))?;
        let mut head = [0; 16];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[8..12].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&head[..12], payload);
        head[12..].copy_from_slice(&checksum.to_le_bytes());
        let written = self.to.write_all(&head).and_then(|()| self.to.write_all(payload));
        written.map_err(|source| self.format.host(source))
    }

    /// Writes a section with a structure.
    pub(crate) fn value(&mut self, name: &str, value: &impl Serialize) -> Result<(), FormatError> {
        let payload = postcard::to_stdvec(value).map_err(|e| nonsense(name, e.to_string()))?;
        self.section(name, &payload)
    }

    /// Sees to it that everything is with the host.
    pub(crate) fn flush(&mut self) -> Result<(), FormatError> {
        self.to.flush().map_err(|source| self.format.host(source))
    }
}

/// A section of a file, whose checksum is right.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) payload: Vec<u8>,
}

impl Section {
    /// The structure in it.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, FormatError> {
        decode(&self.name, &self.payload)
    }
}

/// Reads a file.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    from: R,
    format: Format,
}

impl<R: Read> Reader<R> {
    /// Begins to read, if the file is of this format and version.
    pub(crate) fn new(mut from: R, format: Format) -> Result<Reader<R>, FormatError> {
        let head = exactly(&mut from, 16, "head", format)?;
        let (magic, rest) = head.split_at(8);
        if magic != format.magic {
            let found = magic.try_into().unwrap_or_default();
            return Err(FormatError::Foreign { what: format.what, found });
        }
        check("head", &head[..12], &[], number(&rest[4..]))?;
        let (expected, found) = (format.version, number(rest));
        if found != expected {
            return Err(FormatError::Version { what: format.what, expected, found });
        }
        Ok(Reader { from, format })
    }

    /// The next section, whichever it is.
    pub(crate) fn next(&mut self) -> Result<Section, FormatError> {
        let head = exactly(&mut self.from, 16, "head", self.format)?;
        let name: String = head[..8].iter().take_while(|&&c| c != 0).map(|&c| printed(c)).collect();
        let length = number(&head[8..]);
        if length > LONGEST {
            return Err(nonsense(&name, format!("{length} bytes, more than {LONGEST}")));
        }
        let payload = exactly(&mut self.from, u64::from(length), &name, self.format)?;
        check(&name, &head[..12], &payload, number(&head[12..]))?;
        Ok(Section { name, payload })
    }

    /// The next section, which must be this one, with the structure in it.
    pub(crate) fn value<T: DeserializeOwned>(
        &mut self,
        expected: &'static str,
    ) -> Result<T, FormatError> {
        let section = self.next()?;
        if section.name != expected {
            return Err(FormatError::Order { expected, found: section.name });
        }
        section.decode()
    }
}

fn printed(character: u8) -> char {
    if character.is_ascii_graphic() { char::from(character) } else { '?' }
}

/// The number at the beginning of `bytes`.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn check(name: &str, head: &[u8], payload: &[u8], expected: u32) -> Result<(), FormatError> {
    let found = checksum(head, payload);
    if found == expected {
        return Ok(());
    }
    Err(FormatError::Damaged { section: name.to_owned(), expected, found })
}

/// So many bytes; memory is taken as they come.
fn exactly(
    from: &mut impl Read,
    expected: u64,
    section: &str,
    format: Format,
) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    from.take(expected).read_to_end(&mut bytes).map_err(|source| format.host(source))?;
    let found = bytes.len() as u64;
    if found < expected {
        return Err(FormatError::Truncated { section: section.to_owned(), expected, found });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { what: "test", magic: *b"RINGTEST", version: 3 };

    fn file() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, FORMAT).unwrap();
        writer.value("numbers", &(1u32, 2u64)).unwrap();
        writer.section("raw", b"bytes").unwrap();
        file
    }

    fn read(file: &[u8]) -> Result<((u32, u64), Section), FormatError> {
        let mut reader = Reader::new(file, FORMAT)?;
        Ok((reader.value("numbers")?, reader.next()?))
    }

    #[test]
    fn what_is_written_comes_back() {
        let (numbers, raw) = read(&file()).unwrap();
        assert_eq!(
            (numbers, raw.name.as_str(), raw.payload.as_slice()),
            ((1, 2), "raw", &b"bytes"[..])
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for at in 0..file().len() {
            let mut damaged = file();
            damaged[at] ^= 0x20;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        for length in 0..file().len() {
            let error = read(&file()[..length]).unwrap_err();
            assert!(matches!(error, FormatError::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn another_version_and_another_file_are_told_apart() {
        let mut other = Vec::new();
        Writer::new(&mut other, Format { version: 4, ..FORMAT }).unwrap();
        let message = read(&other).unwrap_err().to_string();
        assert_eq!(message, "a test of version 4: expected version 3");
        let error = read(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\0").unwrap_err();
        assert!(matches!(error, FormatError::Foreign { .. }), "{error}");
    }

    #[test]
    fn sections_come_in_their_order() {
        let mut file = Vec::new();
        Writer::new(&mut file, FORMAT).unwrap().section("raw", &[]).unwrap();
        let message = read(&file).unwrap_err().to_string();
        assert_eq!(message, "expected section numbers, found raw");
    }

    #[test]
    fn a_section_that_claims_gigabytes_reserves_nothing() {
        let mut file = file()[..16].to_vec();
        file.extend(*b"numbers\0");
        file.extend(u32::MAX.to_le_bytes());
        file.extend([0; 4]);
        let message = read(&file).unwrap_err().to_string();
        assert!(message.starts_with("section numbers: 4294967295 bytes"), "{message}");
    }
}
