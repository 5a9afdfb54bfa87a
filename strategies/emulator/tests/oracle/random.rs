//! A small deterministic generator of random numbers, and of the values that find bugs.

/// SplitMix64: any seed will do, neighbouring ones included.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.next() >> 32) as u32 % end
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// An integer, mostly from the edges.
    pub(crate) fn integer(&mut self) -> u32 {
        #[rustfmt::skip]
        const EDGES: [u32; 28] = [
            0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 0x7f, 0x80, 0x81, 0x99, 0xff, 0x100,
            0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
        ];
        match self.below(10) {
            0..=4 => self.pick(&EDGES),
            5 => 1 << self.below(32),
            6 => self.below(0x1_0000),
            _ => self.next() as u32,
        }
    }

    /// Eight bytes: integers, or single or double precision numbers of all classes.
    pub(crate) fn quadword(&mut self) -> u64 {
        const SINGLES: [u32; 14] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x4000_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7fa0_0000,
            0xffc0_0001,
            1,
            0x807f_ffff,
            0x0080_0000,
            0x4f00_0000,
        ];
        const DOUBLES: [u64; 12] = [
            0x8000_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0xc008_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff4_0000_0000_0000,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
        ];
        match self.below(4) {
            0 => u64::from(self.pick(&SINGLES)) << 32 | u64::from(self.pick(&SINGLES)),
            1 => self.pick(&DOUBLES),
            2 => u64::from(self.integer()) << 32 | u64::from(self.integer()),
            _ => self.next(),
        }
    }

    /// A number in the x87's own format, of all classes, the invalid ones included.
    pub(crate) fn extended(&mut self) -> [u8; 10] {
        const EXPONENTS: [u16; 10] =
            [0, 1, 0x3ffe, 0x3fff, 0x4000, 0x401e, 0x403e, 0x43ff, 0x7ffe, 0x7fff];
        let exponent = match self.below(4) {
            0 => self.below(0x8000) as u16,
            1 => 0x3ff0 + self.below(0x30) as u16,
            _ => self.pick(&EXPONENTS),
        };
        let fraction = match self.below(4) {
            0 => 0,
            1 => 1 << self.below(63),
            2 => self.next() & 0xffff_ff00_0000_0000,
            _ => self.next(),
        };
        let is_normal = exponent != 0 && !self.chance(3);
        let significand = fraction & (u64::MAX >> 1) | u64::from(is_normal) << 63;
        let sign = u16::from(self.chance(50)) << 15;
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&significand.to_le_bytes());
        bytes[8..].copy_from_slice(&(exponent | sign).to_le_bytes());
        bytes
    }
}
