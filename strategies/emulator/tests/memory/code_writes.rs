//! Writes to code that is decoded, by every kind of instruction and from everywhere. Each case runs
//! by single steps, without a cache, and by blocks.

use crate::guest::{CODE, DATA, FRAME, Guest, PAGE, both_ways};
use machine::cpu::register::*;

/// Code that changes an instruction behind it: `change`, then `mov al, 1; hlt`. EBX points to the
/// immediate; AL is to become 2.
#[track_caller]
fn changes(change: &[u8], count: u64, prepare: impl Fn(&mut Guest)) {
    let target = CODE + change.len() as u32 + 1;
    let mut code = change.to_vec();
    code.extend([0xb0, 1, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4]);
    let guests = both_ways(&code, count + 1, |guest| {
        guest.set(EBX, target);
        guest.set(EDI, target);
        guest.set(ESI, DATA);
        guest.write(DATA, &[2, 0xf4, 0xf4, 0xf4]);
        guest.set(EDX, 0xf4f4_f402);
        prepare(guest);
    });
    for guest in guests {
        assert_eq!(guest.get(EAX) as u8, 2, "{change:02x?}");
    }
}

fn nothing(_: &mut Guest) {}

#[test]
fn the_next_instruction_is_changed() {
    changes(&[0xc6, 0x03, 2], 1, nothing); // mov byte [ebx], 2
    changes(&[0x88, 0x13], 1, nothing); // mov [ebx], dl
    changes(&[0x89, 0x13], 1, nothing); // mov [ebx], edx
    changes(&[0xfe, 0x03], 1, nothing); // inc byte [ebx]
    changes(&[0x80, 0x03, 1], 1, nothing); // add byte [ebx], 1
    changes(&[0xd0, 0x23], 1, nothing); // shl byte [ebx], 1
    changes(&[0x86, 0x13], 1, nothing); // xchg [ebx], dl
    changes(&[0x0f, 0xba, 0x33, 0, 0x0f, 0xba, 0x2b, 1], 2, nothing); // btr, bts dword [ebx]
    changes(&[0xa4], 1, nothing); // movsb
    changes(&[0xa5], 1, nothing); // movsd
    changes(&[0x88, 0xd0, 0xaa], 2, nothing); // mov al, dl; stosb
}

#[test]
fn instructions_that_read_the_carry_run_once() {
    for carry in [false, true] {
        let setup = if carry { 0xf9 } else { 0xf8 };
        let set = |guest: &mut Guest| {
            guest.set(ECX, u32::from(!carry));
            // With the carry 1 + 0 + 1, without it 1 + 1 + 0.
            guest.set(EDX, u32::from(!carry));
        };
        changes(&[setup, 0x10, 0x13], 2, set); // adc [ebx], dl
    }
    // stc; rcl byte [ebx], 1 gives 3, then dec
    changes(&[0xf9, 0xd0, 0x13, 0xfe, 0x0b], 3, nothing);
    // stc; sbb byte [ebx], -2: 1 + 2 - 1
    changes(&[0xf9, 0x80, 0x1b, 0xfe], 2, nothing);
}

#[test]
fn exchanges_that_compare_run_once() {
    let equal = |guest: &mut Guest| {
        guest.set(EAX, 1);
        guest.set(ECX, 2);
    };
    changes(&[0x0f, 0xb0, 0x0b], 1, equal); // cmpxchg [ebx], cl
    changes(&[0x0f, 0xc0, 0x0b], 1, |guest| guest.set(ECX, 1)); // xadd [ebx], cl
    let eight = |guest: &mut Guest| {
        guest.set(EAX, 0xf4f4_f401);
        guest.set(EDX, 0xf4f4_f4f4);
        guest.set(ECX, 0xf4f4_f4f4);
        let target = guest.get(EBX);
        guest.set(ESI, target);
        guest.set(EBX, 0xf4f4_f402);
        // The doubleword behind the HLT belongs to the comparison too.
        guest.write(target + 4, &[0xf4; 4]);
    };
    changes(&[0x0f, 0xc7, 0x0e], 1, eight); // cmpxchg8b [esi]
}

#[test]
fn the_stack_may_lie_over_the_code() {
    let below = |guest: &mut Guest| {
        let target = guest.get(EBX);
        guest.set(ESP, target + 4);
    };
    changes(&[0x52], 1, below); // push edx
    changes(&[0x60], 1, |guest| {
        // pusha: EDX is the third of eight, and lies 12 bytes below the top
        let target = guest.get(EBX);
        for register in [EAX, ECX, EBX, EBP, ESI, EDI] {
            guest.set(register, 0x9090_9090);
        }
        guest.set(EBX, 0xb090_9090); // the opcode in front stays
        guest.set(ESP, target + 12);
        guest.write(target + 4, &[0x90; 8]);
    });
    changes(&[0x8f, 0x03], 1, |guest| {
        guest.set(ESP, DATA); // pop dword [ebx]
    });
}

#[test]
fn floating_point_stores_are_writes_as_well() {
    changes(&[0xdb, 0x13], 1, |guest| {
        // fist dword [ebx]: ST(0) is the integer 0xf4f4_f402 as a signed one.
        let magnitude = (0xf4f4_f402u32 as i32).unsigned_abs();
        let shift = magnitude.leading_zeros();
        let significand = u64::from(magnitude << shift) << 32;
        let exponent = 0x8000 | (0x3fff + 31 - shift) as u16;
        let area = &mut guest.cpu.fpu.area.0;
        area[4] = 1;
        area[32..40].copy_from_slice(&significand.to_le_bytes());
        area[40..42].copy_from_slice(&exponent.to_le_bytes());
    });
    changes(&[0x0f, 0x11, 0x03], 1, |guest| {
        // movups [ebx], xmm0
        guest.cpu.fpu.area.0[160..176].fill(0xf4);
        guest.cpu.fpu.area.0[160] = 2;
    });
}

