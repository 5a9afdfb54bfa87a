//! The GDT, the TSS and the IDT, built on the host as bytes of the image (Intel SDM vol. 3, 3.4.5,
//! 7.2 and 8.2).

use super::layout;

/// What kind of gate a vector gets, and who may call it by INT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// An interrupt gate (IF is cleared), for ring 0 and for hardware.
    Interrupt,
    /// An interrupt gate that ring 3 may call by INT.
    UserInterrupt,
    /// A trap gate (IF stays), for ring 0 and for hardware.
    Trap,
    /// A trap gate that ring 3 may call by INT.
    UserTrap,
}

impl Gate {
    /// The attribute byte: present, DPL, 32-bit interrupt or trap gate.
    fn attributes(self) -> u32 {
        match self {
            Self::Interrupt => 0x8E,
            Self::UserInterrupt => 0xEE,
            Self::Trap => 0x8F,
            Self::UserTrap => 0xEF,
        }
    }

    /// The eight bytes of the gate to `handler` in the kernel's code segment.
    pub(super) fn bytes(self, handler: u32) -> [u8; 8] {
        let low = u32::from(layout::KERNEL_CODE) << 16 | handler & 0xFFFF;
        let high = handler & 0xFFFF_0000 | self.attributes() << 8;
        (u64::from(high) << 32 | u64::from(low)).to_le_bytes()
    }
}

/// A segment descriptor: `access` is the access byte, `flags` the upper nibble with G and D/B.
#[must_use]
pub const fn segment(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let low = (limit & 0xFFFF) as u64 | ((base & 0xFFFF) as u64) << 16;
    let high = (base >> 16 & 0xFF)
        | (access as u32) << 8
        | (limit & 0xF_0000)
        | (flags as u32) << 20
        | base & 0xFF00_0000;
    low | (high as u64) << 32
}

/// The GDT of [`layout`].
pub(super) fn gdt() -> Vec<u8> {
    let mut entries = [0u64; layout::GDT_ENTRIES as usize];
    let mut put = |selector: u16, descriptor| entries[usize::from(selector >> 3)] = descriptor;
    put(layout::KERNEL_CODE, segment(0, 0xF_FFFF, 0x9B, 0xC));
    put(layout::KERNEL_DATA, segment(0, 0xF_FFFF, 0x93, 0xC));
    put(layout::USER_CODE, segment(0, 0xF_FFFF, 0xFB, 0xC));
    put(layout::USER_DATA, segment(0, 0xF_FFFF, 0xF3, 0xC));
    put(layout::TSS_SELECTOR, segment(layout::TSS, TSS_BYTES as u32 - 1, 0x89, 0));
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Bytes of the TSS proper, before the I/O bitmap.
const TSS_HEAD: usize = 104;
/// The whole TSS: the bitmap is followed by a byte of ones.
const TSS_BYTES: usize = TSS_HEAD + 8192 + 1;

/// A TSS whose I/O bitmap denies every port.
pub(super) fn tss() -> Vec<u8> {
    let mut bytes = vec![0xFF; TSS_BYTES];
    bytes[..TSS_HEAD].fill(0);
    bytes[4..8].copy_from_slice(&layout::INTERRUPT_STACK.to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::from(layout::KERNEL_DATA).to_le_bytes());
    bytes[102..104].copy_from_slice(&(TSS_HEAD as u16).to_le_bytes());
    bytes
}

/// The six bytes that LGDT and LIDT load.
pub(super) fn table_register(base: u32, bytes: u32) -> [u8; 6] {
    let mut register = [0; 6];
    register[..2].copy_from_slice(&((bytes - 1) as u16).to_le_bytes());
    register[2..].copy_from_slice(&base.to_le_bytes());
    register
}
