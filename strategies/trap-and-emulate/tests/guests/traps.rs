//! Software interrupts, exceptions and traps into the guest's own tables.

use crate::guest::{CODE, DATA, Guest, HANDLERS, STACK3, gate};
use machine::cpu::{Cr0, Dr6, Eflags, register};
use strategy::{ExitKind, Limit, Strategy};

guest_code! {
    flags_trap: ".code32", "pushfd", "or dword ptr [esp], 0x100", "popfd", "inc eax", "nop", "nop";
    sets_alignment_check: ".code32",
        "pushfd", "or dword ptr [esp], 0x40000", "popfd", "mov ebx, [0x18001]", "mov al, 1",
        "out 0xf4, al";
    changes_itself: ".code32",
        "mov ecx, 1000", "2:", "mov byte ptr [0x10012], 0x43", // inc eax becomes inc ebx
        "jmp 3f", ".balign 2", "3:", "nop", "nop", "nop", "nop", "inc eax", "loop 2b",
        "mov al, 1", "out 0xf4, al";
    counts_calls: ".code32",
        "mov ecx, 1000", "2:", "mov eax, ecx", "int 0x80", "loop 2b", "mov al, 1", "out 0xf4, al";
    adds: ".code32", "add ebx, eax", "iretd";
    moves_stack: ".code32",
        "push ss", "pop ss", "mov esp, [0x18000]", "push 0x77", "mov al, 1", "out 0xf4, al";
    keeps_direction: ".code32",
        "std", "cli", "mov esi, 0x18004", "mov edi, 0x18104", "movsd", "cli", "movsd",
        "cld", "mov al, 1", "out 0xf4, al";
    repeats: ".code32",
        "mov esi, 0x200000", "mov edi, 0x300000", "mov ecx, 0x40000", "rep movsd",
        "mov al, 1", "out 0xf4, al";
}

/// Every gate open to software, where the vector is the exception's own anyway.
fn with_open_gates(code: &[u8]) -> Guest {
    let mut guest = Guest::in_ring3(code);
    for vector in [1, 3, 4, 0x21, 0x80] {
        guest.set_gate(vector, gate(HANDLERS + u32::from(vector), 0xee));
    }
    guest
}

#[test]
fn software_interrupts_come_with_the_address_behind_them() {
    let cases: [(&[u8], u8); 8] = [
        (&[0xcc], 3),
        (&[0xcd, 3], 3),
        (&[0xcd, 4], 4),
        (&[0xcd, 0x80], 0x80),
        (&[0xcd, 0x21], 0x21),
        (&[0xcd, 1], 1),
        (&[0xf1], 1),
        (&[0x66, 0xcc], 3),
    ];
    for (code, vector) in cases {
        let mut guest = with_open_gates(code);
        guest.raises(vector, None, CODE + code.len() as u32);
        assert_eq!(guest.stack(4), 0x23);
        assert_eq!(guest.stack(3), STACK3, "{code:02x?}: the user's stack is untouched");
    }
    let mut guest = with_open_gates(&[0xce]); // into
    guest.cpu.flags.set(Eflags::OF, true);
    guest.raises(4, None, CODE + 1);
}

#[test]
fn closed_gates_fault_at_the_instruction() {
    for code in [[0xcd, 0x80], [0xcd, 3], [0xcd, 4], [0xcd, 0x21]] {
        let mut guest = Guest::in_ring3(&code);
        guest.raises(13, Some(u32::from(code[1]) * 8 + 2), CODE);
    }
}

#[test]
fn closed_gates_fault_at_the_first_prefix() {
    // The code before the instruction, and the instruction.
    let cases: [(&[u8], &[u8]); 7] = [
        (&[], &[0x67, 0xcc]),
        (&[0x90], &[0x66, 0xcc]),
        (&[0x90], &[0x2e, 0xf3, 0xcd, 0x80]),
        (&[0xb0, 0x67], &[0xcc]),                         // mov al, 0x67
        (&[0xb0, 0x67], &[0x66, 0xcd, 4]),                // mov al, 0x67
        (&[0xeb, 0x01, 0x90], &[0x64, 0xcc]),             // jmp over a byte
        (&[0xb8, 1, 0x66, 0x67, 0x66], &[0x67, 0xcd, 3]), // mov eax, 0x66676601
    ];
    for (before, trapping) in cases {
        let mut guest = Guest::in_ring3(&[before, trapping].concat());
        let vector = match *trapping.last().unwrap() {
            0xcc => 3,
            vector => u32::from(vector),
        };
        guest.raises(13, Some(vector * 8 + 2), CODE + before.len() as u32);
    }
}

