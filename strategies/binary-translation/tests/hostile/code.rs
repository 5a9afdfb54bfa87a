//! Code that changes while it runs, that is entered in its middle, that crosses pages, and calls
//! and returns that nobody balances.

use crate::guest::{CODE, DATA, Guest, PAGE_TABLE, Sides, compare};
use machine::cpu::register;

const DEEP: u32 = 100_000;
const DEEP_STACK: u32 = 0x3f_0000;

#[test]
fn the_next_instruction_is_overwritten() {
    let writes: [&[u8]; 5] = [
        // mov byte [CODE + 16], 0x40
        &[0xc6, 0x05, 0x10, 0, 1, 0, 0x40],
        // mov esp, CODE + 20; push 0x40404040
        &[0xbc, 0x14, 0, 1, 0, 0x68, 0x40, 0x40, 0x40, 0x40],
        // mov edi, CODE + 16; mov al, 0x41; mov cl, 3; rep stosb
        &[0xbf, 0x10, 0, 1, 0, 0xb0, 0x41, 0xb1, 3, 0xf3, 0xaa],
        // fnstcw [CODE + 16]
        &[0xd9, 0x3d, 0x10, 0, 1, 0],
        // mov dword [CODE + 4], …: of itself
        &[0xc7, 0x05, 4, 0, 1, 0, 0x40, 0x40, 0x40, 0x40],
    ];
    let Some(mut sides) = Sides::new() else { return };
    for write in writes {
        sides.compare(&format!("{write:02x?}"), |guest| {
            let room = vec![0x90; 16 - write.len()];
            guest.code(&[write, &room, &[0x90, 0x90, 0x90, 0x90]]);
        });
    }
}

#[test]
fn a_loop_rewrites_its_own_constant() {
    let guest = compare("rewriting", |guest| {
        // mov ecx, 2000; again: inc byte [CODE + 12]; mov eax, 0; add edx, eax; dec ecx; jnz again
        guest.code(&[
            &[0xb9, 0xd0, 7, 0, 0],
            &[0xfe, 0x05, 12, 0, 1, 0],
            &[0xb8, 0, 0, 0, 0],
            &[0x01, 0xc2, 0x49, 0x75, 0xf0],
        ]);
    });
    assert!(guest.is_none_or(|guest| guest.machine.cpu.registers[register::ECX] == 0));
}

#[test]
fn instructions_are_entered_in_their_middle() {
    let Some(mut sides) = Sides::new() else { return };
    let code = [0xb8, 0xb9, 0xba, 0x40, 0x41, 0xeb, 0x00, 0x05, 0x0c, 0x90, 0x42, 0x0f, 0xb6, 0xc0];
    for first in 0..code.len() as u32 {
        for second in 0..code.len() as u32 {
            sides.compare(&format!("{first} and {second}"), |guest| {
                // Returns go to the first place, then to the second.
                guest.write(DATA, &code);
                guest.write(DATA + code.len() as u32, &[0xc3, 0xc3, 0x0f, 0x0b]);
                let stack = guest.machine.cpu.registers[register::ESP];
                guest.write_u32(stack, DATA + first);
                guest.write_u32(stack + 4, DATA + second);
                guest.write_u32(stack + 8, CODE + 1);
                guest.code(&[&[0xc3]]);
            });
        }
    }
}

#[test]
fn instructions_cross_pages() {
    let Some(mut sides) = Sides::new() else { return };
    let instructions: [&[u8]; 5] = [
        &[0x81, 0x05, 0, 0x80, 1, 0, 1, 2, 3, 4],
        &[0x66, 0x0f, 0x6f, 0x05, 0, 0x80, 1, 0],
        &[0xe8, 0x10, 0, 0, 0],
        &[0x0f, 0x84, 0x10, 0, 0, 0],
        &[0x68, 1, 2, 3, 4],
    ];
    for instruction in instructions {
        for before in 1..instruction.len() as u32 {
            for second in [0x1_2007, 0x3_0007, 0, 0x3_0005] {
                let name = format!("{instruction:02x?}, {before} bytes before {second:#x}");
                sides.compare(&name, |guest| {
                    guest.enable_paging();
                    let start = 0x1_2000 - before;
                    guest.write(start, &instruction[..before as usize]);
                    for frame in [0x1_2000, 0x3_0000] {
                        guest.write(frame, &instruction[before as usize..]);
                        guest.write(frame + 0x20, &[0x0f, 0x0b]);
                    }
                    guest.write_u32(PAGE_TABLE + 4 * 0x12, second);
                    guest.machine.cpu.eip = start;
                });
            }
        }
    }
}

fn with_deep_stack(guest: &mut Guest) {
    guest.set(register::ECX, DEEP);
    guest.set(register::ESP, DEEP_STACK);
}

#[test]
fn calls_and_returns_go_deep() {
    let guest = compare("recursion", |guest| {
        with_deep_stack(guest);
        // call f; ud2; f: dec ecx; jz out; call f; out: ret
        guest.code(&[&[
            0xe8, 2, 0, 0, 0, 0x0f, 0x0b, 0x49, 0x74, 5, 0xe8, 0xf8, 0xff, 0xff, 0xff, 0xc3,
        ]]);
    });
    assert!(guest.is_none_or(|guest| guest.machine.cpu.registers[register::ECX] == 0));
}

#[test]
fn calls_without_returns() {
    compare("calls alone", |guest| {
        with_deep_stack(guest);
        // again: call next; next: dec ecx; jnz again
        guest.code(&[&[0xe8, 0, 0, 0, 0, 0x49, 0x75, 0xf8]]);
    });
}

#[test]
fn returns_without_calls() {
    compare("returns alone", |guest| {
        guest.set(register::ESP, DEEP_STACK - 4 * DEEP);
        let stack: Vec<u8> = (0..DEEP - 1).flat_map(|_| CODE.to_le_bytes()).collect();
        guest.write(DEEP_STACK - 4 * DEEP, &stack);
        guest.write_u32(DEEP_STACK - 4, CODE + 1);
        guest.code(&[&[0xc3]]);
    });
}

/// A translator that has run one machine runs another, which the host may have put where the first
/// was.
#[test]
fn machines_come_and_go() {
    let Some(mut sides) = Sides::new() else { return };
    for value in 0..20 {
        sides.compare(&format!("machine {value}"), |guest| {
            guest.enable_paging();
            guest.write_u32(DATA, value);
            guest.code(&[&[0x8b, 0x03, 0xff, 0x03, 0x8b, 0x13]]);
        });
    }
}
