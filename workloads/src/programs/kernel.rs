//! The kernel of a program: the way in, the way from block to block, and what every vector leads to.

use super::layout::{self, PAGE};
use super::{Error, Paging, Policy, Program};
use crate::x86;
use dynasmrt::x86::X86Relocation;
use dynasmrt::{AssemblyOffset, DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler};

type Asm = VecAssembler<X86Relocation>;

// Variables.
const NEXT: i32 = layout::STATE as i32;
const ROUNDS: i32 = NEXT + 4;
const CURSOR: i32 = NEXT + 8;
const RETRIES: i32 = NEXT + 12;
/// A byte for each vector.
pub(super) const POLICIES: u32 = layout::STATE + 0x100;
/// Operands of LGDT and LIDT.
pub(super) const GDTR: u32 = layout::STATE + 0x40;
pub(super) const IDTR: u32 = layout::STATE + 0x48;

/// How often a handler goes back before it gives the block up.
const MOST_RETRIES: i32 = 12;
/// Ticks of the PIT a second: HLT does not wait longer than for one.
const TICKS: u32 = 4000;

const CR0_USUAL: u32 = 0x11; // PE, ET
const CR0_PAGING: u32 = 0x8000_0000;
pub(super) const CR4_PAE: u32 = 0x20;

/// The code, from [`layout::ENTRY`] on, and where it is entered.
pub(super) struct Kernel {
    pub(super) code: Vec<u8>,
    /// For each vector.
    pub(super) handlers: Vec<u32>,
    /// The second task's entry.
    pub(super) task: u32,
}

/// The byte that stands for a policy in the table.
pub(super) fn policy_byte(policy: Policy) -> u8 {
    match policy {
        Policy::Next => 0,
        Policy::Return => 1,
        Policy::Map => 2,
        Policy::Skip(bytes) => 3u8.saturating_add(bytes.max(1)),
    }
}

/// Assembles the kernel of a program.
pub(super) fn assemble(program: &Program) -> Result<Kernel, Error> {
    let mut asm = Asm::new(layout::ENTRY as usize);
    let [common, next] = [asm.new_dynamic_label(), asm.new_dynamic_label()];
    emit_entry(&mut asm, program, next);
    emit_common(&mut asm, program, common, next);
    emit_next(&mut asm, program, next);
    let task = here(&asm);
    x86!(asm
        ; again:
        ; inc DWORD [ROUNDS + 0x20]
        ; iretd // back to the task that this one is nested in
        ; jmp <again
    );
    let handlers = (0..=255).map(|vector| emit_vector(&mut asm, vector, common)).collect();
    let code = asm.finalize().map_err(|error| Error(error.to_string()))?;
    if layout::ENTRY + code.len() as u32 > layout::GDT {
        return Err(Error("the kernel is too long".to_owned()));
    }
    Ok(Kernel { code, handlers, task })
}

fn here(asm: &Asm) -> u32 {
    let AssemblyOffset(offset) = asm.offset();
    layout::ENTRY + offset as u32
}

fn directory(number: u32) -> i32 {
    (layout::DIRECTORIES + number * PAGE) as i32
}

fn cr0(program: &Program) -> i32 {
    let paging = if program.paging == Paging::Off { 0 } else { CR0_PAGING };
    (program.cr0 | CR0_USUAL | paging) as i32
}

fn cr4(program: &Program) -> i32 {
    let wide = if program.paging == Paging::Wide { CR4_PAE } else { 0 };
    (program.cr4 | wide) as i32
}

/// From what the loader leaves to the first block.
fn emit_entry(asm: &mut Asm, program: &Program, next: DynamicLabel) {
    x86!(asm
        ; cli
        ; cld
        ; lgdt [GDTR as i32]
        ; lidt [IDTR as i32]
        ; mov esp, layout::KERNEL_STACK as i32
        ; .bytes [0xEA] // jmp far
        ; .abs32 >flat
        ; .u16 layout::KERNEL_CODE
        ; flat:
    );
    load_data_segments(asm);
    x86!(asm
        ; mov eax, i32::from(layout::LDT_SELECTOR)
        ; lldt ax
        ; mov eax, i32::from(layout::TSS_SELECTOR)
        ; ltr ax
        ; fninit
    );
    for (port, value) in devices() {
        x86!(asm ; mov al, value as i8 ; out port as i8, al);
    }
    x86!(asm ; mov eax, cr4(program) ; mov cr4, eax);
    if program.paging != Paging::Off {
        x86!(asm ; mov eax, directory(0) ; mov cr3, eax);
    }
    x86!(asm
        ; mov eax, cr0(program)
        ; mov cr0, eax
        ; jmp >on
        ; on:
        ; mov DWORD [ROUNDS], program.rounds.max(1) as i32
        ; jmp =>next
    );
}

/// What is written to which ports: both 8259s with IRQ 0 alone, and the 8254's channel 0 as rate
/// generator.
fn devices() -> [(u8, u8); 13] {
    let [low, high, ..] = (crate::runtime::PIT_HZ / TICKS).to_le_bytes();
    [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, layout::IRQ_BASE),
        (0xa1, layout::IRQ_BASE + 8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xfe),
        (0xa1, 0xff),
        (0x43, 0x34),
        (0x40, low),
        (0x40, high),
    ]
}

fn load_data_segments(asm: &mut Asm) {
    x86!(asm
        ; mov eax, i32::from(layout::KERNEL_DATA)
        ; .bytes [0x8e, 0xd8] // mov ds, eax
        ; .bytes [0x8e, 0xc0] // mov es, eax
        ; .bytes [0x8e, 0xd0] // mov ss, eax
    );
}

