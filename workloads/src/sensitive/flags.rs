//! PUSHF, POPF, CLI and STI: the interrupt flag and the I/O privilege level.
//!
//! What PUSHF shows is compared with what was set by STI or IRET; what POPF does is observed in the
//! EFLAGS that an exception pushes.

use super::trap::{IF, IOPL, Ring, SEEN_EFLAGS, Trap};
use crate::runtime::prelude::*;

/// The flags that are compared: all system flags but RF, which exceptions push as 1, and ID, which
/// anyone may change.
const SYSTEM: u32 = IF | IOPL | NT | VM | AC;
const NT: u32 = 1 << 14;
const VM: u32 = 1 << 17;
const AC: u32 = 1 << 18;
const CF: u32 = 1;

pub(super) fn pushf(iterations: u32) -> Result<Image, Error> {
    fn pushed(g: &mut Guest) {
        x86!(g ; pushf ; pop eax ; and eax, (SYSTEM | 2) as i32);
    }
    let mut g = Guest::for_probes("pushf");
    pushed(&mut g);
    g.probe("ring0-if-clear", 2);
    x86!(g ; sti);
    pushed(&mut g);
    x86!(g ; cli);
    g.probe("ring0-if-set", IF | 2);
    for (name, flags) in
        [("ring3-if-clear", 2), ("ring3-if-set", IF | 2), ("ring3-iopl", IF | IOPL | 2)]
    {
        g.inside(Ring::Three(flags), pushed);
        g.probe(name, flags);
    }
    // With interrupts off, so that the host's own flag would show.
    g.measure(iterations, |g| {
        x86!(g ; pushf ; pop eax ; and eax, (SYSTEM | 2) as i32 ; add ebx, eax);
    });
    g.finish(iterations.wrapping_mul(2))
}

/// Pops `flags` in `ring` and reports the system flags after it.
fn probe_popf(g: &mut Guest, ring: Ring, name: &str, flags: u32, expected: u32) {
    g.inside(ring, |g| {
        x86!(g ; push DWORD flags as i32 ; popf);
        g.observe();
    });
    g.probe_variable(name, SEEN_EFLAGS, SYSTEM, expected);
}

/// Measures two POPFs, `first` and `second`, which also set and clear CF; adds the carries, then
/// the system flags after the loop.
fn measure_popf(g: &mut Guest, iterations: u32, first: u32, second: u32) {
    g.begin();
    x86!(g ; xor ebx, ebx);
    g.repeat(iterations, |g| {
        x86!(g
            ; push DWORD (first | CF) as i32
            ; popf
            ; adc ebx, 0
            ; push DWORD second as i32
            ; popf
            ; adc ebx, 0
        );
    });
    g.end();
    g.observe();
    x86!(g ; mov eax, [SEEN_EFLAGS] ; and eax, SYSTEM as i32 ; add eax, ebx);
}

pub(super) fn popf(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("popf");
    let user = |flags| Ring::Three(flags);
    probe_popf(&mut g, Ring::Zero, "ring0-set", IF | 2, IF);
    probe_popf(&mut g, Ring::Zero, "ring0-clear", 2, 0);
    probe_popf(&mut g, user(IF | 2), "ring3-keeps-set", 2, IF);
    probe_popf(&mut g, user(2), "ring3-keeps-clear", IF | 2, 0);
    probe_popf(&mut g, user(IOPL | 2), "ring3-iopl3-set", IOPL | IF | 2, IOPL | IF);
    probe_popf(&mut g, user(IOPL | IF | 2), "ring3-iopl3-clear", IOPL | 2, IOPL);
    measure_popf(&mut g, iterations, 2, IF | 2);
    x86!(g ; cli);
    g.finish(iterations.wrapping_add(IF))
}

pub(super) fn popf_iopl(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("popf-iopl");
    probe_popf(&mut g, Ring::Zero, "ring0-set", IOPL | 2, IOPL);
    probe_popf(&mut g, Ring::Zero, "ring0-clear", 2, 0);
    probe_popf(&mut g, Ring::USER, "ring3-keeps-0", IOPL | 2, 0);
    probe_popf(&mut g, Ring::USER_IOPL3, "ring3-keeps-3", 2, IOPL);
    measure_popf(&mut g, iterations, 2, IOPL | 2);
    g.finish(iterations.wrapping_add(IOPL))
}

pub(super) fn cli_sti(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("cli-sti");
    for (name, ring, set) in [
        ("ring0-sti", Ring::Zero, true),
        ("ring0-cli", Ring::Zero, false),
        ("ring3-iopl3-sti", Ring::USER_IOPL3, true),
        ("ring3-iopl3-cli", Ring::Three(IOPL | IF | 2), false),
    ] {
        g.inside(ring, |g| {
            if set {
                x86!(g ; sti)
            } else {
                x86!(g ; cli)
            }
            g.observe();
        });
        g.probe_variable(name, SEEN_EFLAGS, IF, if set { IF } else { 0 });
    }
    g.probe_trap(Ring::USER, "ring3-cli", Trap::GP0, |g| x86!(g ; cli));
    g.probe_trap(Ring::USER, "ring3-sti", Trap::GP0, |g| x86!(g ; sti));
    probe_shadow(&mut g);
    g.measure(iterations, |g| x86!(g ; sti ; inc ebx ; cli));
    g.finish(iterations)
}

/// STI holds interrupts off for one more instruction (Intel SDM vol. 2, STI): with one pending,
/// STI; CLI lets none in and STI; NOP does.
fn probe_shadow(g: &mut Guest) {
    const MASTER: i8 = 0x20;
    const READ_REQUESTS: i8 = 0x0A; // OCW3
    g.count_ticks();
    g.set_up_pics(1);
    g.start_pit(10_000);
    x86!(g
        ; mov al, READ_REQUESTS
        ; out MASTER, al
        ; poll:
        ; in al, MASTER
        ; test al, 1
        ; jz <poll
        ; mov DWORD [layout::TICKS as i32], 0
        ; sti
        ; cli
        ; mov eax, [layout::TICKS as i32]
    );
    g.probe("ring0-shadow", 0);
    x86!(g
        ; sti
        ; nop
        ; cli
        ; xor eax, eax
        ; cmp DWORD [layout::TICKS as i32], 0
        ; setne al
    );
    g.probe("ring0-pending", 1);
    g.set_up_pics(0);
}
