//! Linux bzImages: the kernel inside, by the setup header's `payload_offset` and `payload_length`
//! (Documentation/arch/x86/boot.rst). The real-mode part and the code that unpacks the kernel are
//! not looked at: they run once, and are gone.

use super::bytes::{Bytes, Fault};
use super::{Program, elf, unpack};

const SETUP_SECTORS: u64 = 0x1f1;
const VERSION: u64 = 0x206;
const PAYLOAD_OFFSET: u64 = 0x248;
const PAYLOAD_LENGTH: u64 = 0x24c;
/// Bytes in a sector: the unit of the real-mode part.
const SECTOR: u64 = 512;
/// `setup_sects` in kernels that say 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The version that brought the payload's place.
const HAS_PAYLOAD: u16 = 0x208;

/// Unpacks the payload and reads the ELF file in it.
pub(super) fn read(bytes: Bytes<'_>) -> Result<Program, Fault> {
    let what = "the Linux setup header";
    let version = bytes.u16(what, VERSION)?;
    if version < HAS_PAYLOAD {
        let expected = format!("at least {HAS_PAYLOAD:#x} (Linux 2.6.26), which tells the payload");
        let (what, found) = ("the boot protocol's version", version.into());
        return Err(Fault::Field { what, offset: VERSION, found, expected });
    }
    let sectors = match bytes.u8(what, SETUP_SECTORS)? {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let protected_mode = (u64::from(sectors) + 1) * SECTOR;
    let offset = protected_mode + u64::from(bytes.u32(what, PAYLOAD_OFFSET)?);
    let length = u64::from(bytes.u32(what, PAYLOAD_LENGTH)?);
    let payload = bytes.slice("the payload", offset, length)?;
    let unpacked = unpack::unpack(payload, offset)?;
    let format = format!("Linux bzImage, {} payload", unpacked.method);
    elf::read(Bytes(&unpacked.bytes), &format).map_err(|fault| Fault::Inner(Box::new(fault)))
}