fn emit_vector(asm: &mut Asm, vector: u8, common: DynamicLabel) -> u32 {
    let entry = here(asm);
    let has_error_code = matches!(vector, 8 | 10..=14 | 17);
    if !has_error_code {
        x86!(asm ; push BYTE 0);
    }
    x86!(asm ; push DWORD i32::from(vector) ; jmp =>common);
    entry
}

/// PUSHAD's frame lies at ESP, then the vector, the error code, EIP, CS, EFLAGS.
fn emit_common(asm: &mut Asm, program: &Program, common: DynamicLabel, next: DynamicLabel) {
    const VECTOR: i32 = 32;
    const EIP: i32 = 40;
    x86!(asm ; =>common ; pushad);
    load_data_segments(asm);
    x86!(asm
        ; cld
        // Note the frame.
        ; mov edi, [CURSOR]
        ; and edi, 0xfc0
        ; add edi, layout::LOG as i32
        ; mov esi, esp
        ; mov ecx, 15
        ; rep movsd
        ; mov eax, cr2
        ; stosd
        ; add DWORD [CURSOR], 64
        ; mov ebx, [esp + VECTOR]
        ; mov edx, ebx
        ; and edx, 0xf0
        ; cmp edx, i32::from(layout::IRQ_BASE)
        ; jne >no_irq
        ; mov al, 0x20
        ; out 0x20, al
        ; out BYTE 0xa0u8 as i8, al
        ; no_irq:
        ; movzx eax, BYTE [ebx + POLICIES as i32]
        ; test eax, eax
        ; jz =>next
        ; dec DWORD [RETRIES]
        ; js =>next
        ; cmp eax, 2
        ; jb >back
        ; je >map
        ; sub eax, 3
        ; add [esp + EIP], eax
        ; jmp >back
        ; map:
        ; mov eax, cr2
        // Not the tables themselves: what is written to them is not told the CPU.
        ; mov edx, eax
        ; and edx, 0x3f_ffff
        ; cmp edx, layout::USER_STACK as i32
        ; jb =>next
        ; cmp edx, layout::END as i32
        ; jae =>next
        ; mov ecx, cr3
        ; and ecx, 0xffff_f000u32 as i32
        ; mov edx, eax
    );
    emit_map(asm, program, next);
    x86!(asm
        ; back:
        ; popad
        ; add esp, 8
        ; iretd
    );
}

/// The entry of the linear address in EAX and EDX, from the table in ECX, gets all rights.
fn emit_map(asm: &mut Asm, program: &Program, next: DynamicLabel) {
    match program.paging {
        Paging::Off => return x86!(asm ; jmp =>next),
        Paging::Plain => x86!(asm
            ; shr edx, 22
            ; mov ecx, [ecx + edx * 4]
            ; mov edx, eax
            ; shr edx, 12
            ; and edx, 0x3ff
            ; shl edx, 2
        ),
        Paging::Wide => x86!(asm
            ; shr edx, 30
            ; mov ecx, [ecx + edx * 8]
            ; test cl, 1
            ; jz =>next
            ; and ecx, 0xffff_f000u32 as i32
            ; mov edx, eax
            ; shr edx, 21
            ; and edx, 0x1ff
            ; mov ecx, [ecx + edx * 8]
            ; mov edx, eax
            ; shr edx, 12
            ; and edx, 0x1ff
            ; shl edx, 3
        ),
    }
    x86!(asm
        ; test cl, 1
        ; jz =>next
        ; test cl, 0x80u8 as i8
        ; jnz =>next
        ; and ecx, 0xffff_f000u32 as i32
        ; or DWORD [ecx + edx], 7
        ; invlpg [eax]
    );
}

/// The next block, or the end.
fn emit_next(asm: &mut Asm, program: &Program, next: DynamicLabel) {
    x86!(asm ; =>next);
    if program.restores {
        x86!(asm
            ; mov eax, cr4(program)
            ; mov cr4, eax
            ; mov eax, cr0(program)
            ; mov cr0, eax
            ; xor eax, eax
            ; mov dr7, eax
        );
    }
    x86!(asm
        ; mov DWORD [RETRIES], MOST_RETRIES
        ; mov ebx, [NEXT]
        ; cmp ebx, program.blocks.len() as i32
        ; jb >go
        ; xor ebx, ebx
        ; dec DWORD [ROUNDS]
        ; jz >end
        ; go:
        ; lea eax, [ebx + 1]
        ; mov [NEXT], eax
        ; shl ebx, 7
        ; lea esi, [ebx + layout::CONTEXTS as i32]
        ; mov eax, [esi + (layout::CONTEXT_BYTES - 4) as i32]
        ; test eax, eax
        ; jz >same_directory
        // Whatever a block has made of the contexts: one of the two.
        ; and eax, PAGE as i32
        ; add eax, layout::DIRECTORIES as i32
        ; mov cr3, eax
        ; same_directory:
        ; mov edi, layout::WORK as i32
        ; mov ecx, (layout::CONTEXT_BYTES / 4 - 1) as i32
        ; rep movsd
        ; mov esp, layout::WORK as i32
        ; pop gs
        ; pop fs
        ; pop es
        ; pop ds
        ; popad
        ; iretd
        ; end:
        ; xor eax, eax
        ; out BYTE 0xf4u8 as i8, al
        ; cli
        ; hlt
        ; jmp <end
    );
}
