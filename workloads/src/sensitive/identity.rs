//! CPUID and RDTSC. Which CPU the guest is shown is the monitor's choice; what the probes ask is
//! what every CPU promises.

use super::trap::{Ring, Trap, VARIABLES};
use crate::runtime::prelude::*;

const ID: u32 = 1 << 21;
const FPU: u32 = 1;
/// CPUID.1:ECX.OSXSAVE, which shows CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
const TSD: u32 = 1 << 2;

pub(super) fn cpuid(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("cpuid");
    // EFLAGS.ID can be changed where CPUID exists (Intel SDM vol. 1, 20.1).
    x86!(g
        ; pushf
        ; pop ecx
        ; mov eax, ecx
        ; xor eax, ID as i32
        ; push eax
        ; popf
        ; pushf
        ; pop eax
        ; xor eax, ecx
        ; and eax, ID as i32
    );
    g.probe("ring0-id-flag", ID);
    x86!(g ; xor eax, eax ; cpuid ; cmp eax, 1 ; setae al ; movzx eax, al);
    g.probe("ring0-highest-leaf", 1);
    probe_vendor(&mut g);
    x86!(g ; mov eax, 1 ; cpuid ; mov edi, eax ; mov esi, edx ; mov eax, edx ; and eax, FPU as i32);
    g.probe("ring0-fpu", FPU);
    // A kernel that has not set CR4.OSXSAVE must not see it set: the host's has.
    x86!(g ; mov eax, ecx ; and eax, OSXSAVE as i32);
    g.probe("ring0-osxsave", 0);
    g.ring3(|g| x86!(g ; mov eax, 1 ; cpuid));
    x86!(g ; push edx ; mov edx, edi);
    g.probe_edx("ring3-signature");
    x86!(g ; pop eax ; mov edx, esi);
    g.probe_edx("ring3-features");
    g.begin();
    x86!(g ; xor esi, esi);
    g.repeat(iterations, |g| {
        x86!(g ; mov eax, 1 ; cpuid ; and edx, FPU as i32 ; add esi, edx);
    });
    g.end();
    x86!(g ; mov eax, esi);
    g.finish(iterations.wrapping_mul(FPU))
}

/// The vendor's name is letters, and the same in both rings.
fn probe_vendor(g: &mut Guest) {
    let keep = |g: &mut Guest, at: i32| {
        x86!(g
            ; xor eax, eax
            ; cpuid
            ; mov [at], ebx
            ; mov [at + 4], edx
            ; mov [at + 8], ecx
        );
    };
    keep(g, VARIABLES);
    g.ring3(|g| keep(g, VARIABLES + 16));
    x86!(g ; xor eax, eax);
    for word in [0, 4, 8] {
        x86!(g
            ; mov ecx, [VARIABLES + word]
            ; xor ecx, [VARIABLES + 16 + word]
            ; or eax, ecx
        );
    }
    g.probe("ring3-vendor", 0);
    // Printable: bit 7 clear, and bit 5 or 6 set, in each byte.
    x86!(g
        ; mov eax, [VARIABLES]
        ; mov ecx, eax
        ; shl ecx, 1
        ; or ecx, eax
        ; and ecx, 0x4040_4040
        ; and eax, 0x8080_8080u32 as i32
        ; or eax, ecx
    );
    g.probe("ring0-vendor", 0x4040_4040);
}

pub(super) fn rdtsc(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("rdtsc");
    // Some thousand instructions later it has moved on.
    x86!(g
        ; rdtsc
        ; mov esi, eax
        ; mov edi, edx
        ; mov ecx, 5000
        ; pass:
        ; dec ecx
        ; jnz <pass
        ; rdtsc
        ; sub esi, eax
        ; sbb edi, edx
        ; setc al
        ; movzx eax, al
    );
    g.probe("ring0-advances", 1);
    g.probe_trap(Ring::USER, "ring3", Trap::None, |g| x86!(g ; rdtsc));
    x86!(g ; mov eax, cr4 ; or eax, TSD as i32 ; mov cr4, eax);
    g.probe_trap(Ring::Zero, "ring0-tsd", Trap::None, |g| x86!(g ; rdtsc));
    g.probe_trap(Ring::USER, "ring3-tsd", Trap::GP0, |g| x86!(g ; rdtsc));
    x86!(g ; mov eax, cr4 ; and eax, !TSD as i32 ; mov cr4, eax);
    g.begin();
    x86!(g ; xor ebx, ebx ; rdtsc ; mov esi, eax ; mov edi, edx);
    // A time stamp that is not below the one before counts.
    g.repeat(iterations, |g| {
        x86!(g
            ; rdtsc
            ; cmp eax, esi
            ; mov esi, eax
            ; mov ecx, edx
            ; sbb ecx, edi
            ; mov edi, edx
            ; cmc
            ; adc ebx, 0
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}
