//! Far CALL, JMP and RET: CS changes, its RPL is the ring, and gates lead to ring 0.

use super::trap::{Ring, SEEN_CS, SEEN_EIP, Trap, VARIABLES};
use crate::runtime::prelude::*;
use crate::runtime::segment;

/// A second ring-0 code segment.
const OTHER: u16 = layout::FREE_SELECTOR;
/// Ring-0 conforming code.
const CONFORMING: u16 = layout::FREE_SELECTOR + 8;
/// Code that is not present.
const ABSENT: u16 = layout::FREE_SELECTOR + 16;
/// Ring-0 code whose base is [`SHIFT`].
const SHIFTED: u16 = layout::FREE_SELECTOR + 24;
const SHIFT: i32 = 0x1000;
/// A call gate for ring 3 to ring 0, with one parameter.
const USER_GATE: u16 = layout::FREE_SELECTOR + 32;
/// A call gate for ring 0 only.
const KERNEL_GATE: u16 = layout::FREE_SELECTOR + 40;

/// A far pointer in memory.
const POINTER: i32 = VARIABLES;
/// What the gate's function found.
const GATE_ESP: i32 = VARIABLES + 16;
const GATE_FRAME: i32 = VARIABLES + 32;
/// ESP after the return.
const RETURN_ESP: i32 = VARIABLES + 64;

fn guest(name: &'static str) -> Guest {
    let mut g = Guest::for_probes(name);
    g.descriptor(OTHER, segment(0, 0xF_FFFF, 0x9B, 0xC));
    g.descriptor(CONFORMING, segment(0, 0xF_FFFF, 0x9F, 0xC));
    g.descriptor(ABSENT, segment(0, 0xF_FFFF, 0x1B, 0xC));
    g.descriptor(SHIFTED, segment(SHIFT as u32, 0xF_FFFF, 0x9B, 0xC));
    g
}

/// CALL or JMP to an immediate far pointer.
fn far(g: &mut Guest, opcode: u8, selector: u16, target: DynamicLabel) {
    x86!(g ; .bytes [opcode]);
    g.far_pointer(selector, target);
}

const CALL: u8 = 0x9A;
const JMP: u8 = 0xEA;

/// Puts a call gate to `target` in ring-0 code into the GDT (Intel SDM vol. 3, figure 6-8).
fn call_gate(g: &mut Guest, selector: u16, target: DynamicLabel, access: u8, parameters: u8) {
    let at = (layout::GDT + u32::from(selector)) as i32;
    let middle = i32::from(access) << 8 | i32::from(parameters);
    x86!(g
        ; lea eax, [=>target]
        ; movzx edx, ax
        ; or edx, i32::from(layout::KERNEL_CODE) << 16
        ; mov [at], edx
        ; and eax, 0xFFFF_0000u32 as i32
        ; or eax, middle
        ; mov [at + 4], eax
    );
}

/// Reports which of the refused code selectors raise what, for a far transfer by `opcode`.
fn probe_refusals(g: &mut Guest, opcode: u8) {
    let anywhere = g.label();
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-absent", ABSENT, Trap::np(ABSENT)),
        (Ring::Zero, "ring0-data", layout::KERNEL_DATA, Trap::gp(layout::KERNEL_DATA)),
        (Ring::Zero, "ring0-null", 0, Trap::GP0),
        (Ring::USER, "ring3-kernel", layout::KERNEL_CODE, Trap::gp(layout::KERNEL_CODE)),
        (Ring::USER, "ring3-gate-of-ring0", KERNEL_GATE, Trap::gp(KERNEL_GATE)),
    ] {
        g.probe_trap(ring, name, trap, |g| far(g, opcode, selector, anywhere));
    }
    // Where a transfer that should have been refused ends up: back by the guard.
    x86!(g ; jmp >over ; =>anywhere ; ud2 ; over:);
}

