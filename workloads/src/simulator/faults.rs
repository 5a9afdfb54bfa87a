//! Exceptions whose handlers step over what caused them: what it costs to deliver one and return.

use crate::runtime::prelude::*;

/// An address that is not mapped.
const ABSENT: u32 = layout::MEMORY + 0x5678;

/// Measures `cause`, an instruction that raises exception `vector`, with `handler` emitted as the
/// whole handler; EBX begins at 0 and is the result. EDX holds the address behind the instruction.
fn measure(
    name: &'static str,
    iterations: u32,
    vector: u8,
    handler: fn(&mut Guest),
    cause: fn(&mut Guest),
) -> Result<Image, Error> {
    let mut g = Guest::boot(name, Setup::USUAL);
    let (over, entry, behind) = (g.label(), g.label(), g.label());
    g.gate(vector, Gate::Interrupt, entry);
    x86!(g ; jmp =>over ; =>entry);
    handler(&mut g);
    x86!(g ; =>over);
    g.begin();
    x86!(g ; xor ebx, ebx ; lea edx, [=>behind] ; mov ecx, ABSENT as i32);
    g.repeat(iterations, |g| {
        cause(g);
        x86!(g ; =>behind);
    });
    g.end();
    x86!(g ; mov eax, ebx);
    g.finish(iterations)
}

/// A read of a page that is not present. CR2 must be its address.
pub(super) fn data(iterations: u32) -> Result<Image, Error> {
    let handler = |g: &mut Guest| {
        x86!(g
            ; mov eax, cr2
            ; sub eax, ecx
            ; lea ebx, [ebx + eax + 1]
            ; mov [esp + 4], edx
            ; add esp, 4
            ; iretd
        );
    };
    measure("data-fault", iterations, 14, handler, |g| x86!(g ; mov eax, [ecx]))
}

/// A jump to a page that is not present. The EIP pushed must be its target.
pub(super) fn instruction(iterations: u32) -> Result<Image, Error> {
    let handler = |g: &mut Guest| {
        x86!(g
            ; mov eax, [esp + 4]
            ; sub eax, ecx
            ; lea ebx, [ebx + eax + 1]
            ; mov [esp + 4], edx
            ; add esp, 4
            ; iretd
        );
    };
    measure("instruction-fault", iterations, 14, handler, |g| x86!(g ; jmp ecx))
}

/// UD2.
pub(super) fn undefined(iterations: u32) -> Result<Image, Error> {
    let handler = |g: &mut Guest| x86!(g ; add DWORD [esp], 2 ; inc ebx ; iretd);
    measure("undefined-instruction", iterations, 6, handler, |g| x86!(g ; ud2))
}
