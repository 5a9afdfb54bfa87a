//! MOV to and from CR0, CR2 and CR4, and CLTS: what is written is read back, has its effect, and
//! ring 3 may not do it.

use super::trap::{Ring, Trap};
use crate::runtime::prelude::*;
use crate::sums::sum_to;

/// CR0 as the runtime leaves it: PG, WP, NE, ET, MP, PE.
const CR0: u32 = 0x8001_0033;
const TS: u32 = 1 << 3;
const WP: u32 = 1 << 16;
const NW: u32 = 1 << 29;
/// CR4.TSD.
const TSD: u32 = 1 << 2;

/// Reports that ring 3 can neither read nor write: #GP(0) for both.
fn probe_ring3(g: &mut Guest, read: fn(&mut Guest), write: fn(&mut Guest)) {
    g.probe_trap(Ring::USER, "ring3-read", Trap::GP0, read);
    g.probe_trap(Ring::USER, "ring3-write", Trap::GP0, write);
}

/// Changes bits of CR0. Changes EAX.
fn flip_cr0(g: &mut Guest, bits: u32) {
    x86!(g ; mov eax, cr0 ; xor eax, bits as i32 ; mov cr0, eax);
}

pub(super) fn mov_cr0(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("mov-cr0");
    x86!(g ; mov eax, cr0);
    g.probe("ring0-read", CR0);
    flip_cr0(&mut g, TS);
    x86!(g ; mov eax, cr0);
    g.probe("ring0-ts", CR0 | TS);
    g.probe_trap(Ring::Zero, "ring0-ts-effect", Trap::NM, |g| x86!(g ; fld1));
    flip_cr0(&mut g, TS);
    g.probe_trap(Ring::Zero, "ring0-no-ts", Trap::None, |g| x86!(g ; fninit));
    probe_write_protection(&mut g);
    x86!(g ; mov eax, (CR0 | NW) as i32);
    g.probe_trap(Ring::Zero, "ring0-nw-without-cd", Trap::GP0, |g| x86!(g ; mov cr0, eax));
    x86!(g ; mov eax, CR0 as i32 ; mov cr0, eax);
    probe_ring3(&mut g, |g| x86!(g ; mov eax, cr0), |g| x86!(g ; mov cr0, eax));
    x86!(g ; mov ecx, CR0 as i32);
    // TS is set and cleared by turns; bits below 16 are summed.
    g.measure(iterations, |g| {
        x86!(g
            ; xor ecx, TS as i32
            ; mov cr0, ecx
            ; mov eax, cr0
            ; movzx eax, ax
            ; add ebx, eax
        );
    });
    let set = iterations.div_ceil(2);
    g.finish(iterations.wrapping_mul(CR0 & 0xFFFF).wrapping_add(set.wrapping_mul(TS)))
}

/// With WP ring 0 may not write to a read-only page; without it, it may.
fn probe_write_protection(g: &mut Guest) {
    const PAGE: i32 = layout::HEAP as i32;
    const PROTECTION: Trap = Trap::fault(14, 3); // a write to a present page by ring 0
    let entry = layout::entry_of(layout::HEAP) as i32;
    x86!(g ; and DWORD [entry], !layout::WRITABLE as i32 ; invlpg [PAGE]);
    let write: fn(&mut Guest) = |g| x86!(g ; mov DWORD [PAGE], 1);
    g.probe_trap(Ring::Zero, "ring0-wp", PROTECTION, write);
    flip_cr0(g, WP);
    g.probe_trap(Ring::Zero, "ring0-no-wp", Trap::None, write);
    flip_cr0(g, WP);
    g.probe_trap(Ring::Zero, "ring0-wp-again", PROTECTION, write);
}

pub(super) fn mov_cr2(iterations: u32) -> Result<Image, Error> {
    const PATTERN: u32 = 0xA5C3_0F96;
    let mut g = Guest::for_probes("mov-cr2");
    x86!(g ; mov eax, PATTERN as i32 ; mov cr2, eax ; xor eax, eax ; mov eax, cr2);
    g.probe("ring0", PATTERN);
    // A page fault puts its address there; a write is no obstacle.
    const ABSENT: u32 = layout::MEMORY + 0x1234;
    const NOT_PRESENT: Trap = Trap::fault(14, 0);
    g.probe_trap(Ring::Zero, "ring0-page-fault", NOT_PRESENT, |g| {
        x86!(g ; mov eax, [ABSENT as i32]);
    });
    x86!(g ; mov eax, cr2);
    g.probe("ring0-address", ABSENT);
    probe_ring3(&mut g, |g| x86!(g ; mov eax, cr2), |g| x86!(g ; mov cr2, eax));
    x86!(g ; xor ecx, ecx);
    g.measure(iterations, |g| {
        x86!(g ; inc ecx ; mov cr2, ecx ; mov eax, cr2 ; add ebx, eax);
    });
    g.finish(sum_to(iterations))
}

pub(super) fn mov_cr4(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("mov-cr4");
    x86!(g ; mov eax, cr4);
    g.probe("ring0-read", 0);
    x86!(g ; mov eax, TSD as i32 ; mov cr4, eax ; xor eax, eax ; mov eax, cr4);
    g.probe("ring0-tsd", TSD);
    g.probe_trap(Ring::USER, "ring3-tsd-effect", Trap::GP0, |g| x86!(g ; rdtsc));
    x86!(g ; xor eax, eax ; mov cr4, eax);
    g.probe_trap(Ring::USER, "ring3-no-tsd", Trap::None, |g| x86!(g ; rdtsc));
    // No reserved bit is tried: QEMU 7.2, a peer, hangs on it.
    x86!(g ; xor eax, eax);
    probe_ring3(&mut g, |g| x86!(g ; mov eax, cr4), |g| x86!(g ; mov cr4, eax));
    x86!(g ; xor ecx, ecx);
    g.measure(iterations, |g| {
        x86!(g ; xor ecx, TSD as i32 ; mov cr4, ecx ; mov eax, cr4 ; add ebx, eax);
    });
    g.finish(iterations.div_ceil(2).wrapping_mul(TSD))
}

pub(super) fn clts(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("clts");
    flip_cr0(&mut g, TS);
    g.probe_trap(Ring::USER, "ring3", Trap::GP0, |g| x86!(g ; clts));
    x86!(g ; mov eax, cr0);
    g.probe("ring3-no-effect", CR0 | TS);
    x86!(g ; clts ; mov eax, cr0);
    g.probe("ring0", CR0);
    g.probe_trap(Ring::Zero, "ring0-effect", Trap::None, |g| x86!(g ; fninit));
    flip_cr0(&mut g, TS);
    g.measure(iterations, |g| x86!(g ; clts ; inc ebx));
    // Bit 3 must be clear.
    x86!(g ; mov eax, cr0 ; and eax, TS as i32 ; add eax, ebx);
    g.finish(iterations)
}
