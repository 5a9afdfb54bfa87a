//! A small kernel's fork, exit and wait. The child's address space is a copy of the parent's page
//! directory and of its user page table, made read-only; the child's writes fault and get copies of
//! their pages; its exit comes back to the parent, which clears the tables.

use crate::runtime::prelude::*;

/// The user part of the address space: one page table.
const USER_AREA: u32 = 8 << 20;
/// Its pages: a number from the parent, two of which the child writes one, and the stack.
const NUMBER: u32 = USER_AREA;
const WRITTEN: u32 = USER_AREA + 0x1000;
const READ: u32 = USER_AREA + 0x2000;
const STACK: u32 = USER_AREA + 0x4000;
/// What [`WRITTEN`] and [`READ`] hold in the parent.
const CONTENT: u32 = 0x0001_0000;

const CHILD_DIRECTORY: u32 = layout::SPARE;
const CHILD_TABLE: u32 = layout::SPARE + 0x1000;
/// The parent's page table for the user area.
const PARENT_TABLE: u32 = layout::entry_of(USER_AREA);
/// Frames for copies, from here on; the next free one; and how many copies were made.
const FRAMES: u32 = 12 << 20;
const NEXT_FRAME: i32 = layout::SCRATCH as i32;
const COPIES: i32 = layout::SCRATCH as i32 + 4;
/// The pages that the child writes: its number, [`WRITTEN`], its stack.
const COPIES_A_CHILD: u32 = 3;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("forkwait", Setup::USUAL);
    let over = g.label();
    x86!(g ; jmp =>over);
    emit_copy_on_write(&mut g);
    x86!(g
        ; =>over
        ; mov DWORD [WRITTEN as i32], CONTENT as i32
        ; mov DWORD [READ as i32], CONTENT as i32
        ; mov DWORD [COPIES], 0
        ; xor ebx, ebx
    );
    g.begin();
    g.repeat(iterations, |g| {
        x86!(g ; mov [NUMBER as i32], ebp);
        emit_fork(g);
        g.ring3_with(layout::EFLAGS_NONE, STACK, emit_child);
        x86!(g ; add ebx, eax); // the exit code
        emit_tear_down(g);
        x86!(g
            ; add ebx, [WRITTEN as i32] // the parent's, not the child's
            ; add ebx, [NUMBER as i32]
        );
    });
    g.end();
    x86!(g ; mov eax, ebx ; add eax, [COPIES]);
    g.finish(checksum(iterations))
}

/// Copies the directory and the user page table, the latter without write permission (for parent and
/// child alike one would do it; the parent does not run meanwhile), and goes over.
fn emit_fork(g: &mut Guest) {
    let rights = layout::PRESENT | layout::WRITABLE | layout::USER;
    x86!(g
        ; mov DWORD [NEXT_FRAME], FRAMES as i32
        ; mov esi, layout::PAGE_DIRECTORY as i32
        ; mov edi, CHILD_DIRECTORY as i32
        ; mov ecx, 1024
        ; rep movsd
        ; mov DWORD [(CHILD_DIRECTORY + (USER_AREA >> 22) * 4) as i32], (CHILD_TABLE | rights) as i32
        ; xor ecx, ecx
        ; entry:
        ; mov eax, [PARENT_TABLE as i32 + ecx * 4]
        ; and eax, !layout::WRITABLE as i32
        ; mov [CHILD_TABLE as i32 + ecx * 4], eax
        ; inc ecx
        ; cmp ecx, 1024
        ; jb <entry
        ; mov eax, CHILD_DIRECTORY as i32
        ; mov cr3, eax
    );
}

/// The child, in ring 3: its exit code is the parent's number and [`READ`]'s content.
fn emit_child(g: &mut Guest) {
    x86!(g
        ; mov eax, [NUMBER as i32]
        ; add eax, [READ as i32]
        ; mov DWORD [NUMBER as i32], 0
        ; mov [WRITTEN as i32], eax
        ; push eax
        ; pop eax
    );
}

fn emit_tear_down(g: &mut Guest) {
    x86!(g
        ; mov eax, layout::PAGE_DIRECTORY as i32
        ; mov cr3, eax
        ; xor eax, eax
        ; mov edi, CHILD_TABLE as i32
        ; mov ecx, 1024
        ; rep stosd
        ; mov edi, CHILD_DIRECTORY as i32
        ; mov ecx, 1024
        ; rep stosd
    );
}

/// The page-fault handler: a writable copy of the page.
fn emit_copy_on_write(g: &mut Guest) {
    let handler = g.label();
    g.gate(14, Gate::Interrupt, handler);
    let rights = layout::PRESENT | layout::WRITABLE | layout::USER;
    x86!(g
        ; =>handler
        ; pushad
        ; mov eax, cr2
        ; and eax, !0xFFF
        ; mov edx, eax
        ; shr edx, 12
        ; and edx, 0x3FF
        ; mov edi, [NEXT_FRAME]
        ; mov ebx, edi
        ; mov esi, eax
        ; mov ecx, 1024
        ; rep movsd
        ; mov [NEXT_FRAME], edi
        ; or ebx, rights as i32
        ; mov [CHILD_TABLE as i32 + edx * 4], ebx
        ; invlpg [eax]
        ; inc DWORD [COPIES]
        ; popad
        ; add esp, 4 // the error code
        ; iretd
    );
}

/// Each child's exit code, the parent's unchanged pages, and the copies. The parent's number runs from
/// `iterations` down to 1.
fn checksum(iterations: u32) -> u32 {
    let n = u64::from(iterations);
    let numbers = (u128::from(n) * u128::from(n + 1) / 2) as u32;
    let constants = CONTENT * 2 + COPIES_A_CHILD;
    numbers.wrapping_mul(2).wrapping_add(iterations.wrapping_mul(constants))
}
