//! Two ring-3 tasks in two address spaces. Each touches its private pages, which both have at the same
//! linear addresses, and yields by INT 0x80; the kernel saves its registers on the task's kernel stack,
//! switches stack, CR3 and the TSS's ESP0, and goes on with the other.

use crate::runtime::prelude::*;

/// The private pages' linear address, and how many a task touches.
const PRIVATE: u32 = 8 << 20;
const PAGES: u32 = 4;
/// The top of both tasks' stacks.
const STACK: u32 = PRIVATE + (PAGES + 1) * 4096;
/// The second task's frames, page directory and page table for [`PRIVATE`].
const FRAMES: u32 = 12 << 20;
const DIRECTORY: u32 = layout::SPARE;
const TABLE: u32 = layout::SPARE + 0x1000;

/// The kernel's record of a task: stack pointer, CR3, ESP0.
const TASKS: [i32; 2] = [layout::SCRATCH as i32, layout::SCRATCH as i32 + 16];
const CURRENT: i32 = layout::SCRATCH as i32 + 32;
const REMAINING: i32 = layout::SCRATCH as i32 + 36;
/// Tops of the tasks' kernel stacks.
const KERNEL_STACKS: [u32; 2] = [layout::INTERRUPT_STACK, layout::INTERRUPT_STACK - 0x4000];
const DIRECTORIES: [u32; 2] = [layout::PAGE_DIRECTORY, DIRECTORY];

/// What makes the two counts one checksum.
const MIX: u32 = 0x1_0001;

pub(super) fn assemble(iterations: u32) -> Result<Image, Error> {
    let mut g = Guest::boot("context-switch", Setup::USUAL);
    let (over, task, done) = (g.label(), g.label(), g.label());
    x86!(g ; jmp =>over);
    emit_switch(&mut g, done);
    emit_task(&mut g, task);
    x86!(g ; =>over);
    emit_second_address_space(&mut g);
    emit_clear(&mut g);
    x86!(g ; mov DWORD [REMAINING], iterations as i32 ; mov DWORD [CURRENT], TASKS[0]);
    for number in 0..2 {
        emit_new_task(&mut g, number, task);
    }
    g.begin();
    emit_resume(&mut g, TASKS[0]);
    x86!(g
        ; =>done
        ; mov esp, layout::KERNEL_STACK as i32
        ; mov eax, layout::PAGE_DIRECTORY as i32
        ; mov cr3, eax
    );
    g.end();
    emit_count(&mut g, PRIVATE);
    x86!(g ; imul ebx, eax, MIX as i32);
    emit_count(&mut g, FRAMES);
    x86!(g ; add eax, ebx);
    let (first, second) = (iterations.div_ceil(2), iterations / 2);
    let count = |times: u32| times.wrapping_mul(PAGES);
    g.finish(count(first).wrapping_mul(MIX).wrapping_add(count(second)))
}

/// The second address space is the first with other frames at [`PRIVATE`].
fn emit_second_address_space(g: &mut Guest) {
    let rights = layout::PRESENT | layout::WRITABLE | layout::USER;
    x86!(g
        ; mov esi, layout::PAGE_DIRECTORY as i32
        ; mov edi, DIRECTORY as i32
        ; mov ecx, 1024
        ; rep movsd
        ; mov DWORD [(DIRECTORY + (PRIVATE >> 22) * 4) as i32], (TABLE | rights) as i32
    );
    g.fill(TABLE, FRAMES | rights, 4096, PAGES + 1);
}

fn emit_clear(g: &mut Guest) {
    for area in [PRIVATE, FRAMES] {
        g.fill(area, 0, 0, PAGES * 1024);
    }
}

/// Puts onto the kernel stack of a task what [`emit_switch`] finds there when it resumes it.
fn emit_new_task(g: &mut Guest, number: usize, entry: DynamicLabel) {
    let (record, top) = (TASKS[number], KERNEL_STACKS[number] as i32);
    let frame = top - 20;
    x86!(g
        ; lea eax, [=>entry]
        ; mov [frame], eax
        ; mov DWORD [frame + 4], i32::from(layout::USER_CODE)
        ; mov DWORD [frame + 8], layout::EFLAGS_NONE as i32
        ; mov DWORD [frame + 12], STACK as i32
        ; mov DWORD [frame + 16], i32::from(layout::USER_DATA)
        ; mov DWORD [record], frame - 32 // below are the registers of PUSHAD, whatever they are
        ; mov DWORD [record + 4], DIRECTORIES[number] as i32
        ; mov DWORD [record + 8], top
    );
}

/// INT 0x80: the other task, or the end.
fn emit_switch(g: &mut Guest, done: DynamicLabel) {
    let handler = g.label();
    g.gate(0x80, Gate::UserInterrupt, handler);
    x86!(g
        ; =>handler
        ; pushad
        ; dec DWORD [REMAINING]
        ; jz =>done
        ; mov eax, [CURRENT]
        ; mov [eax], esp
        ; xor eax, TASKS[0] ^ TASKS[1]
        ; mov [CURRENT], eax
        ; mov esp, [eax]
        ; mov ecx, [eax + 4]
        ; mov cr3, ecx
        ; mov ecx, [eax + 8]
        ; mov [layout::TSS as i32 + 4], ecx
        ; popad
        ; iretd
    );
}

/// Enters the task whose record is `record` for the first time.
fn emit_resume(g: &mut Guest, record: i32) {
    x86!(g ; mov esp, [record] ; popad ; iretd);
}

fn emit_task(g: &mut Guest, task: DynamicLabel) {
    x86!(g ; =>task);
    for page in 0..PAGES {
        x86!(g ; inc DWORD [(PRIVATE + page * 4096) as i32]);
    }
    x86!(g ; push esi ; int 0x80u8 as i8 ; pop esi ; jmp =>task);
}

/// EAX = the sum of the counters in the pages at `area`.
fn emit_count(g: &mut Guest, area: u32) {
    x86!(g ; xor eax, eax);
    for page in 0..PAGES {
        x86!(g ; add eax, [(area + page * 4096) as i32]);
    }
}
