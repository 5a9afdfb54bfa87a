//! A computation in ring 3 under a 1 kHz timer interrupt: what interrupts cost, and whether they come
//! while nothing else leaves the guest.
//!
//! The checksum does not depend on time. That ticks come, and not too many, is probed after the
//! measured part against channel 2 of the PIT, which measures ten milliseconds.

use crate::runtime::prelude::*;

/// Steps of a linear congruence in an iteration.
const STEPS: u32 = 5000;
const FACTOR: u32 = 1_664_525;
const STEP: u32 = 1_013_904_223;

const HERTZ: u32 = 1000;
/// Ticks in the time that channel 2 measures.
const EXPECTED_TICKS: u32 = 10;
/// More than this many are too many; fewer than one too few. A busy host may lose ticks, and a late one
/// may bring some at once.
const MOST_TICKS: u32 = 25;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("timer", Setup::USUAL);
    g.count_ticks();
    g.set_up_pics(1 << 0);
    g.start_pit(HERTZ);
    x86!(g ; xor eax, eax);
    g.begin();
    x86!(g ; xor eax, eax);
    g.ring3_with(layout::EFLAGS_IF, layout::USER_STACK, |g| {
        g.repeat(iterations, |g| {
            x86!(g
                ; mov ecx, STEPS as i32
                ; step:
                ; imul eax, eax, FACTOR as i32
                ; add eax, STEP as i32
                ; dec ecx
                ; jnz <step
            );
        });
    });
    x86!(g ; mov ebx, eax);
    g.end();
    emit_ticks_in_ten_milliseconds(&mut g);
    x86!(g
        ; dec eax
        ; cmp eax, MOST_TICKS as i32
        ; lea eax, [eax + 1]
        ; jae >report
        ; mov eax, EXPECTED_TICKS as i32 // near enough
        ; report:
    );
    g.probe("ticks", EXPECTED_TICKS);
    x86!(g ; mov eax, ebx);
    g.finish(affine(u64::from(iterations) * u64::from(STEPS)))
}

/// EAX = the ticks that came while channel 2 counted down.
fn emit_ticks_in_ten_milliseconds(g: &mut Guest) {
    let [low, high, ..] = (crate::runtime::PIT_HZ / HERTZ * EXPECTED_TICKS).to_le_bytes();
    x86!(g
        ; in al, 0x61
        ; and al, !3
        ; or al, 1 // the gate of channel 2, without the speaker
        ; out 0x61, al
    );
    g.out_byte(0x43, 0xB0); // channel 2, low then high byte, mode 0
    x86!(g ; mov DWORD [layout::TICKS as i32], 0);
    g.out_byte(0x42, low);
    g.out_byte(0x42, high);
    x86!(g
        ; wait:
        ; sti
        ; hlt
        ; in al, 0x61
        ; test al, 0x20 // the output of channel 2
        ; jz <wait
        ; cli
        ; mov eax, [layout::TICKS as i32]
    );
}

/// Where 0 goes in `times` steps, by squaring the step.
fn affine(mut times: u64) -> u32 {
    let (mut x, mut factor, mut step) = (0u32, FACTOR, STEP);
    while times > 0 {
        if times & 1 == 1 {
            x = x.wrapping_mul(factor).wrapping_add(step);
        }
        step = step.wrapping_mul(factor.wrapping_add(1));
        factor = factor.wrapping_mul(factor);
        times >>= 1;
    }
    x
}
