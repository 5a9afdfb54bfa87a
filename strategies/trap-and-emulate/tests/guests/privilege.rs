//! Guest kernel and guest user in one window: each sees what its privilege allows.

use crate::guest::{CODE, Guest};
use machine::cpu::{Cr0, register};

/// A page of the kernel's, present and writable, not for the user.
const KERNEL: u32 = 0x6_0000;
/// Where the user's code lies.
const USER: u32 = 0x1_4000;

guest_code! {
    // The kernel uses its page, goes to ring 3, and exits from the handler after using it again.
    to_user: ".code32",
        "mov dword ptr [0x60000], 0x1234", "mov eax, 0x23", "mov ds, eax",
        "push 0x23", "push 0xb000", "push 0x2", "push 0x1b", "push 0x14000", "iretd";
    handler: ".code32",
        "mov eax, [0x60000]", "mov dword ptr [0x60004], 1",
        "pop ecx", "mov edx, cr2", "out 0xf4, al";
    user_reads: ".code32", "mov ebx, [0x60000]";
    user_writes: ".code32", "mov byte ptr [0x60fff], 9";
    user_jumps: ".code32", "mov ebx, 0x60000", "jmp ebx";
    user_straddles: ".code32", "mov ebx, [0x5fffe]";
    // Two system calls in turn, each using the kernel's page.
    user_calls: ".code32", "int 0x80", "int 0x80", "mov ebx, [0x60000]";
    system_call: ".code32", "inc dword ptr [0x60000]", "iretd";
    writes_twice: ".code32",
        "mov dword ptr [0x60000], 1", "mov eax, 0x23", "mov ds, eax",
        "push 0x23", "push 0xb000", "push 0x2", "push 0x1b", "push 0x14000", "iretd";
    kernel_writes: ".code32", "mov dword ptr [0x60000], 7", "mov al, 3", "out 0xf4, al";
    kernel_drops_write_protection: ".code32",
        "mov eax, [0x60000]",
        "mov eax, cr0", "and eax, 0xfffeffff", "mov cr0, eax",
        "mov dword ptr [0x60000], 7",
        "mov eax, cr0", "or eax, 0x10000", "mov cr0, eax",
        "mov dword ptr [0x60000], 8";
}

/// Runs `user` in ring 3 after the kernel has used its page; returns error code and CR2 of the page
/// fault that has to follow.
fn fault_of(user: &[u8]) -> (u32, u32) {
    let mut guest = Guest::with(to_user());
    guest.enable_paging();
    guest.map(KERNEL, KERNEL | 3);
    guest.set_handler(14, handler());
    guest.write(USER, user);
    assert_eq!(guest.exits(), 0x34, "the kernel has its page again");
    assert_eq!(guest.read_u32(KERNEL + 4), 1);
    (guest.get(register::ECX), guest.get(register::EDX))
}

#[test]
fn the_user_cannot_touch_what_the_kernel_uses() {
    assert_eq!(fault_of(user_reads()), (5, KERNEL));
    assert_eq!(fault_of(user_writes()), (7, KERNEL + 0xfff));
    assert_eq!(fault_of(user_jumps()), (5, KERNEL));
    assert_eq!(fault_of(user_straddles()), (5, KERNEL));
}

#[test]
fn the_kernels_pages_come_and_go_with_system_calls() {
    let mut guest = Guest::with(to_user());
    guest.enable_paging();
    guest.map(KERNEL, KERNEL | 3);
    guest.set_gate(14, crate::guest::gate(CODE + 0x800, 0x8e));
    guest.write(CODE + 0x800, handler());
    guest.set_handler(0x80, system_call());
    guest.write(USER, user_calls());
    assert_eq!(guest.exits(), 0x36);
    assert_eq!(guest.get(register::ECX), 5);
}

#[test]
fn write_protection_holds_for_the_kernel_only_if_wanted() {
    for (protected, user) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut guest = Guest::with(kernel_writes());
        guest.enable_paging();
        guest.cpu.cr0.set(Cr0::WP, protected);
        guest.map(KERNEL, KERNEL | 1 | if user { 4 } else { 0 });
        if protected {
            guest.raises(14, Some(3), CODE);
            assert_eq!(guest.read_u32(KERNEL), 0);
        } else {
            assert_eq!(guest.exits(), 3);
            assert_eq!(guest.read_u32(KERNEL), 7);
        }
    }
}

#[test]
fn write_protection_can_be_switched_under_a_page_that_is_shown() {
    let mut guest = Guest::with(kernel_drops_write_protection());
    guest.enable_paging();
    guest.cpu.cr0 |= Cr0::WP;
    guest.map(KERNEL, KERNEL | 1);
    let last = CODE + kernel_drops_write_protection().len() as u32 - 10;
    guest.raises(14, Some(3), last);
    assert_eq!(guest.read_u32(KERNEL), 7);
}

#[test]
fn what_only_the_kernel_may_write_the_user_still_reads() {
    let mut guest = Guest::with(writes_twice());
    guest.enable_paging();
    guest.map(KERNEL, KERNEL | 5);
    guest.set_handler(14, handler());
    guest.write(USER, &[user_reads(), user_writes()].concat());
    assert_eq!(guest.exits(), 1);
    assert_eq!(guest.get(register::EBX), 1);
    assert_eq!(guest.get(register::ECX), 7, "the user's write is refused, its read was not");
    assert_eq!(guest.get(register::EDX), KERNEL + 0xfff);
}
