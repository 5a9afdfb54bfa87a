//! Unpacking a kernel, in the formats that distributions' kernels come in: gzip, XZ (with its x86
//! filter), LZMA, LZ4 (the legacy frame) and Zstandard. bzip2 and LZO, which the kernel's build
//! offers too, no distribution is known to use: they are named in the error, and left alone.

use super::bytes::{Bytes, Fault};
use super::elf;
use lzma_rust2::{LzmaReader, XzReader};
use std::io::{self, Read};

/// No 32-bit kernel is larger. A hostile payload could grow a thousandfold.
const LIMIT: u64 = 256 << 20;
/// The dictionaries of kernels have at most 128 MiB; in KiB, with what the decoder takes beside.
const MEMORY_KIB: u32 = 160 << 10;
/// What a block of LZ4's legacy frame unpacks to, but for the last.
const LZ4_BLOCK: usize = 8 << 20;
/// Behind the packed bytes the build puts the size of the unpacked ones.
const SIZE_FIELD: u64 = 4;

/// A kernel, unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) method: &'static str,
    pub(super) bytes: Vec<u8>,
}

type Unpack = fn(&[u8]) -> io::Result<Vec<u8>>;

/// First bytes, name, and the way to unpack it, where there is one.
const METHODS: [(&[u8], &str, Option<Unpack>); 8] = [
    (&[0x1f, 0x8b], "gzip", Some(gzip)),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "XZ", Some(xz)),
    (&[0x5d, 0, 0], "LZMA", Some(lzma)),
    (&[0x02, 0x21, 0x4c, 0x18], "LZ4", Some(lz4)),
    (&[0x28, 0xb5, 0x2f, 0xfd], "Zstandard", Some(zstd)),
    (b"\x7fELF", "plain", Some(plain)),
    (b"BZh", "bzip2", None),
    (&[0x89, b'L', b'Z', b'O'], "LZO", None),
];

/// Unpacks the payload that begins at `offset` of the image.
pub(super) fn unpack(payload: &[u8], offset: u64) -> Result<Unpacked, Fault> {
    let known = METHODS.iter().find(|(magic, ..)| payload.starts_with(magic));
    match known {
        Some(&(_, method, Some(unpack))) => {
            let bytes = unpack(payload).map_err(|error| Fault::Unpacking {
                method,
                offset,
                reason: error.to_string(),
            })?;
            Ok(Unpacked { method, bytes })
        }
        Some(&(_, method, None)) => Err(Fault::Packing { method: method.to_owned(), offset }),
        None => {
            let begin = &payload[..payload.len().min(4)];
            let method = format!("no known method (it begins with {begin:02x?})");
            Err(Fault::Packing { method, offset })
        }
    }
}

/// Reads all there is, up to the limit.
fn read(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LIMIT + 1).read_to_end(&mut bytes)?;
    check_size(bytes)
}

