//! IN and OUT: in ring 3 they are allowed by IOPL, or else port by port in the TSS's bitmap.

use super::trap::{IOPL, Ring, Trap};
use crate::runtime::prelude::*;

/// Line status of COM1, and what is set there when nothing is being sent.
const STATUS: u16 = 0x3FD;
const IDLE: u32 = 0x60;
/// The port of power-on codes: a write to it does nothing.
const CODE: i8 = 0x80u8 as i8;

/// The TSS's field that says where the bitmap is, and where it is.
const BITMAP_FIELD: i32 = layout::TSS as i32 + 102;
const BITMAP: u16 = 104;
/// Bytes of the TSS.
const TSS_BYTES: u16 = BITMAP + 8192 + 1;

fn read_status(g: &mut Guest) {
    x86!(g ; in al, dx);
}

/// Measures reads of the line status in ring 3 under `eflags`.
fn measure(mut g: Guest, iterations: u32, eflags: u32) -> Result<Image, Error> {
    g.begin();
    x86!(g ; xor ebx, ebx ; mov edx, i32::from(STATUS));
    g.inside(Ring::Three(eflags), |g| {
        g.repeat(iterations, |g| {
            read_status(g);
            x86!(g ; and eax, IDLE as i32 ; add ebx, eax);
        });
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations.wrapping_mul(IDLE))
}

/// Reports the line status as a ring sees it that may read it.
fn probe_value(g: &mut Guest, ring: Ring, name: &str) {
    x86!(g ; xor eax, eax ; mov edx, i32::from(STATUS));
    g.inside(ring, |g| g.guarded(read_status));
    x86!(g ; and eax, IDLE as i32);
    g.probe(name, IDLE);
}

pub(super) fn io_iopl(iterations: u32) -> Result<Image, Error> {
    const IOPL_2: u32 = 2 << 12;
    let mut g = Guest::for_probes("io-iopl");
    probe_value(&mut g, Ring::Zero, "ring0-in");
    probe_value(&mut g, Ring::USER_IOPL3, "ring3-iopl3-value");
    for (ring, in_name, out_name, trap) in [
        (Ring::USER_IOPL3, "ring3-iopl3-in", "ring3-iopl3-out", Trap::None),
        (Ring::Three(IOPL_2 | 2), "ring3-iopl2-in", "ring3-iopl2-out", Trap::GP0),
        (Ring::USER, "ring3-in", "ring3-out", Trap::GP0),
    ] {
        x86!(g ; mov edx, i32::from(STATUS));
        g.probe_trap(ring, in_name, trap, read_status);
        g.probe_trap(ring, out_name, trap, |g| x86!(g ; out CODE, al));
    }
    measure(g, iterations, IOPL | 2)
}

pub(super) fn io_bitmap(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("io-bitmap");
    let byte = (layout::TSS + u32::from(BITMAP) + u32::from(STATUS / 8)) as i32;
    let allowed = !(1u8 << (STATUS % 8));
    x86!(g ; mov BYTE [byte], allowed as i8);
    probe_value(&mut g, Ring::USER, "ring3-value");
    x86!(g ; mov edx, i32::from(STATUS));
    g.probe_trap(Ring::USER, "ring3-allowed", Trap::None, read_status);
    x86!(g ; mov edx, i32::from(STATUS));
    g.probe_trap(Ring::USER, "ring3-second-byte", Trap::GP0, |g| x86!(g ; in ax, dx));
    x86!(g ; mov edx, i32::from(STATUS) + 1);
    g.probe_trap(Ring::USER, "ring3-denied", Trap::GP0, read_status);
    // A bitmap that begins beyond the TSS denies everything.
    x86!(g
        ; mov WORD [BITMAP_FIELD], TSS_BYTES as i16
        ; mov edx, i32::from(STATUS)
    );
    g.probe_trap(Ring::USER, "ring3-no-bitmap", Trap::GP0, read_status);
    x86!(g ; mov WORD [BITMAP_FIELD], BITMAP as i16);
    measure(g, iterations, 2)
}
