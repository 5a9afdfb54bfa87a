//! `ringside translate`: guest code beside the host code that binary translation makes of it.
//!
//! The image is read as `ringside audit` reads it; nothing runs. The translation is that of a unit
//! that is met for the first time, in a kernel's usual mode.

use crate::audit::{self, ImageKind, address, image::CodeSize, image::Program};
use crate::cli::Failure;
use anyhow::anyhow;
use binary_translation::{Explained, explain};
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Columns of a guest instruction.
const GUEST_WIDTH: usize = 36;
/// Columns of a host instruction before the reason.
const HOST_WIDTH: usize = 44;

/// `ringside translate`
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The kernel: an ELF file (vmlinux), a Linux bzImage, a multiboot image or a flat binary
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// The linear address at which the unit begins, such as 0xc0100000
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub at: u32,
    /// What the image is
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub kind: ImageKind,
    /// Where a flat binary goes, such as 0x100000
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub address: Option<u32>,
}

/// Prints the unit that `arguments` name.
///
/// # Errors
/// When the image cannot be read or is damaged, or has no 32-bit code there.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { image, at, kind, address } = arguments;
    let program = audit::read(image, *kind, *address).map_err(Failure::setup)?;
    let code = code_at(&program, *at)
        .map_err(|error| Failure::setup(anyhow!("{}: --at {at:#x}: {error}", image.display())))?;
    let text = listing(&explain(code, *at));
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The program's bytes from `at` on.
fn code_at(program: &Program, at: u32) -> Result<&[u8], &'static str> {
    if program.size == CodeSize::Bits16 {
        return Err("16-bit code is not translated, it is emulated");
    }
    let (piece, offset) = program.find_code(at).ok_or("no code is there")?;
    Ok(&program.pieces[piece].bytes[offset..])
}

/// Guest code to the left, host code to the right.
fn listing(unit: &[Explained]) -> String {
    let count = unit.iter().filter(|part| part.eip.is_some()).count();
    let guest: usize = unit.iter().map(|part| part.guest.len()).sum();
    let host: usize = unit.iter().map(|part| part.host.len()).sum();
    let mut text =
        format!("{count} instructions, {guest} bytes of guest code, {host} of host code\n");
    for part in unit {
        text.push('\n');
        list(part, &mut text);
    }
    text
}

fn list(part: &Explained, text: &mut String) {
    let mut left = match part.eip {
        Some(eip) => lines(&part.guest, 32, u64::from(eip)),
        None => Vec::new(),
    };
    let right = lines(&part.host, 64, part.host_address);
    left.resize(right.len().max(1), String::new());
    for (number, left) in left.iter().enumerate() {
        let right = right.get(number).map_or("", String::as_str);
        let reason = if number == 0 { part.reason } else { "" };
        let line = format!("{left:GUEST_WIDTH$} | {right:HOST_WIDTH$}  {reason}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// The instructions that `bytes` are.
fn lines(bytes: &[u8], bits: u32, address: u64) -> Vec<String> {
    let mut formatter = NasmFormatter::new();
    let decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
    decoder
        .into_iter()
        .map(|instruction| {
            let mut line = format!("{:08x}  ", instruction.ip());
            formatter.format(&instruction, &mut line);
            line
        })
        .collect()
}