#[test]
fn faults_come_with_the_address_of_the_instruction() {
    let cases: [(&[u8], u8, Option<u32>); 8] = [
        (&[0xf7, 0xf1], 0, None),                // div ecx
        (&[0x62, 0x05, 0, 0x80, 1, 0], 5, None), // bound eax, [0x18000]
        (&[0x0f, 0x0b], 6, None),                // ud2
        (&[0xf4], 13, Some(0)),                  // hlt
        (&[0xfa], 13, Some(0)),                  // cli
        (&[0xe4, 0x60], 13, Some(0)),            // in al, 0x60
        (&[0x8e, 0xd8], 13, Some(0x70)),         // mov ds, ax
        (&[0x0f, 0x22, 0xc0], 13, Some(0)),      // mov cr0, eax
    ];
    for (code, vector, error) in cases {
        let mut guest = Guest::in_ring3(code);
        guest.write(DATA, &[1, 0, 0, 0, 2, 0, 0, 0]);
        guest.set(register::EAX, 0x70);
        guest.raises(vector, error, CODE);
    }
}

#[test]
fn the_trap_flag_can_be_set_without_a_trap() {
    let mut guest = Guest::with(flags_trap());
    // PUSHFD, OR [ESP] and POPFD are nine bytes; the step is taken after the next instruction.
    guest.raises(1, None, CODE + 10);
    assert_eq!(guest.get(register::EAX), 1);
    assert_ne!(guest.cpu.debug[6] & Dr6::BS, 0);
}

#[test]
fn alignment_is_checked_in_ring_3_only() {
    for checked in [false, true] {
        let mut guest = Guest::with(sets_alignment_check());
        guest.cpu.cr0.set(Cr0::AM, checked);
        assert_eq!(guest.exits(), 1);
    }
    let mut guest = Guest::in_ring3(sets_alignment_check());
    guest.cpu.cr0 |= Cr0::AM;
    let at = sets_alignment_check().len() as u32 - 10;
    guest.raises(17, Some(0), CODE + at);
}

#[test]
fn code_that_changes_itself_runs_as_changed() {
    let mut guest = Guest::with(changes_itself());
    let at = changes_itself().iter().position(|&byte| byte == 0x40).unwrap() as u32;
    guest.write_u32(CODE + 7, CODE + at);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 1000);
}

#[test]
fn system_calls_arrive_each_once() {
    let mut guest = Guest::in_ring3(counts_calls());
    guest.cpu.flags.set(Eflags::IOPL, true);
    guest.set_handler(0x80, adds());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 500_500);
    assert!(guest.strategy.exits().get(ExitKind::Exception) >= 1000);
}

#[test]
fn a_stack_is_moved_in_two_instructions() {
    let mut guest = Guest::with(moves_stack());
    guest.write_u32(DATA, 0x1_9000);
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.read_u32(0x1_8ffc), 0x77);
}

#[test]
fn the_direction_flag_outlasts_an_exit() {
    let mut guest = Guest::with(keeps_direction());
    guest.write(DATA, &[1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(guest.exits(), 1);
    assert_eq!((guest.read_u32(DATA + 0x100), guest.read_u32(DATA + 0x104)), (1, 2));
}

#[test]
fn a_string_instruction_goes_on_where_it_faulted() {
    let mut guest = Guest::with(repeats());
    guest.enable_paging();
    for at in (0..0x10_0000).step_by(4) {
        guest.write_u32(0x20_0000 + at, at);
    }
    assert_eq!(guest.exits(), 1);
    assert!((0..0x10_0000).step_by(4).all(|at| guest.read_u32(0x30_0000 + at) == at));
}

#[test]
fn a_way_into_the_hosts_kernel_is_an_error_and_no_more() {
    let mut guest = Guest::with(&[0x0f, 0x05]); // syscall
    guest.set(register::EBX, 0x1234);
    let (machine, strategy) = guest.machine_and_strategy();
    // Where the host's CPU has no SYSCALL for 32-bit code, the guest gets its #UD.
    match strategy.run(machine, &Limit::none()) {
        Err(error) => assert!(error.to_string().contains("SYSCALL"), "{error}"),
        Ok(_) => assert_eq!(machine.cpu.eip, HANDLERS + 6 + 1),
    }
    assert_eq!(guest.get(register::EBX), 0x1234);
    guest.replace(&[0xb0, 1, 0xe6, 0xf4]); // mov al, 1; out 0xf4, al
    assert_eq!(guest.exits(), 1);
}
