//! What a BIOS would leave in CMOS memory: how much memory there is, and the drives.

const EQUIPMENT: usize = 0x14;
const DISK_TYPES: usize = 0x12;
const DISK_TYPE_EXTENDED: usize = 0x19;
const CHECKSUM: usize = 0x2e;

const MIB: u64 = 1 << 20;

/// CMOS memory of a PC with this much RAM.
pub(super) fn contents(memory_bytes: u64, has_disk: bool) -> [u8; 128] {
    let mut cmos = [0; 128];
    let mut word = |at: usize, value: u64| {
        let value = u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
        cmos[at..at + 2].copy_from_slice(&value);
    };
    // In KiB: base memory, and what lies above 1 MiB, twice; in 64 KiB: what lies above 16 MiB.
    word(0x15, 640);
    let extended = memory_bytes.saturating_sub(MIB) / 1024;
    word(0x17, extended);
    word(0x30, extended);
    word(0x34, memory_bytes.saturating_sub(16 * MIB) >> 16);
    // An FPU, and a display adapter with a BIOS of its own.
    cmos[EQUIPMENT] = 0x02;
    if has_disk {
        cmos[DISK_TYPES] = 0xf0;
        cmos[DISK_TYPE_EXTENDED] = 47;
    }
    let sum: u16 = cmos[0x10..CHECKSUM].iter().map(|&byte| u16::from(byte)).sum();
    cmos[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    cmos
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(memory_bytes: u64) -> [u16; 4] {
        let cmos = contents(memory_bytes, false);
        [0x15, 0x17, 0x30, 0x34].map(|at| u16::from_le_bytes([cmos[at], cmos[at + 1]]))
    }

    #[test]
    fn memory_sizes_are_where_a_bios_puts_them() {
        assert_eq!(words(MIB), [640, 0, 0, 0]);
        assert_eq!(words(8 * MIB), [640, 7 * 1024, 7 * 1024, 0]);
        assert_eq!(words(128 * MIB), [640, 0xffff, 0xffff, 112 * 16]);
        assert_eq!(words(3072 * MIB), [640, 0xffff, 0xffff, 3056 * 16]);
    }

    #[test]
    fn a_disk_is_named_and_the_checksum_covers_it() {
        let cmos = contents(MIB, true);
        assert_eq!(cmos[DISK_TYPES], 0xf0);
        assert_eq!(u16::from_be_bytes([cmos[0x2e], cmos[0x2f]]), 0x80 + 2 + 2 + 0xf0 + 47);
    }
}
