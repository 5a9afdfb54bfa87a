//! LAR, LSL, VERR and VERW: they read the guest's descriptor tables, in every ring and without a
//! trap.

use super::trap::Ring;
use crate::runtime::prelude::*;
use crate::runtime::segment;

/// Ring-0 code that may not be read.
const EXECUTE_ONLY: u16 = layout::FREE_SELECTOR;
/// Ring-3 data that may not be written, with a limit in bytes.
const READ_ONLY: u16 = layout::FREE_SELECTOR + 8;
const READ_ONLY_LIMIT: u32 = 0x1234;
/// A ring-3 call gate: it has rights but no limit.
const CALL_GATE: u16 = layout::FREE_SELECTOR + 16;
/// Ring-0 conforming code: it may be read from everywhere.
const CONFORMING: u16 = layout::FREE_SELECTOR + 24;
/// Beyond the GDT's limit.
const BEYOND: u16 = 0x100;

const PAGES: u8 = 0xC; // G, D/B

fn guest(name: &'static str) -> Guest {
    let mut g = Guest::for_probes(name);
    g.descriptor(EXECUTE_ONLY, segment(0, 0xF_FFFF, 0x99, PAGES));
    g.descriptor(READ_ONLY, segment(0, READ_ONLY_LIMIT, 0xF1, 0x4));
    g.descriptor(CALL_GATE, segment(0, 0, 0xEC, 0));
    g.descriptor(CONFORMING, segment(0, 0xF_FFFF, 0x9F, PAGES));
    g
}

/// What the destination holds before, and must hold after a failure.
const UNCHANGED: u32 = 0x0BAD_0BAD;
/// What a probe shows for a failure: ZF clear, destination unchanged.
const REFUSED: u32 = !UNCHANGED;

/// The defined bits of LAR's result: G, D/B, L, AVL, and the access byte (Intel SDM vol. 2, LAR).
const RIGHTS: u32 = 0x00F0_FF00;

/// Reports LAR or LSL of `selector`: the result under `mask`, or the destination's complement where
/// ZF is clear.
fn probe(
    g: &mut Guest,
    instruction: fn(&mut Guest),
    mask: u32,
    (ring, name, selector, expected): (Ring, &str, u16, u32),
) {
    g.inside(ring, |g| {
        x86!(g ; mov ecx, i32::from(selector) ; mov eax, UNCHANGED as i32);
        instruction(g);
        x86!(g
            ; jz >given
            ; not eax
            ; jmp >end
            ; given:
            ; and eax, mask as i32
            ; end:
        );
    });
    g.probe(name, expected);
}

fn measure(
    mut g: Guest,
    iterations: u32,
    instruction: fn(&mut Guest),
    (mask, selector, shown): (u32, u16, u32),
) -> Result<Image, Error> {
    x86!(g ; mov ecx, i32::from(selector));
    g.measure(iterations, |g| {
        instruction(g);
        x86!(g ; and eax, mask as i32 ; add ebx, eax);
    });
    g.finish(iterations.wrapping_mul(shown))
}

pub(super) fn lar(iterations: u32) -> Result<Image, Error> {
    let instruction: fn(&mut Guest) = |g| x86!(g ; lar eax, ecx);
    let mut g = guest("lar");
    for case in [
        (Ring::Zero, "ring0-code", layout::KERNEL_CODE, 0x00C0_9B00),
        (Ring::Zero, "ring0-data", layout::KERNEL_DATA, 0x00C0_9300),
        (Ring::Zero, "ring0-user", layout::USER_DATA & !3, 0x00C0_F300),
        (Ring::Zero, "ring0-busy-tss", layout::TSS_SELECTOR, 0x8B00),
        (Ring::Zero, "ring0-gate", CALL_GATE, 0xEC00),
        (Ring::Zero, "ring0-null", 0, REFUSED),
        (Ring::Zero, "ring0-beyond", BEYOND, REFUSED),
        (Ring::USER, "ring3-user", layout::USER_DATA, 0x00C0_F300),
        (Ring::USER, "ring3-kernel", layout::KERNEL_DATA, REFUSED),
        (Ring::USER, "ring3-conforming", CONFORMING, 0x00C0_9F00),
    ] {
        probe(&mut g, instruction, RIGHTS, case);
    }
    measure(g, iterations, instruction, (RIGHTS, layout::KERNEL_CODE, 0x00C0_9B00))
}