/// Goes by `transfer` to a place in ring `ring` and reports CS and whether EIP is that place.
fn probe_arrival(
    g: &mut Guest,
    ring: Ring,
    [cs_name, eip_name]: [&str; 2],
    (selector, shift): (u16, i32),
    transfer: impl FnOnce(&mut Guest, DynamicLabel),
) {
    let there = g.label();
    x86!(g ; mov DWORD [SEEN_CS], 0 ; mov DWORD [SEEN_EIP], 0);
    g.inside(ring, |g| {
        g.guarded(|g| {
            transfer(g, there);
            x86!(g ; ud2 ; =>there ; ud2); // the first is not reached
        });
    });
    g.probe_variable(cs_name, SEEN_CS, u32::MAX, u32::from(selector));
    x86!(g ; mov eax, [SEEN_EIP] ; lea edx, [=>there] ; sub edx, shift);
    g.probe_edx(eip_name);
}

/// Puts the far pointer to `selector`:(`target` - `shift`) into memory.
fn store_pointer(g: &mut Guest, selector: u16, target: DynamicLabel, shift: i32) {
    x86!(g
        ; lea eax, [=>target]
        ; sub eax, shift
        ; mov [POINTER], eax
        ; mov WORD [POINTER + 4], selector as i16
    );
}

pub(super) fn far_jmp(iterations: u32) -> Result<Image, Error> {
    let mut g = guest("far-jmp");
    probe_arrival(&mut g, Ring::Zero, ["ring0-cs", "ring0-eip"], (OTHER, 0), |g, there| {
        far(g, JMP, OTHER, there);
    });
    let names = ["ring0-memory-cs", "ring0-memory-eip"];
    probe_arrival(&mut g, Ring::Zero, names, (OTHER, 0), |g, there| {
        store_pointer(g, OTHER, there, 0);
        x86!(g ; .bytes [0xFF, 0x2D] ; .i32 POINTER); // jmp far [POINTER]
    });
    let names = ["ring0-base-cs", "ring0-base-eip"];
    probe_arrival(&mut g, Ring::Zero, names, (SHIFTED, SHIFT), |g, there| {
        store_pointer(g, SHIFTED, there, SHIFT);
        x86!(g ; .bytes [0xFF, 0x2D] ; .i32 POINTER);
    });
    let names = ["ring3-conforming-cs", "ring3-conforming-eip"];
    probe_arrival(&mut g, Ring::USER, names, (CONFORMING | 3, 0), |g, there| {
        far(g, JMP, CONFORMING, there);
    });
    probe_refusals(&mut g, JMP);
    g.measure(iterations, |g| {
        let there = g.label();
        far(g, JMP, layout::KERNEL_CODE, there);
        x86!(g ; ud2 ; =>there ; inc ebx);
    });
    g.finish(iterations)
}

pub(super) fn far_call(iterations: u32) -> Result<Image, Error> {
    let mut g = guest("far-call");
    let function = g.label();
    x86!(g
        ; jmp >over
        ; =>function
        ; movzx eax, WORD [esp + 4] // the caller's CS
        ; add ebx, eax
        ; retf
        ; over:
    );
    let names = ["ring0-there-cs", "ring0-there-eip"];
    probe_arrival(&mut g, Ring::Zero, names, (OTHER, 0), |g, there| far(g, CALL, OTHER, there));
    x86!(g ; xor ebx, ebx);
    g.guarded(|g| far(g, CALL, layout::KERNEL_CODE, function));
    x86!(g ; mov eax, ebx);
    g.probe("ring0-pushed-cs", u32::from(layout::KERNEL_CODE));
    probe_gate(&mut g);
    probe_refusals(&mut g, CALL);
    g.measure(iterations, |g| far(g, CALL, layout::KERNEL_CODE, function));
    g.finish(iterations.wrapping_mul(u32::from(layout::KERNEL_CODE)))
}

