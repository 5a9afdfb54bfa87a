//! MOV to and from debug registers, and the breakpoints in them.

use super::trap::{Ring, Trap, VARIABLES};
use crate::runtime::prelude::*;
use crate::sums::sum_to;

/// Bits of DR6 that are 1 (Intel SDM vol. 3, 19.2.3; bit 16 is RTM's), and the one of DR7.
const DR6_ONES: u32 = 0xFFFF_0FF0;
const DR7_ONE: u32 = 0x400;
/// DR7: breakpoint 0 on, for execution, or for writes of four bytes; general detect.
const EXECUTION: u32 = DR7_ONE | 2;
const WRITES: u32 = DR7_ONE | 2 | 0xD_0000;
const GENERAL_DETECT: u32 = DR7_ONE | 1 << 13;
/// DR6: breakpoint 0; an access to debug registers.
const HIT: u32 = 1;
const ACCESS: u32 = 1 << 13;
/// The bits of DR6 that a debug exception sets.
const CAUSES: u32 = 0xE00F;

const WATCHED: i32 = VARIABLES;

pub(super) fn mov_dr(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("mov-dr");
    probe_registers(&mut g);
    probe_breakpoints(&mut g);
    g.probe_trap(Ring::USER, "ring3-read", Trap::GP0, |g| x86!(g ; mov eax, dr0));
    g.probe_trap(Ring::USER, "ring3-write", Trap::GP0, |g| x86!(g ; mov dr0, eax));
    x86!(g ; xor ecx, ecx);
    g.measure(iterations, |g| {
        x86!(g ; inc ecx ; mov dr0, ecx ; mov eax, dr0 ; add ebx, eax);
    });
    g.finish(sum_to(iterations))
}

fn probe_registers(g: &mut Guest) {
    const PATTERN: u32 = 0x0012_3450;
    x86!(g
        ; mov eax, PATTERN as i32
        ; mov dr0, eax
        ; inc eax
        ; mov dr1, eax
        ; inc eax
        ; mov dr2, eax
        ; inc eax
        ; mov dr3, eax
    );
    x86!(g ; mov eax, dr0);
    g.probe("ring0-dr0", PATTERN);
    x86!(g ; mov eax, dr1);
    g.probe("ring0-dr1", PATTERN + 1);
    x86!(g ; mov eax, dr2);
    g.probe("ring0-dr2", PATTERN + 2);
    x86!(g ; mov eax, dr3);
    g.probe("ring0-dr3", PATTERN + 3);
    x86!(g ; xor eax, eax ; mov dr6, eax ; mov eax, dr6);
    g.probe("ring0-dr6", DR6_ONES);
    x86!(g ; xor eax, eax ; mov dr7, eax ; mov eax, dr7);
    g.probe("ring0-dr7", DR7_ONE);
}

fn probe_breakpoints(g: &mut Guest) {
    let place = g.label();
    let fault = Trap::fault(1, 0);
    x86!(g ; lea eax, [=>place] ; mov dr0, eax ; mov eax, EXECUTION as i32 ; mov dr7, eax);
    g.probe_trap(Ring::Zero, "ring0-execution", fault, |g| x86!(g ; =>place ; nop));
    probe_cause(g, "ring0-execution-dr6", HIT);
    // A data breakpoint is a trap: EIP is behind the ten bytes of the MOV.
    let trap = Trap::Exception { vector: 1, error: 0, offset: 10 };
    x86!(g ; mov eax, WATCHED ; mov dr0, eax ; mov eax, WRITES as i32 ; mov dr7, eax);
    g.probe_trap(Ring::Zero, "ring0-write", trap, |g| {
        x86!(g ; mov DWORD [WATCHED], 1 ; nop);
    });
    probe_cause(g, "ring0-write-dr6", HIT);
    x86!(g ; mov eax, GENERAL_DETECT as i32 ; mov dr7, eax);
    g.probe_trap(Ring::Zero, "ring0-detect", fault, |g| x86!(g ; mov eax, dr0));
    probe_cause(g, "ring0-detect-dr6", ACCESS);
}

/// Reports the causes in DR6, and clears it and DR7.
fn probe_cause(g: &mut Guest, name: &str, cause: u32) {
    x86!(g
        ; xor ecx, ecx
        ; mov dr7, ecx
        ; mov eax, dr6
        ; mov dr6, ecx
        ; and eax, CAUSES as i32
    );
    g.probe(name, cause);
}
