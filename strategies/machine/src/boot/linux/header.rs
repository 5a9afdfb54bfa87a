//! The setup header of a bzImage: checks, and the defaults of protocols that lack a field.

use super::super::fault::Fault;
use super::super::image::Image;
use super::super::layout::EXTENDED;
use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, boot_params};
use std::mem::offset_of;
use std::ops::Range;

/// Where the header begins in the file, and in the zero page.
pub(super) const START: usize = offset_of!(boot_params, hdr);
/// Where it ends at the latest: the zero page has other fields from here.
pub(super) const LIMIT: usize = offset_of!(boot_params, _pad7);
/// Bytes in a sector: the unit of the real-mode part.
const SECTOR: u64 = 512;
/// `setup_sects` in kernels that say 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// "HdrS".
const MAGIC: u32 = 0x5372_6448;
/// What ends a boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// The last byte that an initial RAM disk may take in kernels that do not say.
const DEFAULT_INITRD_LAST: u32 = 0x37ff_ffff;
/// The longest command line of kernels that do not say.
const DEFAULT_COMMAND_LINE: u32 = 255;
/// What `syssize` counts.
const PARAGRAPH: u64 = 16;

/// Places of fields, as in the file.
mod at {
    use super::{boot_params, offset_of};

    pub(super) const SETUP_SECTORS: u64 = offset_of!(boot_params, hdr.setup_sects) as u64;
    pub(super) const SYSSIZE: u64 = offset_of!(boot_params, hdr.syssize) as u64;
    pub(super) const BOOT_FLAG: u64 = offset_of!(boot_params, hdr.boot_flag) as u64;
    /// A short jump over the header: its operand tells where the header ends.
    pub(super) const JUMP_OPERAND: u64 = offset_of!(boot_params, hdr.jump) as u64 + 1;
    pub(super) const MAGIC: u64 = offset_of!(boot_params, hdr.header) as u64;
    pub(super) const VERSION: u64 = offset_of!(boot_params, hdr.version) as u64;
    pub(super) const LOADFLAGS: u64 = offset_of!(boot_params, hdr.loadflags) as u64;
    pub(super) const CODE32_START: u64 = offset_of!(boot_params, hdr.code32_start) as u64;
    pub(super) const INITRD_LAST: u64 = offset_of!(boot_params, hdr.initrd_addr_max) as u64;
    pub(super) const ALIGNMENT: u64 = offset_of!(boot_params, hdr.kernel_alignment) as u64;
    pub(super) const RELOCATABLE: u64 = offset_of!(boot_params, hdr.relocatable_kernel) as u64;
    pub(super) const XLOADFLAGS: u64 = offset_of!(boot_params, hdr.xloadflags) as u64;
    pub(super) const COMMAND_LINE: u64 = offset_of!(boot_params, hdr.cmdline_size) as u64;
    pub(super) const PREFERRED: u64 = offset_of!(boot_params, hdr.pref_address) as u64;
    pub(super) const INIT_SIZE: u64 = offset_of!(boot_params, hdr.init_size) as u64;
}

/// A checked header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    /// Its bytes, from [`START`].
    pub(super) bytes: &'a [u8],
    version: u16,
    /// Where the protected-mode part begins in the file.
    payload: u64,
    /// Where the protected-mode part goes and is entered.
    pub(super) start: u32,
    /// The last byte that an initial RAM disk may take.
    pub(super) initrd_last: u64,
    /// The longest command line, without the zero byte at its end.
    pub(super) command_line_limit: u64,
    /// Whether the command line is given by `cmd_line_ptr`, not by an offset in the zero page.
    pub(super) has_command_line_pointer: bool,
}

/// Whether there is a setup header.
pub(crate) fn is_linux(bytes: &[u8]) -> bool {
    let image = Image::new(bytes);
    image.u16("", at::BOOT_FLAG) == Ok(BOOT_FLAG) && image.u32("", at::MAGIC) == Ok(MAGIC)
}