/// A call from ring 3 by a gate: the stack is the TSS's, the parameter is copied to it.
fn probe_gate(g: &mut Guest) {
    const PARAMETER: u32 = 0x00C0_FFEE;
    let (function, back) = (g.label(), g.label());
    call_gate(g, USER_GATE, function, 0xEC, 1);
    call_gate(g, KERNEL_GATE, function, 0x8C, 1);
    x86!(g ; jmp >over ; =>function ; mov [GATE_ESP], esp);
    for field in 0..5 {
        x86!(g ; mov eax, [esp + 4 * field] ; mov [GATE_FRAME + 4 * field], eax);
    }
    x86!(g ; retf 4 ; over:);
    g.ring3(|g| {
        g.guarded(|g| {
            x86!(g ; push DWORD PARAMETER as i32);
            far(g, CALL, USER_GATE | 3, back);
            x86!(g ; =>back ; mov [RETURN_ESP], esp);
        });
    });
    g.probe_variable("ring3-gate-stack", GATE_ESP, u32::MAX, layout::INTERRUPT_STACK - 20);
    x86!(g ; mov eax, [GATE_FRAME] ; lea edx, [=>back]);
    g.probe_edx("ring3-gate-eip");
    for (name, field, mask, expected) in [
        ("ring3-gate-cs", 4, 0xFFFF, u32::from(layout::USER_CODE)),
        ("ring3-gate-parameter", 8, u32::MAX, PARAMETER),
        ("ring3-gate-esp", 12, u32::MAX, layout::USER_STACK - 4),
        ("ring3-gate-ss", 16, 0xFFFF, u32::from(layout::USER_DATA)),
    ] {
        g.probe_variable(name, GATE_FRAME + field, mask, expected);
    }
    g.probe_variable("ring3-gate-return", RETURN_ESP, u32::MAX, layout::USER_STACK);
}

pub(super) fn far_ret(iterations: u32) -> Result<Image, Error> {
    let mut g = guest("far-ret");
    probe_arrival(&mut g, Ring::Zero, ["ring0-cs", "ring0-eip"], (OTHER, 0), |g, there| {
        x86!(g ; push DWORD i32::from(OTHER) ; lea eax, [=>there] ; push eax ; retf);
    });
    probe_outward(&mut g);
    let anywhere = g.label();
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-absent", ABSENT, Trap::np(ABSENT)),
        (Ring::Zero, "ring0-null", 0, Trap::GP0),
        (Ring::USER, "ring3-kernel", layout::KERNEL_CODE, Trap::gp(layout::KERNEL_CODE)),
    ] {
        let frame = |g: &mut Guest| {
            x86!(g ; push DWORD i32::from(selector) ; lea eax, [=>anywhere] ; push eax);
        };
        g.probe_trap_after(ring, name, trap, frame, |g| x86!(g ; retf));
    }
    x86!(g ; jmp >over ; =>anywhere ; ud2 ; over:);
    g.measure(iterations, |g| {
        x86!(g
            ; push DWORD i32::from(layout::KERNEL_CODE)
            ; lea eax, [>there]
            ; push eax
            ; retf
            ; ud2
            ; there:
            ; inc ebx
        );
    });
    g.finish(iterations)
}

/// A return to ring 3, out of a call gate: the outer stack comes back, and a data segment that
/// ring 3 may not have is taken away (Intel SDM vol. 3, 6.8.6).
fn probe_outward(g: &mut Guest) {
    const SEEN_FS: i32 = VARIABLES + 80;
    let (function, there, seen) = (g.label(), g.label(), g.label());
    call_gate(g, USER_GATE, function, 0xEC, 1);
    x86!(g ; jmp >over ; =>function);
    g.load_segment(Segment::Fs, layout::KERNEL_DATA);
    x86!(g ; lea eax, [=>there] ; mov [esp], eax ; retf 4 ; over:);
    g.ring3(|g| {
        g.guarded(|g| {
            x86!(g ; push 0);
            far(g, CALL, USER_GATE | 3, there);
            x86!(g
                ; ud2
                ; =>there
                ; mov [RETURN_ESP], esp
                ; .bytes [0x8C, 0xE0] // mov eax, fs
                ; mov [SEEN_FS], eax
                ; =>seen
                ; ud2
            );
        });
    });
    g.load_segment(Segment::Fs, layout::USER_DATA);
    g.probe_variable("ring0-outer-cs", SEEN_CS, u32::MAX, u32::from(layout::USER_CODE));
    x86!(g ; mov eax, [SEEN_EIP] ; lea edx, [=>seen]);
    g.probe_edx("ring0-outer-eip");
    g.probe_variable("ring0-outer-esp", RETURN_ESP, u32::MAX, layout::USER_STACK);
    g.probe_variable("ring0-outer-fs", SEEN_FS, 0xFFFF, 0);
}
