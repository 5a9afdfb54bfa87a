//! Quicksort that compares through a function pointer, as C's qsort does: indirect calls, recursion,
//! branches that cannot be predicted.

use super::kernel::{Kernel, bytes, function, noise, repeated};
use crate::runtime::prelude::*;

const COUNT: u32 = 256;
const WORK: i32 = COUNT as i32 * 4;
/// The pointer to the comparison.
const COMPARE: i32 = 2 * WORK;

pub(super) const KERNEL: Kernel = Kernel {
    name: "quicksort",
    summary: "quicksort with a comparison function; an iteration sorts 256 words",
    sse: false,
    data_bytes: COMPARE as u32 + 4,
    data: || bytes(source()),
    prepare: None,
    emit,
    checksum: |iterations| repeated(digest_of_sorted(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    let (sort, compare) = (asm.new_dynamic_label(), asm.new_dynamic_label());
    function(asm, run, |asm| {
        x86!(asm
            ; lea eax, [=>compare]
            ; mov [esi + COMPARE], eax
            ; lea edi, [esi + WORK]
            ; mov ecx, COUNT as i32
            ; push esi
            ; rep movsd
            ; pop esi
            ; lea eax, [esi + WORK + WORK - 4]
            ; push eax
            ; lea eax, [esi + WORK]
            ; push eax
            ; call =>sort
            ; add esp, 8
            ; xor eax, eax
            ; xor ecx, ecx
            ; word:
            ; rol eax, 1
            ; add eax, [esi + ecx * 4 + WORK]
            ; inc ecx
            ; cmp ecx, COUNT as i32
            ; jb <word
        );
    });
    emit_sort(asm, sort);
    x86!(asm
        ; =>compare // compare(a, b): negative if a is below b
        ; mov eax, [esp + 4]
        ; cmp eax, [esp + 8]
        ; sbb eax, eax
        ; ret
    );
}

/// `sort(first, last)`, both pointers to elements; ESI is the data area. The pivot is the last.
fn emit_sort(asm: &mut Asm, sort: DynamicLabel) {
    x86!(asm
        ; =>sort
        ; push ebx
        ; push edi
        ; push ebp
        ; mov edi, [esp + 16]
        ; mov ebp, [esp + 20]
        ; cmp edi, ebp
        ; jae >done
        ; mov ebx, edi // elements before EBX are below the pivot
        ; element:
        ; push DWORD [ebp]
        ; push DWORD [edi]
        ; call DWORD [esi + COMPARE]
        ; add esp, 8
        ; test eax, eax
        ; jns >not_below
        ; mov eax, [edi]
        ; mov ecx, [ebx]
        ; mov [ebx], eax
        ; mov [edi], ecx
        ; add ebx, 4
        ; not_below:
        ; add edi, 4
        ; cmp edi, ebp
        ; jb <element
        ; mov eax, [ebp]
        ; mov ecx, [ebx]
        ; mov [ebx], eax
        ; mov [ebp], ecx
        ; lea eax, [ebx - 4]
        ; push eax
        ; push DWORD [esp + 20]
        ; call =>sort
        ; add esp, 8
        ; push ebp
        ; lea eax, [ebx + 4]
        ; push eax
        ; call =>sort
        ; add esp, 8
        ; done:
        ; pop ebp
        ; pop edi
        ; pop ebx
        ; ret
    );
}

fn source() -> impl Iterator<Item = u32> {
    noise(0xC0FF_EE11).take(COUNT as usize)
}

fn digest_of_sorted() -> u32 {
    let mut words: Vec<u32> = source().collect();
    words.sort_unstable();
    words.into_iter().fold(0, |digest: u32, word| digest.rotate_left(1).wrapping_add(word))
}
