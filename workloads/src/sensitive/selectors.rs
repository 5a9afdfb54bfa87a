//! SLDT, STR, SMSW: they show a selector or the low half of CR0, in every ring and without a trap.

use super::trap::{Ring, VARIABLES};
use crate::runtime::prelude::*;
use crate::runtime::segment;

/// CR0's low half as the runtime leaves it: PE, MP, ET, NE.
const MACHINE_STATUS: u32 = 0x33;
const TS: u32 = 8;

pub(super) fn sldt(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("sldt");
    g.descriptor(layout::LDT_SELECTOR, segment(layout::HEAP, 0xFF, 0x82, 0));
    x86!(g ; mov ax, layout::LDT_SELECTOR as i16 ; lldt ax);
    let forms = Forms {
        register: |g| x86!(g ; sldt eax),
        memory: |g| x86!(g ; sldt [VARIABLES]),
        value: u32::from(layout::LDT_SELECTOR),
    };
    probe_both(&mut g, &forms);
    measure(g, iterations, &forms)
}

pub(super) fn str(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("str");
    let forms = Forms {
        register: |g| x86!(g ; str eax),
        memory: |g| x86!(g ; str [VARIABLES]),
        value: u32::from(layout::TSS_SELECTOR),
    };
    probe_both(&mut g, &forms);
    measure(g, iterations, &forms)
}

pub(super) fn smsw(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("smsw");
    let forms = Forms {
        register: |g| x86!(g ; smsw eax),
        memory: |g| x86!(g ; smsw [VARIABLES]),
        value: MACHINE_STATUS,
    };
    probe_both(&mut g, &forms);
    x86!(g ; mov eax, cr0 ; or eax, TS as i32 ; mov cr0, eax ; smsw eax ; and eax, 0xFFFF);
    g.probe("ring0-ts", MACHINE_STATUS | TS);
    g.ring3(|g| x86!(g ; smsw eax ; and eax, 0xFFFF));
    g.probe("ring3-ts", MACHINE_STATUS | TS);
    // With TS set, some strategies leave all that follows to the emulator.
    x86!(g ; clts);
    measure(g, iterations, &forms)
}

/// The instruction's two forms, and what it must show.
struct Forms {
    /// To EAX. Bits 31 to 16 depend on the processor (Intel SDM vol. 2).
    register: fn(&mut Guest),
    /// To [`VARIABLES`]: always 16 bits.
    memory: fn(&mut Guest),
    value: u32,
}

fn probe_both(g: &mut Guest, forms: &Forms) {
    const ABOVE: u32 = 0x5A5A_0000;
    for (ring, register, memory) in
        [(Ring::Zero, "ring0", "ring0-memory"), (Ring::USER, "ring3", "ring3-memory")]
    {
        g.inside(ring, forms.register);
        x86!(g ; and eax, 0xFFFF);
        g.probe(register, forms.value);
        x86!(g ; mov DWORD [VARIABLES], ABOVE as i32);
        g.inside(ring, forms.memory);
        g.probe_variable(memory, VARIABLES, u32::MAX, ABOVE | forms.value);
    }
}

fn measure(mut g: Guest, iterations: u32, forms: &Forms) -> Result<Image, Error> {
    g.measure(iterations, |g| {
        (forms.register)(g);
        x86!(g ; and eax, 0xFFFF ; add ebx, eax);
    });
    g.finish(iterations.wrapping_mul(forms.value))
}
