//! HLT: it waits for an interrupt, and the interrupt returns behind it.

use super::trap::{IF, Ring, Trap, VARIABLES};
use crate::runtime::prelude::*;

/// Ticks of the PIT (838 ns) from programming it to the interrupt.
const WAIT: u16 = 60;

const SEEN_EIP: i32 = VARIABLES;
const TICKS: i32 = VARIABLES + 4;

pub(super) fn hlt(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::for_probes("hlt");
    let handler = g.label();
    x86!(g
        ; jmp >over
        ; =>handler
        ; push eax
        ; mov eax, [esp + 4]
        ; mov [SEEN_EIP], eax
        ; inc DWORD [TICKS]
    );
    g.end_of_interrupt(0);
    x86!(g ; pop eax ; iretd ; over:);
    g.irq(0, handler);
    g.set_up_pics(1);
    probe(&mut g);
    g.begin();
    x86!(g ; xor ebx, ebx);
    g.repeat(iterations, |g| {
        let after = g.label();
        wait(g, after);
        x86!(g
            ; lea eax, [=>after]
            ; xor edx, edx
            ; cmp [SEEN_EIP], eax
            ; sete dl
            ; add ebx, edx
        );
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}

/// One shot of the timer, and HLT until it comes. No interrupt can come between STI and HLT.
fn wait(g: &mut Guest, after: DynamicLabel) {
    one_shot(g);
    x86!(g ; sti ; hlt ; =>after ; cli);
}

/// Channel 0 in mode 0: an interrupt after [`WAIT`] ticks.
fn one_shot(g: &mut Guest) {
    let [low, high] = WAIT.to_le_bytes();
    g.out_byte(0x43, 0x30);
    g.out_byte(0x40, low);
    g.out_byte(0x40, high);
}

fn probe(g: &mut Guest) {
    let after = g.label();
    // Whatever the firmware left pending comes first: the second HLT is the one that is looked at.
    let first = g.label();
    wait(g, first);
    x86!(g ; mov DWORD [TICKS], 0 ; mov DWORD [SEEN_EIP], 0);
    wait(g, after);
    x86!(g ; mov eax, [TICKS]);
    g.probe("ring0-ticks", 1);
    x86!(g ; mov eax, [SEEN_EIP] ; lea edx, [=>after]);
    g.probe_edx("ring0-eip");
    // In ring 3 with interrupts on and one under way, so that a HLT that is executed also ends.
    one_shot(g);
    g.probe_trap(Ring::Three(IF | 2), "ring3", Trap::GP0, |g| x86!(g ; hlt));
}
