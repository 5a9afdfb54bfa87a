//! INT n and IRET: gates, stacks, and the interrupt flag.

use super::trap::{IF, IOPL, Ring, SEEN_CS, SEEN_EFLAGS, SEEN_EIP, Trap, VARIABLES};
use crate::runtime::prelude::*;
use crate::runtime::segment;

/// Vectors: what is measured, an interrupt gate for ring 0; a trap gate for ring 0; an interrupt
/// gate that ring 3 may use; one that is not present.
const KERNEL: u8 = 0x82;
const KERNEL_TRAP: u8 = 0x83;
const USER: u8 = 0x84;
const ABSENT: u8 = 0x85;

/// The error code of a fault over a gate: its place in the IDT (Intel SDM vol. 3, 7.13).
const fn idt_error(vector: u8) -> u16 {
    vector as u16 * 8 + 2
}

/// What the handler found: ESP, then five words of the stack, then EFLAGS within it.
const ENTRY_ESP: i32 = VARIABLES;
const FRAME: i32 = VARIABLES + 4;
const BEFORE_ESP: i32 = VARIABLES + 32;

/// A handler that keeps what it finds, and the flags that it runs with.
fn emit_handler(g: &mut Guest) -> DynamicLabel {
    let handler = g.label();
    x86!(g ; jmp >over ; =>handler ; mov [ENTRY_ESP], esp ; push eax);
    for field in 0..5 {
        x86!(g ; mov eax, [esp + 4 + 4 * field] ; mov [FRAME + 4 * field], eax);
    }
    x86!(g ; pop eax);
    g.observe();
    x86!(g ; iretd ; over:);
    handler
}

pub(super) fn int(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("int");
    let handler = emit_handler(&mut g);
    g.gate(KERNEL_TRAP, Gate::Trap, handler);
    g.gate(USER, Gate::UserInterrupt, handler);
    probe_from_ring0(&mut g);
    probe_from_ring3(&mut g);
    probe_exceptions(&mut g);
    let counter = g.label();
    x86!(g ; jmp >over ; =>counter ; inc ebx ; iretd ; over:);
    g.gate(KERNEL, Gate::Interrupt, counter);
    g.measure(iterations, |g| x86!(g ; int KERNEL as i8));
    g.finish(iterations)
}

/// No change of stacks; the trap gate leaves IF as it is.
fn probe_from_ring0(g: &mut Guest) {
    let back = g.label();
    x86!(g
        ; sti
        ; mov [BEFORE_ESP], esp
        ; int KERNEL_TRAP as i8
        ; =>back
        ; cli
        ; mov eax, [FRAME]
        ; lea edx, [=>back]
    );
    g.probe_edx("ring0-eip");
    g.probe_variable("ring0-cs", FRAME + 4, 0xFFFF, u32::from(layout::KERNEL_CODE));
    g.probe_variable("ring0-eflags", FRAME + 8, IF | IOPL, IF);
    g.probe_variable("ring0-trap-gate-if", SEEN_EFLAGS, IF, IF);
    x86!(g ; mov eax, [BEFORE_ESP] ; sub eax, [ENTRY_ESP]);
    g.probe("ring0-same-stack", 12);
    x86!(g ; sti ; int USER as i8 ; cli);
    g.probe_variable("ring0-interrupt-gate-if", SEEN_EFLAGS, IF, 0);
}

/// The stack is the TSS's; the interrupt gate clears IF.
fn probe_from_ring3(g: &mut Guest) {
    let back = g.label();
    g.inside(Ring::Three(IF | 2), |g| x86!(g ; int USER as i8 ; =>back));
    x86!(g ; mov eax, [FRAME] ; lea edx, [=>back]);
    g.probe_edx("ring3-eip");
    for (name, variable, mask, expected) in [
        ("ring3-cs", FRAME + 4, 0xFFFF, u32::from(layout::USER_CODE)),
        ("ring3-eflags", FRAME + 8, IF | IOPL, IF),
        ("ring3-esp", FRAME + 12, u32::MAX, layout::USER_STACK),
        ("ring3-ss", FRAME + 16, 0xFFFF, u32::from(layout::USER_DATA)),
        ("ring3-stack", ENTRY_ESP, u32::MAX, layout::INTERRUPT_STACK - 20),
        ("ring3-handler-cs", SEEN_CS, 0xFFFF, u32::from(layout::KERNEL_CODE)),
        ("ring3-handler-if", SEEN_EFLAGS, IF, 0),
    ] {
        g.probe_variable(name, variable, mask, expected);
    }
}

