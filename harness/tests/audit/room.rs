//! Where code patching finds room for a jump.

use crate::images::{FUNCTION, elf, flat, found};
use ringside::audit::image::Program;
use ringside::audit::{Audit, Kind, Method, Patched};

/// What becomes of the first instruction of this kind.
#[track_caller]
fn patched(code: &[u8], kind: Kind) -> Patched {
    let audit = flat(code, Method::Sweep);
    let site = audit.sites.iter().find(|(site, _)| site.kind == kind);
    site.unwrap_or_else(|| panic!("{} is not found", kind.name())).1
}

#[test]
fn a_long_instruction_needs_no_neighbours() {
    // sgdt [0x12345678]; jmp $
    let code = [0x0f, 0x01, 0x05, 0x78, 0x56, 0x34, 0x12, 0xeb, 0xfe];
    assert_eq!(patched(&code, Kind::Sgdt), Patched::Stub);
}

#[test]
fn neighbours_behind_it_move_along() {
    // cli; mov eax, ebx; mov ecx, edx; jmp $
    let code = [0xfa, 0x89, 0xd8, 0x89, 0xd1, 0xeb, 0xfe];
    assert_eq!(patched(&code, Kind::Cli), Patched::Stub);
}

#[test]
fn neighbours_before_it_move_along() {
    // mov eax, ebx; mov ecx, edx; sti; ret; and a constant that is the address of what follows
    let code = [0x89, 0xd8, 0x89, 0xd1, 0xfb, 0xc3, 0x68, 0x06, 0x10, 0x00, 0xc0, 0xc3];
    assert_eq!(patched(&code, Kind::Sti), Patched::Stub);
}

#[test]
fn a_branch_target_behind_it_stays_where_it_is() {
    // cli; L: mov eax, ebx; mov ecx, edx; jmp L
    let code = [0xfa, 0x89, 0xd8, 0x89, 0xd1, 0xeb, 0xfa];
    assert_eq!(patched(&code, Kind::Cli), Patched::Crowded);
}

#[test]
fn where_a_call_returns_to_stays_where_it_is() {
    // call f; cli; f: ret
    let code = [0xe8, 0x01, 0x00, 0x00, 0x00, 0xfa, 0xc3];
    assert_eq!(patched(&code, Kind::Cli), Patched::Crowded);
}

#[test]
fn a_call_may_be_the_last_that_moves_and_no_other() {
    // cli; call f; f: ret
    let last = [0xfa, 0xe8, 0x00, 0x00, 0x00, 0x00, 0xc3];
    assert_eq!(patched(&last, Kind::Cli), Patched::Stub);
    // cli; call eax; mov eax, ebx
    let amid = [0xfa, 0xff, 0xd0, 0x89, 0xd8, 0x90];
    assert_eq!(patched(&amid, Kind::Cli), Patched::Crowded);
}

#[test]
fn a_conditional_jump_moves_along() {
    // pushf; jz $+8; mov eax, ebx; jmp $
    let code = [0x9c, 0x74, 0x06, 0x89, 0xd8, 0xeb, 0xfe, 0x90, 0x90, 0x90];
    assert_eq!(patched(&code, Kind::Pushf), Patched::Stub);
}

#[test]
fn padding_behind_the_end_is_room_and_code_is_not() {
    // sti; ret; then three bytes
    assert_eq!(patched(&[0xfb, 0xc3, 0x90, 0x90, 0x90], Kind::Sti), Patched::Stub);
    assert_eq!(patched(&[0xfb, 0xc3, 0x40, 0x40, 0x40], Kind::Sti), Patched::Crowded);
    assert_eq!(patched(&[0xfb, 0xc3, 0x90, 0x90], Kind::Sti), Patched::Crowded);
    // jmp L; sti; ret; L: nop; nop; nop
    let reached = [0xeb, 0x02, 0xfb, 0xc3, 0x90, 0x90, 0x90];
    assert_eq!(patched(&reached, Kind::Sti), Patched::Crowded);
}

#[test]
fn a_jump_before_it_gives_no_room() {
    // jmp $+5 (5 bytes, long form); sti; ret
    let code = [0xe9, 0x02, 0x00, 0x00, 0x00, 0xfb, 0xc3, 0x40];
    assert_eq!(patched(&code, Kind::Sti), Patched::Crowded);
}

#[test]
fn what_a_table_in_data_points_to_stays_where_it_is() {
    // f: cli; mov eax, ebx; mov ecx, edx; ret
    let text = [0xfa, 0x89, 0xd8, 0x89, 0xd1, 0xc3];
    let with = |word: u32| {
        let file = elf(&text, &word.to_le_bytes(), &[("f", 0, 6, FUNCTION)]);
        let audit = Audit::of(Program::read(&file).unwrap(), Method::Sweep);
        found(&audit)
    };
    assert_eq!(with(0), [(0, Kind::Cli, Patched::Stub)]);
    assert_eq!(with(0xc000_1003), [(0, Kind::Cli, Patched::Crowded)]);
    // The same place as a distance from 0xc0002000.
    assert_eq!(with(0xffff_f003), [(0, Kind::Cli, Patched::Crowded)]);
}

#[test]
fn what_needs_the_monitor_gets_a_trap_or_is_left_to_trap() {
    // lar eax, ecx; lgdt [eax]; iret
    let code = [0x0f, 0x02, 0xc1, 0x0f, 0x01, 0x10, 0xcf];
    assert_eq!(patched(&code, Kind::Lar), Patched::TrapByte);
    assert_eq!(patched(&code, Kind::Lgdt), Patched::Left);
    assert_eq!(patched(&code, Kind::Iret), Patched::TrapByte);
}