impl<'a> Header<'a> {
    /// Reads and checks the header.
    pub(super) fn parse(image: &Image<'a>) -> Result<Header<'a>, Fault> {
        let what = "the Linux setup header";
        let version = check_magic(image)?;
        check_flags(image, version)?;
        let field = |since, offset, default| {
            if version >= since { image.u32(what, offset) } else { Ok(default) }
        };
        let end = (at::JUMP_OPERAND as usize + 1) + usize::from(image.u8(what, at::JUMP_OPERAND)?);
        let length = (end.min(LIMIT) - START) as u64;
        let sectors = match image.u8(what, at::SETUP_SECTORS)? {
            0 => DEFAULT_SETUP_SECTORS,
            sectors => sectors,
        };
        Ok(Header {
            bytes: image.slice(what, START as u64, length)?,
            version,
            payload: (u64::from(sectors) + 1) * SECTOR,
            start: check_start(image.u32(what, at::CODE32_START)?)?,
            initrd_last: field(0x203, at::INITRD_LAST, DEFAULT_INITRD_LAST)?.into(),
            command_line_limit: field(0x206, at::COMMAND_LINE, DEFAULT_COMMAND_LINE)?.into(),
            has_command_line_pointer: version >= 0x202,
        })
    }

    /// The protected-mode part: all behind the real-mode part.
    pub(super) fn payload(&self, image: &Image<'a>) -> Result<&'a [u8], Fault> {
        let what = "the protected-mode kernel";
        let least = match self.version {
            // The field's upper half came with 2.04.
            0..0x204 => 1,
            // Files were not filled up to a paragraph before the checksum of 2.08.
            0x204..0x208 => self.paragraphs(image)?.saturating_sub(PARAGRAPH - 1),
            // Nor is memtest86+, which has no checksum.
            _ => match self.paragraphs(image)? {
                paragraphs if self.payload + paragraphs < image.size() + PARAGRAPH => 1,
                paragraphs => paragraphs,
            },
        };
        image.slice(what, self.payload, least.max(1))?;
        image.slice(what, self.payload, image.size() - self.payload)
    }

    fn paragraphs(&self, image: &Image<'_>) -> Result<u64, Fault> {
        Ok(u64::from(image.u32("the Linux setup header", at::SYSSIZE)?) * PARAGRAPH)
    }

    /// The memory that the kernel uses to unpack itself before it looks at the memory map, as
    /// boot.rst computes it (`init_size`). Empty for kernels that do not say.
    pub(super) fn unpacked(&self, image: &Image<'_>) -> Result<Range<u64>, Fault> {
        let what = "the Linux setup header";
        let start = u64::from(self.start);
        if self.version < 0x20a {
            return Ok(start..start);
        }
        let low = u64::from(image.u32(what, at::PREFERRED)?);
        let high = u64::from(image.u32(what, at::PREFERRED + 4)?);
        let preferred = high << 32 | low;
        let alignment = u64::from(image.u32(what, at::ALIGNMENT)?.max(1));
        let start = match image.u8(what, at::RELOCATABLE)? {
            0 => preferred,
            _ => {
                let start = start.max(preferred);
                start.checked_next_multiple_of(alignment).unwrap_or(u64::MAX)
            }
        };
        let size = u64::from(image.u32(what, at::INIT_SIZE)?);
        Ok(start..start.saturating_add(size))
    }
}

fn check_magic(image: &Image<'_>) -> Result<u16, Fault> {
    let what = "the Linux boot flag";
    let found = image.u16(what, at::BOOT_FLAG)?;
    if found != BOOT_FLAG {
        let expected = format!("{BOOT_FLAG:#x}");
        return Err(Fault::Field { what, offset: at::BOOT_FLAG, found: found.into(), expected });
    }
    let what = "the Linux setup header's magic";
    let found = image.u32(what, at::MAGIC)?;
    if found != MAGIC {
        let expected = format!("{MAGIC:#x} (\"HdrS\")");
        return Err(Fault::Field { what, offset: at::MAGIC, found: found.into(), expected });
    }
    let what = "the boot protocol's version";
    match image.u16(what, at::VERSION)? {
        version @ 0x200.. => Ok(version),
        found => {
            let expected = "at least 0x200".to_owned();
            Err(Fault::Field { what, offset: at::VERSION, found: found.into(), expected })
        }
    }
}

fn check_flags(image: &Image<'_>, version: u16) -> Result<(), Fault> {
    let what = "loadflags";
    let flags = image.u8(what, at::LOADFLAGS)?;
    if flags & LOADED_HIGH == 0 {
        let expected = "LOADED_HIGH (bit 0): a bzImage, not a zImage".to_owned();
        return Err(Fault::Field { what, offset: at::LOADFLAGS, found: flags.into(), expected });
    }
    let what = "xloadflags";
    let flags = if version >= 0x20c { image.u16(what, at::XLOADFLAGS)? } else { 0 };
    if flags & XLF_KERNEL_64 != 0 {
        let expected = "XLF_KERNEL_64 (bit 0) clear: the machine has a 32-bit CPU".to_owned();
        return Err(Fault::Field { what, offset: at::XLOADFLAGS, found: flags.into(), expected });
    }
    Ok(())
}

fn check_start(start: u32) -> Result<u32, Fault> {
    if u64::from(start) >= EXTENDED {
        return Ok(start);
    }
    Err(Fault::Field {
        what: "code32_start",
        offset: at::CODE32_START,
        found: start.into(),
        expected: format!("at least {EXTENDED:#x}"),
    })
}