pub(super) fn lsl(iterations: u32) -> Result<Image, Error> {
    let instruction: fn(&mut Guest) = |g| x86!(g ; lsl eax, ecx);
    let tss_limit = 104 + 8192;
    let mut g = guest("lsl");
    for case in [
        (Ring::Zero, "ring0-pages", layout::KERNEL_CODE, u32::MAX),
        (Ring::Zero, "ring0-bytes", READ_ONLY, READ_ONLY_LIMIT),
        (Ring::Zero, "ring0-tss", layout::TSS_SELECTOR, tss_limit),
        (Ring::Zero, "ring0-gate", CALL_GATE, REFUSED),
        (Ring::Zero, "ring0-null", 0, REFUSED),
        (Ring::USER, "ring3-user", READ_ONLY | 3, READ_ONLY_LIMIT),
        (Ring::USER, "ring3-kernel", layout::KERNEL_DATA, REFUSED),
    ] {
        probe(&mut g, instruction, u32::MAX, case);
    }
    measure(g, iterations, instruction, (u32::MAX, READ_ONLY, READ_ONLY_LIMIT))
}

/// Whether VERR and VERW accept a selector, in ring 0 and in ring 3.
#[derive(Clone, Copy)]
struct Verified {
    selector: u16,
    read: [bool; 2],
    write: [bool; 2],
}

const fn verified(selector: u16, read: [bool; 2], write: [bool; 2]) -> Verified {
    Verified { selector, read, write }
}

const VERIFIED: [Verified; 8] = [
    verified(layout::KERNEL_CODE, [true, false], [false, false]),
    verified(layout::KERNEL_DATA, [true, false], [true, false]),
    verified(layout::USER_DATA, [true, true], [true, true]),
    verified(READ_ONLY | 3, [true, true], [false, false]),
    verified(EXECUTE_ONLY, [false, false], [false, false]),
    verified(CONFORMING, [true, true], [false, false]),
    verified(layout::TSS_SELECTOR, [false, false], [false, false]),
    verified(0, [false, false], [false, false]),
];

pub(super) fn verr(iterations: u32) -> Result<Image, Error> {
    verify("verr", iterations, |g| x86!(g ; verr cx), |case| case.read)
}

pub(super) fn verw(iterations: u32) -> Result<Image, Error> {
    verify("verw", iterations, |g| x86!(g ; verw cx), |case| case.write)
}

/// A probe shows one bit a selector: 1 where ZF is set.
fn verify(
    name: &'static str,
    iterations: u32,
    instruction: fn(&mut Guest),
    accepted: fn(Verified) -> [bool; 2],
) -> Result<Image, Error> {
    let mut g = guest(name);
    for (number, (ring, name)) in
        [(Ring::Zero, "ring0"), (Ring::USER, "ring3")].into_iter().enumerate()
    {
        g.inside(ring, |g| {
            x86!(g ; xor esi, esi);
            for case in VERIFIED {
                x86!(g ; mov ecx, i32::from(case.selector));
                instruction(g);
                x86!(g ; setz al ; movzx eax, al ; lea esi, [eax + esi * 2]);
            }
        });
        x86!(g ; mov eax, esi);
        let bits = VERIFIED.map(|case| u32::from(accepted(case)[number]));
        g.probe(name, bits.iter().fold(0, |word, bit| word * 2 + bit));
    }
    x86!(g ; mov ecx, i32::from(layout::KERNEL_DATA) ; xor edx, edx);
    g.measure(iterations, |g| {
        instruction(g);
        x86!(g ; setz dl ; add ebx, edx);
    });
    g.finish(iterations)
}
