//! Single steps, alignment checks, floating-point exceptions, and what else is not a page fault.

use crate::guest::{Guest, Sides, compare};
use machine::cpu::{Cr0, Cr4, Eflags, register};

/// Some of everything that there is to step through.
const STEPS: &[u8] = &[
    0x40, 0x50, 0x58, 0x9c, 0x58, 0xf3, 0xa4, 0xe8, 0, 0, 0, 0, 0x5a, 0x1e, 0x17, 0x90, 0x0f, 0xa2,
    0x60, 0x61, 0x87, 0x03, 0x74, 0x00, 0xb1, 0x05, 0xe2, 0xfe,
];

#[test]
fn single_steps_are_counted() {
    for (name, flag) in [("TF", Eflags::TF), ("TF and NT", Eflags::TF | Eflags::NT)] {
        compare(name, |guest| {
            guest.count(1);
            guest.set(register::ECX, 20);
            // push flags; popf; steps; push 2; popf
            let [a, b, ..] = flag.bits().to_le_bytes();
            guest.code(&[&[0x68, a, b, 0, 0, 0x9d], STEPS, &[0x6a, 2, 0x9d, 0x40, 0x41]]);
        });
    }
}

#[test]
fn breakpoints_are_hit() {
    compare("DR7", |guest| {
        guest.count(1);
        guest.machine.cpu.debug[0] = crate::guest::DATA;
        guest.machine.cpu.debug[7] = 0x000d_0402;
        guest.set(register::ECX, 10);
        guest.code(&[&[0xff, 0x03, 0x8b, 0x03, 0xe2, 0xfa]]);
    });
}

#[test]
fn alignment_is_checked_in_ring_3() {
    let Some(mut sides) = Sides::new() else { return };
    let checked: [&[u8]; 5] = [
        &[0x8b, 0x43, 1],
        &[0x89, 0x43, 2],
        &[0xdd, 0x43, 4],
        &[0x66, 0x8b, 0x43, 1],
        &[0x8b, 0x43, 4],
    ];
    for code in checked {
        for mask in [Cr0::AM, Cr0::empty()] {
            sides.compare(&format!("{code:02x?} {mask:?}"), |guest| {
                guest.machine.cpu.cr0 |= mask;
                guest.enter_ring(3);
                // The same access without AC, with it, and without again.
                let on = [0x68, 0, 0, 4, 0, 0x9d];
                guest.code(&[code, &on, code, &[0x6a, 0, 0x9d], code]);
            });
        }
    }
}

fn unmask(guest: &mut Guest) {
    // At DATA: an x87 control word; at DATA + 4: an MXCSR.
    guest.write_u32(crate::guest::DATA, 0x0340);
    guest.write_u32(crate::guest::DATA + 4, 0);
}

/// fldcw [ebx]; fld1; fldz; fdivp; fwait: the division waits for the next instruction.
const DIVIDE: &[u8] = &[0xd9, 0x2b, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x40, 0x9b, 0x41];
/// ldmxcsr [ebx + 4]; xorps xmm0, xmm0; divps xmm0, xmm0
const DIVIDE_SIMD: &[u8] = &[0x0f, 0xae, 0x53, 4, 0x0f, 0x57, 0xc0, 0x40, 0x0f, 0x5e, 0xc0, 0x41];

#[test]
fn floating_point_exceptions_are_raised() {
    for (name, code) in [("x87", DIVIDE), ("SIMD", DIVIDE_SIMD)] {
        compare(name, |guest| {
            unmask(guest);
            guest.code(&[code, code]);
        });
        compare("without OSXMMEXCPT and NE", |guest| {
            unmask(guest);
            guest.machine.cpu.cr4 = Cr4::OSFXSR;
            guest.machine.cpu.cr0.remove(Cr0::NE);
            guest.code(&[code, code]);
        });
    }
}

#[test]
fn the_floating_point_unit_is_switched_lazily() {
    compare("TS", |guest| {
        unmask(guest);
        // inc dword [0x8000]; clts; iretd
        guest.handler(7, &[0xff, 0x05, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x06, 0xcf]);
        guest.set(register::ECX, 30);
        // again: fld1; mov eax, cr0; or eax, 8; mov cr0, eax; addps xmm0, xmm1; fstp st0; dec; jnz
        guest.code(&[
            &[0xd9, 0xe8, 0x0f, 0x20, 0xc0, 0x83, 0xc8, 8, 0x0f, 0x22, 0xc0],
            &[0x0f, 0x58, 0xc1, 0xdd, 0xd8, 0x49, 0x75, 0xed],
        ]);
    });
    for bits in [Cr0::EM, Cr0::EM | Cr0::TS, Cr0::TS] {
        compare(&format!("{bits:?}"), |guest| {
            guest.machine.cpu.cr0 |= bits;
            guest.code(&[&[0x9b, 0x0f, 0x57, 0xc0, 0xd9, 0xe8]]);
        });
    }
}

#[test]
fn divisions_fail_again_and_again() {
    for divide in [[0xf7, 0xf1], [0xf7, 0xf9], [0xf6, 0xf1]] {
        compare(&format!("{divide:02x?}"), |guest| {
            // inc dword [0x8000]; add dword [esp], 2; iretd
            guest.handler(0, &[0xff, 0x05, 0x00, 0x80, 0x00, 0x00, 0x83, 0x04, 0x24, 2, 0xcf]);
            guest.set(register::ECX, 0);
            guest.set(register::EBX, 40);
            // again: div; cdq; dec ebx; jnz again; mov cl, 3; div
            guest.code(&[&divide, &[0x99, 0x4b, 0x75, 0xfa, 0xb1, 3], &divide]);
        });
    }
}

#[test]
fn bounds_overflows_and_breakpoints() {
    let Some(mut sides) = Sides::new() else { return };
    let codes: [&[u8]; 7] = [
        &[0x62, 0x03],
        &[0xb0, 0x7f, 0x04, 1, 0xce],
        &[0xcc],
        &[0xcd, 0x80],
        &[0xcd, 0x81],
        &[0xf1],
        &[0xd4, 0],
    ];
    for code in codes {
        for ring in [0, 3] {
            sides.compare(&format!("{code:02x?} in ring {ring}"), |guest| {
                guest.enter_ring(ring);
                guest.code(&[code]);
            });
        }
    }
}
