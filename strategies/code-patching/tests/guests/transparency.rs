//! Guests that look at their own patched code, and write to it.

use crate::guest::{CODE, Guest};
use machine::cpu::register;
use strategy::Stop;

guest_code! {
    // Adds up its own bytes, twice: before and after the CLI at its start was patched and executed.
    sums: ".code32",
        "cli", "inc eax", "inc eax", "sti", "nop", "nop", "nop", "nop", "mov ebp, 2",
        "2:", "mov esi, 0x10000", "mov ecx, 16", "xor ebx, ebx",
        "3:", "movzx eax, byte ptr [esi]", "add ebx, eax", "inc esi", "dec ecx", "jnz 3b",
        "push ebx", "dec ebp", "jnz 2b", "pop ebx", "pop edx", "mov al, 1", "out 0xf4, al";
    // Turns a CLI that was executed from its stub into STI, and executes that.
    rewrites: ".code32",
        "mov ebp, 2", "2:", "cli", "inc ecx", "inc ecx", "nop", "nop", "pushfd", "pop ebx",
        "mov byte ptr [0x10005], 0xfb", "dec ebp", "jnz 2b", "mov al, 1", "out 0xf4, al";
}

#[test]
fn reads_of_patched_code_see_the_guests_bytes() {
    let mut guest = Guest::with(sums());
    assert_eq!(guest.run(), Stop::Exit(1));
    let bytes = &sums()[..16];
    let sum: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
    assert_eq!(guest.cpu.registers[register::EBX], sum);
    assert_eq!(guest.cpu.registers[register::EDX], sum);
    assert!(guest.strategy.statistics().stubs > 0);
    assert_eq!(CODE, 0x1_0000);
}

#[test]
fn writes_to_patched_code_are_executed() {
    let mut guest = Guest::with(rewrites());
    assert_eq!(guest.run(), Stop::Exit(1));
    let flags = guest.cpu.registers[register::EBX];
    assert_ne!(flags & 0x200, 0, "the second time it was STI");
    assert_eq!(guest.cpu.registers[register::ECX], 4);
}