#[test]
fn a_repetition_writes_over_what_follows_and_over_itself() {
    changes(&[0xb1, 1, 0xf3, 0xa4], 2, |guest| guest.set(ECX, 0)); // mov cl, 1; rep movsb
    // rep stosb from its own first byte on, with HLTs: it finishes, and then there is a HLT.
    let guests = both_ways(&[0xf3, 0xaa, 0x40, 0x40, 0x40], 2, |guest| {
        guest.set(EAX, 0xf4);
        guest.set(ECX, 5);
        guest.set(EDI, CODE);
    });
    for guest in guests {
        assert!(guest.cpu.halted);
        assert_eq!(guest.read::<5>(CODE), [0xf4; 5]);
        assert_eq!((guest.get(ECX), guest.get(EDI), guest.cpu.eip), (0, CODE + 5, CODE + 3));
    }
}

#[test]
fn an_instruction_may_change_itself_after_the_fact() {
    // add byte [ebx+1], 8 with EBX so that it adds to its own immediate; jmp to it
    let guests = both_ways(&[0x80, 0x43, 1, 8, 0xeb, 0xfa], 4, |guest| guest.set(EBX, CODE + 2));
    for guest in guests {
        assert_eq!(guest.read::<4>(CODE)[3], 32);
    }
}

#[test]
fn a_loop_that_changes_its_own_operand_each_time_around() {
    // mov eax, imm; add ecx, eax; inc dword [imm]; cmp eax, 99; jne start; hlt
    let mut code = vec![0xb8, 0, 0, 0, 0, 0x01, 0xc1, 0xff, 0x05];
    code.extend((CODE + 1).to_le_bytes());
    code.extend([0x83, 0xf8, 99, 0x75, 0xee, 0xf4]);
    for guest in both_ways(&code, 501, |_| {}) {
        assert!(guest.cpu.halted);
        assert_eq!(guest.get(ECX), 4950);
    }
}

#[test]
fn writes_from_the_page_before_reach_into_code() {
    let mut guest = Guest::new();
    guest.write(DATA + 0x1000, &[0xb0, 1, 0xc3]); // mov al, 1; ret
    // mov esi, DATA+0x1000; call esi; mov dword [esi-2], 0x02b0_0000; call esi
    let mut code = vec![0xbe];
    code.extend((DATA + 0x1000).to_le_bytes());
    code.extend([0xff, 0xd6, 0x88, 0xc4, 0xc7, 0x46, 0xfe, 0, 0, 0xb0, 2, 0xff, 0xd6]);
    guest.write(CODE, &code);
    guest.run(9);
    assert_eq!(guest.get(EAX), 0x0102);
}

#[test]
fn writes_through_another_linear_page_reach_the_same_code() {
    let mut guest = Guest::paged();
    guest.map(1, FRAME | 7);
    guest.write(FRAME, &[0xb0, 1, 0xc3]);
    // Warm the alias for writing; call; write through the alias; call.
    let code = [0x88, 0x4d, 0x10, 0xff, 0xd6, 0x88, 0xc4, 0xc6, 0x45, 1, 2, 0xff, 0xd6, 0xf4];
    guest.write(CODE, &code);
    guest.set(ESI, PAGE);
    guest.set(EBP, PAGE + 0x1000);
    guest.run(9);
    assert_eq!(guest.get(EAX), 0x0102);
}

#[test]
fn the_host_and_other_engines_may_write_between_runs() {
    let mut guest = Guest::new();
    // mov al, 1; mov [ebx], cl; jmp start
    guest.write(CODE, &[0xb0, 1, 0x88, 0x0b, 0xeb, 0xfa]);
    guest.set(EBX, DATA);
    guest.run(30);
    guest.write(CODE + 1, &[2]);
    guest.run(1);
    assert_eq!(guest.get(EAX) as u8, 2, "the host wrote");
    guest.set(EBX, CODE + 1);
    guest.set(ECX, 3);
    guest.step();
    guest.run(2);
    assert_eq!(guest.get(EAX) as u8, 3, "a single step wrote");
    let mut other = emulator::Emulator::new();
    std::mem::swap(&mut guest.emulator, &mut other);
    guest.set(ECX, 4);
    guest.run(3);
    std::mem::swap(&mut guest.emulator, &mut other);
    guest.run(3);
    assert_eq!(guest.get(EAX) as u8, 4, "another emulator wrote");
}

#[test]
fn code_and_data_on_one_page_stay_apart() {
    // inc dword [ebx]; cmp dword [ebx], 1000; jne start; hlt
    let mut code = vec![0xff, 0x03, 0x81, 0x3b];
    code.extend(1000u32.to_le_bytes());
    code.extend([0x75, 0xf6, 0xf4]);
    let mut guest = Guest::new();
    guest.write(CODE, &code);
    guest.set(EBX, CODE + 0x800);
    guest.run(10_000);
    assert_eq!(guest.read_u32(CODE + 0x800), 1000);
    assert!(guest.counters.blocks_decoded < 20, "{} blocks", guest.counters.blocks_decoded);
}
