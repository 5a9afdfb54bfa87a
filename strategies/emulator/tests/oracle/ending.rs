//! How a case ends on either side, and the first difference between two ends.

use machine::cpu::{Eflags, Fpu, MXCSR, XMM0};

/// The exception that ended a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) error_code: u32,
    /// CR2, for a page fault.
    pub(crate) address: u32,
}

impl Event {
    /// Whether an access to memory raised it: #SS, #GP, #PF or #AC.
    pub(crate) fn is_memory_fault(self) -> bool {
        matches!(self.vector, 12 | 13 | 14 | 17)
    }
}

/// The state when a case has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) event: Event,
    pub(crate) eip: u32,
    pub(crate) registers: [u32; 8],
    pub(crate) eflags: u32,
    pub(crate) fpu: Fpu,
    /// The data and then the stack.
    pub(crate) memory: Vec<u8>,
}

/// Flags that are not compared: RF says how the CPU came to push EFLAGS, no more.
const IGNORED_FLAGS: Eflags = Eflags::RF;

/// Bits of MXCSR that are not compared: after an unmasked overflow or underflow PE tells whether a
/// result with an unlimited exponent would have been rounded, which no masked execution shows.
fn ignored_mxcsr(native: &Ending) -> u32 {
    const OVERFLOW_OR_UNDERFLOW: u32 = 0x18;
    const PRECISION: u32 = 0x20;
    let mxcsr = native.fpu.mxcsr();
    let unmasked = mxcsr & !(mxcsr >> 7) & OVERFLOW_OR_UNDERFLOW != 0;
    if native.event.vector == 19 && unmasked { PRECISION } else { 0 }
}

/// The parts of the FXSAVE area that are compared: name, offset, length. The x87 opcode and the
/// instruction and data pointers are not: AMD CPUs save them only with an exception pending, and
/// the kernel loses the selectors.
fn compared_parts() -> impl Iterator<Item = (String, usize, usize)> {
    let control = [
        ("FCW".to_owned(), 0, 2),
        ("FSW".to_owned(), 2, 2),
        ("FTW".to_owned(), 4, 1),
        ("MXCSR".to_owned(), MXCSR, 4),
    ];
    let stack = (0..8).map(|number| (format!("ST{number}"), 32 + 16 * number, 10));
    let vectors = (0..8).map(|number| (format!("XMM{number}"), XMM0 + 16 * number, 16));
    control.into_iter().chain(stack).chain(vectors)
}

/// The first field in which two ends differ.
pub(crate) fn difference(native: &Ending, emulated: &Ending) -> Option<String> {
    if native.event != emulated.event {
        return Some("event".to_owned());
    }
    if native.eip != emulated.eip {
        return Some("EIP".to_owned());
    }
    const NAMES: [&str; 8] = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];
    let pairs = native.registers.iter().zip(&emulated.registers);
    if let Some((_, name)) = pairs.zip(NAMES).find(|((left, right), _)| left != right) {
        return Some(name.to_owned());
    }
    let flags = (native.eflags ^ emulated.eflags) & !IGNORED_FLAGS.bits();
    if flags != 0 {
        return Some(format!("{:?}", Eflags::from_bits_retain(flags)));
    }
    let part = compared_parts().find(|&(_, at, length)| {
        let ignored = if at == MXCSR { ignored_mxcsr(native).to_le_bytes() } else { [0; 4] };
        (0..length).any(|byte| {
            let different = native.fpu.area.0[at + byte] ^ emulated.fpu.area.0[at + byte];
            different & !ignored.get(byte).copied().unwrap_or(0) != 0
        })
    });
    if let Some((name, ..)) = part {
        return Some(name);
    }
    let mut bytes = native.memory.iter().zip(&emulated.memory);
    bytes.position(|(left, right)| left != right).map(|at| format!("memory at {at:#x}"))
}
