//! A guest with something to stop at: it turns paging on, takes an INT3 of its own, counts to three at
//! an address that was not there before, and stays in a loop for ever.

use dynasmrt::x86::X86Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};

/// Where the image goes, and where it is entered.
pub(crate) const LOAD: u32 = 0x10_0000;
/// Where memory is seen once paging is on, besides where it is.
const HIGH: u32 = 0xc000_0000;
/// Where the handler of INT3 is.
const HANDLER: u32 = 0x10;

const DIRECTORY: i32 = 0x20_0000;
const IDT: i32 = 0x20_1000;
const IDT_REGISTER: i32 = 0x20_2000;
const STACK: i32 = 0x20_4000;
/// Present, writable, 4 MiB.
const LARGE_PAGE: i32 = 0x83;
/// The low half of a gate: the flat code segment, and the handler's low address.
const GATE_LOW: i32 = 8 << 16 | ((LOAD + HANDLER) & 0xffff) as i32;
/// The high half: present, a 32-bit interrupt gate.
const GATE_HIGH: i32 = ((LOAD + HANDLER) & 0xffff_0000) as i32 | 0x8e00;

/// Linear addresses in the image.
#[derive(Debug)]
pub(crate) struct Places {
    /// The turn of the count: EBX is how many there were.
    pub(crate) turn: u32,
    /// Behind the count; EDI is how often INT3 was taken.
    pub(crate) counted: u32,
    /// The loop for ever: EDX counts.
    pub(crate) waiting: u32,
}

/// The image, for `--kind flat32`.
pub(crate) fn image() -> (Vec<u8>, Places) {
    let mut asm = VecAssembler::<X86Relocation>::new(LOAD as usize);
    dynasm!(asm
        ; .arch x86
        ; jmp >start
        ; .align 16
        ; inc edi
        ; iretd
        ; start:
        ; mov esp, STACK
        ; xor ebx, ebx
        ; xor edi, edi
        ; mov DWORD [IDT + 8 * 3], GATE_LOW
        ; mov DWORD [IDT + 8 * 3 + 4], GATE_HIGH
        ; mov DWORD [IDT_REGISTER], 0x00ff | IDT << 16
        ; mov DWORD [IDT_REGISTER + 4], IDT >> 16
        ; lidt [IDT_REGISTER]
        ; mov DWORD [DIRECTORY], LARGE_PAGE
        ; mov DWORD [DIRECTORY + 4 * 0x300], LARGE_PAGE
        ; mov eax, 0x10
        ; mov cr4, eax
        ; mov eax, DIRECTORY
        ; mov cr3, eax
        ; mov eax, cr0
        ; or eax, 0x8000_0000_u32 as i32
        ; mov cr0, eax
        ; call >here
        ; here:
    );
    let here = asm.offset().0 as u32;
    dynasm!(asm
        ; .arch x86
        ; pop eax
        ; add eax, (HIGH + 8) as i32
        // The eight bytes up to here are POP, ADD and JMP.
        ; jmp eax
    );
    let high = asm.offset().0 as u32;
    assert_eq!(high - here, 8);
    dynasm!(asm
        ; .arch x86
        ; turn:
        ; int3
    );
    let turn = asm.offset().0 as u32;
    dynasm!(asm
        ; .arch x86
        ; inc ebx
        ; cmp ebx, 3
        ; jne <turn
    );
    let counted = asm.offset().0 as u32;
    dynasm!(asm
        ; .arch x86
        ; xor edx, edx
        ; waiting:
    );
    let waiting = asm.offset().0 as u32;
    dynasm!(asm
        ; .arch x86
        ; inc edx
        ; cmp ecx, 0x1234
        ; jne <waiting
        ; mov al, 5
        ; out BYTE 0xf4_u8 as i8, al
    );
    let at = |offset: u32| HIGH + LOAD + offset;
    let places = Places { turn: at(turn), counted: at(counted), waiting: at(waiting) };
    (asm.finalize().expect("all labels are there"), places)
}
