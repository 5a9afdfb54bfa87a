//! Sensitive instructions in ring 0, which ring 3 executes wrongly: in stubs they come out right.

use crate::guest::{CODE, Guest, machine};
use code_patching::CodePatching;
use interpretation::Interpretation;
use machine::cpu::register;
use strategy::{ExitKind, Limit, Stop, Strategy};

guest_code! {
    // Everything that stubs do without the monitor, each result added up; 2,000 times.
    sensitive: ".code32",
        "mov ebp, 2000",
        "2:", "pushfd", "pop eax", "cli", "lea ebx, [ebx + eax]", "pushfd", "pop eax", "add ebx, eax",
        "sti", "nop", "pushfd", "pop eax", "add ebx, eax",
        "push 0x2d5", "popfd", "pushfd", "pop eax", "add ebx, eax",
        "push 0x46", "popfd", "pushfd", "pop eax", "add ebx, eax",
        "push cs", "pop eax", "add ebx, eax", "mov eax, ss", "add ebx, eax",
        "mov [0x18000], ds", "add bx, [0x18000]", "smsw eax", "add ebx, eax",
        "mov eax, cr0", "add ebx, eax", "mov eax, cr3", "add ebx, eax",
        "sgdt [0x18010]", "add ebx, [0x18010]", "add ebx, [0x18012]",
        "mov edx, 0x18000", "sidt [edx + 0x20]", "add ebx, [0x18020]", "add bx, [0x18024]",
        "str eax", "add ebx, eax", "sldt [edx + 0x30]", "add bx, [0x18030]",
        "mov eax, 1", "cpuid", "add ebx, eax", "add ebx, edx", "xor eax, eax", "cpuid",
        "add eax, ecx", "rol eax, 7", "dec ebp", "jnz 2b", "mov al, 1", "out 0xf4, al";
    // An indirect jump into what the patch of CLI has moved.
    into_a_patch: ".code32",
        "mov ebp, 3000", "2:", "mov eax, 0x10015", "test ebp, 1", "jz 4f", "jmp eax",
        "4:", "cli", "inc ecx", "inc edx", "nop", "nop", "nop", "nop", "dec ebp", "jnz 2b",
        "mov al, 1", "out 0xf4, al";
    // Loads of segment registers in a loop, between which the descriptor's base changes now and then.
    loads: ".code32",
        "mov dword ptr [0x18000], 3", "mov dword ptr [0x18004], 5", "mov dword ptr [0x18008], 0x50", "mov dword ptr [0x18010], 0x10",
        "mov dword ptr [0x1050], 0x8000ffff", "mov dword ptr [0x1054], 0x00409301",
        "mov ecx, 20000",
        "2:", "mov eax, 0x50", "mov fs, ax", "add ebx, fs:[0]", "mov edx, fs", "add ebx, edx",
        "push 0x10", ".byte 0x0f, 0xa1", "mov esi, 0x18000", "add ebx, fs:[esi]", "mov es, [esi + 8]",
        "add ebx, es:[0]", "rol ebx, 3", ".byte 0x1e, 0x07", "add ebx, es:[0x18000]", "xor eax, eax",
        "mov gs, ax", "stc", "mov es, [0x18010]", "adc ebx, 0", "mov eax, gs", "add ebx, eax",
        "mov eax, 0x10", "stc", "verw ax", "pushfd", "pop eax", "add ebx, eax",
        "test cx, 0xfff", "jnz 3f", "add byte ptr [0x1052], 4", "3:", "dec ecx", "jnz 2b", "mov al, 1", "out 0xf4, al";
    // Reads the time-stamp counter, which never goes back, and does not touch the flags.
    time_stamps: ".code32",
        "mov ecx, 200000", "xor esi, esi", "xor edi, edi",
        "2:", "stc", "rdtsc", "jnc 5f", "cmp edx, edi", "jb 5f", "ja 3f", "cmp eax, esi", "jb 5f",
        "3:", "mov esi, eax", "mov edi, edx", "dec ecx", "jnz 2b", "mov al, 1", "out 0xf4, al",
        "5:", "mov al, 2", "out 0xf4, al";
    // CLI and STI in a loop, for their exits.
    cli_sti: ".code32",
        "mov ecx, 100000", "2:", "cli", "inc eax", "inc eax", "sti", "inc eax", "inc eax", "inc eax",
        "dec ecx", "jnz 2b", "mov al, 1", "out 0xf4, al";
}

/// Runs the code under both, and compares what is left in registers and flags.
fn as_interpreted(code: &[u8]) -> Guest {
    as_interpreted_by(crate::native(), code)
}

/// The same with a strategy of one's choice.
pub(crate) fn as_interpreted_by(strategy: CodePatching, code: &[u8]) -> Guest {
    let mut reference = machine();
    assert!(reference.memory.write(machine::PhysicalAddress(CODE.into()), code));
    let stop = Interpretation::new().run(&mut reference, &Limit::none()).unwrap();
    assert_eq!(stop, Stop::Exit(1));

    let mut guest = Guest::with(code);
    guest.strategy = strategy;
    let (machine, native) = guest.machine_and_strategy();
    assert_eq!(native.run(machine, &Limit::none()).unwrap(), Stop::Exit(1));
    assert_eq!(machine.cpu.registers, reference.cpu.registers);
    assert_eq!(machine.cpu.flags, reference.cpu.flags);
    guest
}

#[test]
fn loads_are_repeated_until_the_descriptor_changes() {
    let guest = as_interpreted(loads());
    let crossings = guest.strategy.exits().get(ExitKind::Emulation);
    assert!(crossings < 1_000, "{crossings}: most loads are the stubs'");
}

#[test]
fn time_stamps_carry_into_the_upper_word() {
    for start in [0xffff_f000, 0x1_ffff_fff0, 0x5_0000_fff0] {
        let mut guest = Guest::with(time_stamps());
        guest.clock().set_tsc(start);
        assert_eq!(guest.run(), Stop::Exit(1));
        let now = u64::from(guest.cpu.registers[register::EDI]) << 32
            | u64::from(guest.cpu.registers[register::ESI]);
        assert!((start..start + (1 << 34)).contains(&now), "{now:#x}");
    }
}

/// The code with everything that stubs do.
pub(crate) fn sensitive_code() -> &'static [u8] {
    sensitive()
}

#[test]
fn what_does_not_trap_is_right() {
    let guest = as_interpreted(sensitive());
    assert_ne!(guest.cpu.registers[register::EBX], 0);
    assert!(guest.strategy.statistics().stubs > 5);
}

#[test]
fn stubs_do_not_leave_the_guest() {
    let guest = as_interpreted(cli_sti());
    let exits = guest.strategy.exits();
    assert!(exits.get(ExitKind::Privileged) < 100, "{:?}", exits);
}

#[test]
fn whoever_jumps_into_a_patch_finds_the_instruction() {
    let guest = as_interpreted(into_a_patch());
    assert_eq!(guest.cpu.registers[register::ECX], 3000);
}
