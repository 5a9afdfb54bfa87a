//! Guest memory by linear address, read and written without any effect on the guest.

use machine::cpu::SegmentRegister;
use machine::{LinearAddress, Machine};

/// One byte, if it is mapped and memory.
pub(crate) fn byte(m: &mut Machine, linear: LinearAddress) -> Option<u8> {
    let found = emulator::mapping(m, linear)?;
    let mut byte = 0;
    m.memory.read(found.physical, std::slice::from_mut(&mut byte)).then_some(byte)
}

/// Some bytes; what is not there reads as 0.
pub(crate) fn bytes(m: &mut Machine, linear: LinearAddress, length: u32) -> Vec<u8> {
    (0..length).map(|at| byte(m, beyond(linear, at)).unwrap_or(0)).collect()
}

/// Writes bytes, read-only ones too, where there is memory.
pub(crate) fn put(m: &mut Machine, linear: LinearAddress, bytes: &[u8]) {
    for (at, byte) in (0..).zip(bytes) {
        if let Some(found) = emulator::mapping(m, beyond(linear, at)) {
            m.memory.write(found.physical, std::slice::from_ref(byte));
        }
    }
}

fn beyond(linear: LinearAddress, distance: u32) -> LinearAddress {
    LinearAddress(linear.0.wrapping_add(distance))
}

/// The two bytes of code before EIP.
pub(crate) fn code_before(m: &mut Machine) -> [Option<u8>; 2] {
    [2, 1].map(|back| code(m, m.cpu.eip.wrapping_sub(back)))
}

/// The byte of code at an offset of the code segment.
pub(crate) fn code(m: &mut Machine, eip: u32) -> Option<u8> {
    let base = m.cpu.segment(SegmentRegister::Cs).base;
    byte(m, LinearAddress(base.wrapping_add(eip)))
}
