//! The 128 KiB between 0xA0000 and 0xBFFFF, as plain memory: what text modes and byte-per-pixel
//! modes need. The planes of the 16-colour modes are not there.

use crate::bus::Device;
use std::ops::Range;

const SIZE: usize = 128 << 10;

/// Where colour text lies: 0xB8000.
pub(super) const TEXT: Range<usize> = 0x1_8000..0x2_0000;

/// Grey on black.
const BLANK: [u8; 2] = [b' ', 0x07];

/// Video memory.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct VgaMemory {
    bytes: Box<[u8]>,
}

impl VgaMemory {
    /// Memory with a blank text screen.
    pub(super) fn new() -> VgaMemory {
        let mut bytes = vec![0; SIZE].into_boxed_slice();
        bytes[TEXT].as_chunks_mut().0.fill(BLANK);
        VgaMemory { bytes }
    }

    /// Whether video memory can be so: it has one size.
    pub(super) fn is_plausible(&self) -> bool {
        self.bytes.len() == SIZE
    }

    /// The host address of the page at `offset`, of which reads and writes do nothing else. It is
    /// right until the device is reset or its state replaced.
    pub(crate) fn page(&mut self, offset: usize) -> Option<*mut u8> {
        let page = self.bytes.get_mut(offset & !0xfff..)?;
        (page.len() >= 0x1000).then_some(page.as_mut_ptr())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Device for VgaMemory {
    fn read(&mut self, offset: u32, data: &mut [u8]) {
        for (at, byte) in (offset as usize..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    fn write(&mut self, offset: u32, data: &[u8]) {
        for (at, byte) in (offset as usize..).zip(data) {
            if let Some(cell) = self.bytes.get_mut(at) {
                *cell = *byte;
            }
        }
    }

    fn width(&self) -> usize {
        4
    }

    fn reset(&mut self) {
        *self = VgaMemory::new();
    }
}