fn probe_exceptions(g: &mut Guest) {
    // A present bit that is cleared in memory.
    let present = (layout::IDT + u32::from(ABSENT) * 8 + 5) as i32;
    x86!(g ; and BYTE [present], 0x7F);
    let absent = Trap::np(idt_error(ABSENT));
    g.probe_trap(Ring::Zero, "ring0-absent", absent, |g| x86!(g ; int ABSENT as i8));
    let after = |vector| Trap::Exception { vector, error: 0, offset: 1 };
    g.probe_trap(Ring::Zero, "ring0-int3", after(3), |g| x86!(g ; int3));
    let overflow = |g: &mut Guest| x86!(g ; mov al, 0x7F ; inc al);
    g.probe_trap_after(Ring::Zero, "ring0-into", after(4), overflow, |g| x86!(g ; into));
    let refused = |vector| Trap::gp(idt_error(vector));
    g.probe_trap(Ring::USER, "ring3-kernel-gate", refused(KERNEL), |g| {
        x86!(g ; int KERNEL as i8);
    });
    g.probe_trap(Ring::USER, "ring3-int3", refused(3), |g| x86!(g ; int3));
}

/// Code that is not present.
const ABSENT_CODE: u16 = layout::FREE_SELECTOR;
const SEEN_ESP: i32 = VARIABLES + 48;

pub(super) fn iret(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("iret");
    g.descriptor(ABSENT_CODE, segment(0, 0xF_FFFF, 0x1B, 0xC));
    probe_same_ring(&mut g);
    probe_outward(&mut g);
    let anywhere = g.label();
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-absent", ABSENT_CODE, Trap::np(ABSENT_CODE)),
        (Ring::Zero, "ring0-null", 0, Trap::GP0),
        (Ring::USER, "ring3-kernel", layout::KERNEL_CODE, Trap::gp(layout::KERNEL_CODE)),
    ] {
        let frame = |g: &mut Guest| push_frame(g, 2, selector, anywhere);
        g.probe_trap_after(ring, name, trap, frame, |g| x86!(g ; iretd));
    }
    x86!(g ; jmp >over ; =>anywhere ; ud2 ; over:);
    g.measure(iterations, |g| {
        let there = g.label();
        push_frame(g, 2, layout::KERNEL_CODE, there);
        x86!(g ; iretd ; ud2 ; =>there ; inc ebx);
    });
    g.finish(iterations)
}

/// What IRET pops without a change of rings. Changes EAX.
fn push_frame(g: &mut Guest, eflags: u32, selector: u16, target: DynamicLabel) {
    x86!(g
        ; push DWORD eflags as i32
        ; push DWORD i32::from(selector)
        ; lea eax, [=>target]
        ; push eax
    );
}

/// IRET sets IF and IOPL in ring 0; in ring 3 it keeps them as POPF does.
fn probe_same_ring(g: &mut Guest) {
    for (ring, name, selector, popped, expected) in [
        (Ring::Zero, "ring0-set", layout::KERNEL_CODE, IF | IOPL | 2, IF | IOPL),
        (Ring::Zero, "ring0-clear", layout::KERNEL_CODE, 2, 0),
        (Ring::USER, "ring3-keeps-clear", layout::USER_CODE, IF | IOPL | 2, 0),
        (Ring::Three(IF | 2), "ring3-keeps-set", layout::USER_CODE, 2, IF),
        (Ring::USER_IOPL3, "ring3-iopl3-set", layout::USER_CODE, IF | IOPL | 2, IF | IOPL),
    ] {
        g.inside(ring, |g| {
            let there = g.label();
            g.guarded(|g| {
                push_frame(g, popped, selector, there);
                x86!(g ; iretd ; ud2 ; =>there ; ud2);
            });
        });
        x86!(g ; cli);
        g.probe_variable(name, SEEN_EFLAGS, IF | IOPL, expected);
    }
}

/// To ring 3: its stack, its CS, and no data segment of ring 0 left (Intel SDM vol. 2, IRET).
fn probe_outward(g: &mut Guest) {
    g.load_segment(Segment::Fs, layout::KERNEL_DATA);
    let there = g.label();
    g.inside(Ring::Three(IF | IOPL | 2), |g| {
        x86!(g
            ; mov [SEEN_ESP], esp
            ; .bytes [0x8C, 0xE0] // mov eax, fs
            ; mov ecx, eax
        );
        g.guarded(|g| x86!(g ; =>there ; ud2));
    });
    g.load_segment(Segment::Fs, layout::USER_DATA);
    x86!(g ; movzx eax, cx);
    g.probe("ring3-fs", 0);
    g.probe_variable("ring3-esp", SEEN_ESP, u32::MAX, layout::USER_STACK);
    g.probe_variable("ring3-cs", SEEN_CS, u32::MAX, u32::from(layout::USER_CODE));
    g.probe_variable("ring3-eflags", SEEN_EFLAGS, IF | IOPL, IF | IOPL);
    x86!(g ; mov eax, [SEEN_EIP] ; lea edx, [=>there]);
    g.probe_edx("ring3-eip");
}