fn check_size(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > LIMIT {
        return Err(damaged(format!("it unpacks to more than {LIMIT} bytes")));
    }
    Ok(bytes)
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn plain(payload: &[u8]) -> io::Result<Vec<u8>> {
    debug_assert!(elf::is_elf(payload), "METHODS names ELF's magic");
    Ok(payload.to_owned())
}

fn gzip(payload: &[u8]) -> io::Result<Vec<u8>> {
    read(flate2::bufread::GzDecoder::new(payload))
}

fn xz(payload: &[u8]) -> io::Result<Vec<u8>> {
    read(XzReader::new_mem_limit(payload, false, MEMORY_KIB))
}

fn lzma(payload: &[u8]) -> io::Result<Vec<u8>> {
    read(LzmaReader::new_mem_limit(payload, MEMORY_KIB, None)?)
}

fn zstd(payload: &[u8]) -> io::Result<Vec<u8>> {
    use ruzstd::decoding::StreamingDecoder;
    let window = u64::from(MEMORY_KIB) << 10;
    let decoder = StreamingDecoder::new_with_max_window_size(payload, window);
    read(decoder.map_err(|error| damaged(error.to_string()))?)
}

/// The legacy frame: its magic number, then blocks, each behind its packed size (LZ4's "Frame
/// Format Description", Legacy frame). A new frame may follow.
fn lz4(payload: &[u8]) -> io::Result<Vec<u8>> {
    const MAGIC: u32 = 0x184c_2102;
    let packed = Bytes(payload);
    let mut bytes = Vec::new();
    let mut room = vec![0; LZ4_BLOCK];
    let mut at = 4;
    while packed.size() - at > SIZE_FIELD {
        let field = packed.u32("an LZ4 block's size", at).map_err(|f| damaged(f.to_string()))?;
        at += 4;
        if field == MAGIC {
            continue;
        }
        let block = packed.slice("an LZ4 block", at, field.into());
        let block = block.map_err(|fault| damaged(fault.to_string()))?;
        let length = lz4_flex::block::decompress_into(block, &mut room);
        let length = length.map_err(|error| damaged(error.to_string()))?;
        bytes.extend_from_slice(&room[..length]);
        bytes = check_size(bytes)?;
        at += u64::from(field);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve times `push ebp; mov ebp, esp; call f`, all to one place: the calls are what XZ's
    /// x86 filter rewrites.
    fn code() -> Vec<u8> {
        let call = |index: u32| (0x100 - 9 * index).to_le_bytes();
        (0..12).flat_map(|index| [&[0x55, 0x89, 0xe5, 0xe8][..], &call(index)].concat()).collect()
    }

    /// The same as the tools of the kernel's build pack it: `gzip -n`, `xz --check=crc32 --x86
    /// --lzma2`, `lzma`, `lz4 -l` and `zstd -19`.
    const PACKED: [(&str, &str); 5] = [
        (
            "gzip",
            "1f8b08000000000000030bed7cfa828191812114487f6780d0efa0f453287d074a5f86d2a7a0f44128bd03\
             4aaf87d2cba0f45c200d009fa9f76560000000",
        ),
        (
            "XZ",
            "fd377a585a0000016922de3602010400210116000d86351fe0005f00245d002aa258ae803ff41fe352207d\
             590e60f4994b0b72effd2b8c035e8b580a1f70d08bc7ec00009fa9f76500013c608cadc71e9042990d0100\
             00000001595a",
        ),
        (
            "LZMA",
            "5d00008000ffffffffffffffff002aa258ae8000041fe352b3eb717b4ddcec96ee1e97ab957f780d3e69d5\
             cc023c420ce74ffff8def000",
        ),
        (
            "LZ4",
            "02214c183d000000805589e5e800010000080022f700080013ee080013e5080013dc080013d3080013ca08\
             0013c1080013b8080013af0800c0a60000005589e5e89d000000",
        ),
        (
            "Zstandard",
            "28b52ffd04685d0100d85589e5e8000100005589e5e8f700eee5dcd3cac1b8afa69d0000000aa810e8fd1e\
             d00f102c1f08f24a19884b6e03",
        ),
    ];

    fn packed(hexadecimal: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
        (0..hexadecimal.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn what_the_build_packs_is_unpacked_whether_or_not_its_size_follows() {
        for (method, hexadecimal) in PACKED {
            for size in [&[][..], &96u32.to_le_bytes()] {
                let payload = [&packed(hexadecimal)[..], size].concat();
                let unpacked = unpack(&payload, 0).unwrap();
                assert_eq!((unpacked.method, unpacked.bytes), (method, code()));
            }
        }
    }

    #[test]
    fn a_damaged_payload_is_an_error_or_unpacks_to_something_and_never_panics() {
        for (method, hexadecimal) in PACKED {
            let sound = packed(hexadecimal);
            for at in 0..sound.len() {
                // Only a frame of LZ4 may end anywhere between two blocks.
                let cut = unpack(&sound[..at], 0);
                assert!(cut.is_err() || method == "LZ4" || at > sound.len() - 8, "{method} {at}");
                for bit in 0..8 {
                    let mut payload = sound.clone();
                    payload[at] ^= 1 << bit;
                    if let Ok(unpacked) = unpack(&payload, 0) {
                        assert!(unpacked.bytes.len() as u64 <= LIMIT);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_unpacked_is_named() {
        let message = |payload: &[u8]| unpack(payload, 0x4200).unwrap_err().to_string();
        assert!(message(b"BZh91AY").contains("at offset 0x4200 is packed by bzip2"));
        assert!(message(b"\x89LZO\0").contains("packed by LZO"));
        assert!(message(&[1, 2]).contains("no known method (it begins with [01, 02])"));
        assert!(message(&[]).contains("no known method"));
    }

    #[test]
    fn a_payload_that_grows_without_end_is_given_up() {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..=LIMIT >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        let reason = unpack(&encoder.finish().unwrap(), 0).unwrap_err().to_string();
        assert!(reason.contains("more than 268435456 bytes"), "{reason}");
    }
}
