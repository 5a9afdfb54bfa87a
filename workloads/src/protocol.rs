//! What a workload writes to the debug console (port 0xE9), and how the harness reads it.
//!
//! ```text
//! probe NAME ok
//! probe NAME wrong SEEN EXPECTED      both as eight hexadecimal digits
//! <STX> … <ETX>                       the measured part
//! result CHECKSUM                     eight hexadecimal digits
//! fault VECTOR ERROR EIP CR2          an exception that the workload did not expect
//! item NAME                           what the next marks and the next result are about
//! ```
//!
//! A guest that does several things names each before its marks, and is read as [`Item`]s.
//! Lines end with a line feed. After the last line the guest writes 0 to the exit port, or 1 after a
//! fault. Marks are single bytes so that writing them costs one port write.

/// The byte before the measured part.
pub const BEGIN: u8 = 0x02;
/// The byte after the measured part.
pub const END: u8 = 0x03;

/// What one probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Which probe, such as `ring3`.
    pub name: String,
    /// What the guest saw and what the architecture says, where they differ.
    pub difference: Option<(u32, u32)>,
}

/// An exception that the workload did not expect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The vector.
    pub vector: u32,
    /// The error code, 0 where there is none.
    pub error_code: u32,
    /// The instruction pointer pushed.
    pub eip: u32,
    /// CR2.
    pub cr2: u32,
}

/// One of several things that a guest did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item<T> {
    /// Its name.
    pub name: String,
    /// When its measured part began and ended.
    pub measured: Option<(T, T)>,
    /// The checksum reported.
    pub result: Option<u32>,
}

/// Everything that a workload reported. `T` is the time stamp that came with each byte.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript<T> {
    /// The probes, in order.
    pub probes: Vec<Probe>,
    /// When the measured part began and ended.
    pub measured: Option<(T, T)>,
    /// The checksum reported.
    pub result: Option<u32>,
    /// An unexpected exception.
    pub fault: Option<Fault>,
    /// When the first byte came.
    pub first: Option<T>,
    /// What was named, in order.
    pub items: Vec<Item<T>>,
    /// Lines that are none of these.
    pub other: Vec<String>,
}

impl<T: Copy> Transcript<T> {
    /// Reads what was written, byte by byte with the time of each.
    pub fn read(bytes: impl IntoIterator<Item = (u8, T)>) -> Transcript<T> {
        let mut transcript = Transcript {
            probes: Vec::new(),
            measured: None,
            result: None,
            fault: None,
            first: None,
            items: Vec::new(),
            other: Vec::new(),
        };
        let mut begin = None;
        let mut line = Vec::new();
        for (byte, at) in bytes {
            transcript.first.get_or_insert(at);
            match byte {
                BEGIN => begin = Some(at),
                END => {
                    transcript.measured = begin.map(|begin| (begin, at));
                    if let Some(item) = transcript.items.last_mut() {
                        item.measured = transcript.measured;
                    }
                }
                b'\n' => transcript.take_line(&String::from_utf8_lossy(&std::mem::take(&mut line))),
                _ => line.push(byte),
            }
        }
        if !line.is_empty() {
            transcript.take_line(&String::from_utf8_lossy(&line));
        }
        transcript
    }

    fn take_line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |word: &str| u32::from_str_radix(word, 16).ok();
        let read = || match words.as_slice() {
            ["probe", name, "ok"] => Some(Line::Probe((*name).to_owned(), None)),
            ["probe", name, "wrong", seen, expected] => {
                Some(Line::Probe((*name).to_owned(), Some((hex(seen)?, hex(expected)?))))
            }
            ["result", checksum] => Some(Line::Result(hex(checksum)?)),
            ["item", name] => Some(Line::Item((*name).to_owned())),
            [] => Some(Line::Empty),
            ["fault", vector, error_code, eip, cr2] => Some(Line::Fault(Fault {
                vector: hex(vector)?,
                error_code: hex(error_code)?,
                eip: hex(eip)?,
                cr2: hex(cr2)?,
            })),
            _ => None,
        };
        match read() {
            Some(Line::Probe(name, difference)) => self.probes.push(Probe { name, difference }),
            Some(Line::Result(checksum)) => {
                self.result = Some(checksum);
                if let Some(item) = self.items.last_mut() {
                    item.result = Some(checksum);
                }
            }
            Some(Line::Item(name)) => self.items.push(Item { name, measured: None, result: None }),
            Some(Line::Empty) => {}
            Some(Line::Fault(fault)) => self.fault = Some(fault),
            None => self.other.push(line.to_owned()),
        }
    }
}

enum Line {
    Probe(String, Option<(u32, u32)>),
    Result(u32),
    Fault(Fault),
    Item(String),
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Transcript<usize> {
        Transcript::read(text.iter().enumerate().map(|(at, &byte)| (byte, at)))
    }

    #[test]
    fn a_whole_transcript_is_understood() {
        let transcript =
            read(b"probe ring0 ok\nprobe ring3 wrong 0000000a ffffffff\n\x02\x03result 00c0ffee\n");
        assert_eq!(transcript.probes.len(), 2);
        assert_eq!(transcript.probes[1].difference, Some((10, u32::MAX)));
        let (begin, end) = transcript.measured.unwrap();
        assert_eq!(end - begin, 1);
        assert_eq!(transcript.result, Some(0x00c0_ffee));
        assert_eq!(transcript.fault, None);
    }

    #[test]
    fn rubbish_is_kept_as_other_lines() {
        let transcript = read(b"result xyz\nfault 1 2\nprobe\n\xff");
        assert_eq!(transcript.other.len(), 4);
        assert_eq!(transcript.result, None);
    }

    #[test]
    fn each_item_has_its_own_marks_and_result() {
        let transcript = read(b"\nitem a\n\x02\x03result 1\nitem b\n\x02");
        assert_eq!(transcript.first, Some(0));
        let [a, b] = &transcript.items[..] else { panic!("{transcript:?}") };
        assert_eq!((a.name.as_str(), a.measured, a.result), ("a", Some((8, 9)), Some(1)));
        assert_eq!((b.name.as_str(), b.measured, b.result), ("b", None, None));
        assert_eq!(transcript.other, Vec::<String>::new());
    }

    #[test]
    fn an_end_without_a_beginning_measures_nothing() {
        assert_eq!(read(b"\x03").measured, None);
    }
}
