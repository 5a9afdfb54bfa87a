//! The zero page, `struct boot_params`: what a Linux kernel is told.
//!
//! `linux-loader` has the structure's layout; it is filled here as bytes, because that is what goes
//! to the guest.

use super::super::layout::{EXTENDED, MapEntry};
use super::header::{LIMIT, START};
use linux_loader::bootparam::{KEEP_SEGMENTS, boot_e820_entry, boot_params};
use std::mem::{offset_of, size_of};
use std::ops::Range;

/// `type_of_loader` of loaders that have no number of their own.
const UNREGISTERED: u8 = 0xff;
/// `cl_magic`: the command line is given by `cl_offset`.
const OLD_COMMAND_LINE: u16 = 0xa33f;
/// `orig_video_ega_bx`: a colour adapter with 256 KiB, as INT 10h, AH=12h, BL=10h gives it.
const EGA_256_KIB: u16 = 3;

/// How the command line is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CommandLine {
    /// By its address.
    Pointer(u32),
    /// By its offset from 0x90000: protocols before 2.02.
    Offset(u16),
}

/// The zero page.
pub(super) struct ZeroPage {
    bytes: [u8; size_of::<boot_params>()],
}

impl ZeroPage {
    /// A page that holds the kernel's own setup header and the video state; the rest is zero.
    pub(super) fn new(header: &[u8]) -> ZeroPage {
        let mut page = ZeroPage { bytes: [0; size_of::<boot_params>()] };
        let end = LIMIT.min(START + header.len());
        page.bytes[START..end].copy_from_slice(&header[..end - START]);
        page.put(offset_of!(boot_params, hdr.type_of_loader), &[UNREGISTERED]);
        // The kernel may load its own selectors: they are where it expects them.
        page.bytes[offset_of!(boot_params, hdr.loadflags)] &= !KEEP_SEGMENTS;
        page.set_screen();
        page
    }

    /// The bytes that the guest sees.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    /// 80x25 colour text on a VGA.
    fn set_screen(&mut self) {
        self.put(offset_of!(boot_params, screen_info.orig_video_mode), &[3]);
        self.put(offset_of!(boot_params, screen_info.orig_video_cols), &[80]);
        self.put(offset_of!(boot_params, screen_info.orig_video_lines), &[25]);
        self.put(offset_of!(boot_params, screen_info.orig_video_isVGA), &[1]);
        let ega = offset_of!(boot_params, screen_info.orig_video_ega_bx);
        self.put(ega, &EGA_256_KIB.to_le_bytes());
        let points = offset_of!(boot_params, screen_info.orig_video_points);
        self.put(points, &16u16.to_le_bytes());
    }

    /// Where the command line is.
    pub(super) fn set_command_line(&mut self, line: CommandLine) {
        match line {
            CommandLine::Pointer(address) => {
                self.put(offset_of!(boot_params, hdr.cmd_line_ptr), &address.to_le_bytes());
            }
            CommandLine::Offset(offset) => {
                let magic = offset_of!(boot_params, screen_info.cl_magic);
                self.put(magic, &OLD_COMMAND_LINE.to_le_bytes());
                let at = offset_of!(boot_params, screen_info.cl_offset);
                self.put(at, &offset.to_le_bytes());
            }
        }
    }

    /// Where the initial RAM disk is.
    pub(super) fn set_initrd(&mut self, place: Range<u64>) {
        let size = (place.end - place.start) as u32;
        let start = place.start as u32;
        self.put(offset_of!(boot_params, hdr.ramdisk_image), &start.to_le_bytes());
        self.put(offset_of!(boot_params, hdr.ramdisk_size), &size.to_le_bytes());
    }

    /// The memory map, and the older fields that say how much extended memory there is.
    pub(super) fn set_memory(&mut self, map: &[MapEntry], ram: u64) {
        let upper = ((ram - EXTENDED) / 1024) as u32;
        // INT 15h, AH=88h reaches 64 MiB less one KiB at most.
        let short = upper.min(0xfc00) as u16;
        self.put(offset_of!(boot_params, screen_info.ext_mem_k), &short.to_le_bytes());
        self.put(offset_of!(boot_params, alt_mem_k), &upper.to_le_bytes());
        self.put(offset_of!(boot_params, e820_entries), &[map.len() as u8]);
        let table = offset_of!(boot_params, e820_table);
        for (index, entry) in map.iter().enumerate() {
            let at = table + index * size_of::<boot_e820_entry>();
            self.put(at + offset_of!(boot_e820_entry, addr), &entry.start.0.to_le_bytes());
            self.put(at + offset_of!(boot_e820_entry, size), &entry.length.to_le_bytes());
            self.put(at + offset_of!(boot_e820_entry, r#type), &entry.kind().to_le_bytes());
        }
    }
}
