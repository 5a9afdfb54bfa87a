//! x87, MMX and SSE state as FXSAVE lays it out (Intel SDM volume 1, 10.5.1).

/// The 512 bytes of FXSAVE in its 32-bit form.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct FxArea(pub [u8; 512]);

/// The floating-point state.
#[derive(Clone, PartialEq, Eq)]
#[repr(C)]
pub struct Fpu {
    /// x87, MMX and SSE registers. The x87 part (bytes 0 to 159, MXCSR aside) is stale while
    /// [`Fpu::resident`] is set.
    pub area: FxArea,
    /// Whether the x87 registers are in the host's unit now. Only while a strategy runs: it is
    /// clear whenever `Strategy::run` or the emulator's `step` has returned.
    pub resident: bool,
}

/// Offset of MXCSR in [`FxArea`].
pub const MXCSR: usize = 24;
/// Offset of XMM0 in [`FxArea`]; sixteen bytes a register.
pub const XMM0: usize = 160;

impl Fpu {
    /// MXCSR.
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.area.0[MXCSR..MXCSR + 4].try_into().expect("four bytes"))
    }

    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.area.0[MXCSR..MXCSR + 4].copy_from_slice(&value.to_le_bytes());
    }
}

impl Default for Fpu {
    /// The state after power-up and FNINIT.
    fn default() -> Fpu {
        let mut fpu = Fpu { area: FxArea([0; 512]), resident: false };
        fpu.area.0[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        fpu.set_mxcsr(0x1f80);
        fpu
    }
}

impl std::fmt::Debug for Fpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fpu {{ resident: {}, area: ", self.resident)?;
        for byte in &self.area.0[..288] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, " }}")
    }
}
