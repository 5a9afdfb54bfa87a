//! Fibonacci numbers by naive recursion: calls, returns, pushes and pops.

use super::kernel::{Kernel, function, repeated};
use crate::runtime::prelude::*;

const ARGUMENT: u32 = 18;

pub(super) const KERNEL: Kernel = Kernel {
    name: "fib",
    summary: "recursive Fibonacci; an iteration computes fib(18), 8361 calls",
    sse: false,
    data_bytes: 0,
    data: Vec::new,
    prepare: None,
    emit,
    checksum: |iterations| repeated(fib(ARGUMENT), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    let recursive = asm.new_dynamic_label();
    function(asm, run, |asm| {
        x86!(asm
            ; mov eax, ARGUMENT as i32
            ; call =>recursive
        );
    });
    x86!(asm
        ; =>recursive // fib(EAX) to EAX
        ; cmp eax, 2
        ; jb >done
        ; push ebx
        ; mov ebx, eax
        ; dec eax
        ; call =>recursive
        ; xchg eax, ebx
        ; sub eax, 2
        ; call =>recursive
        ; add eax, ebx
        ; pop ebx
        ; done:
        ; ret
    );
}

fn fib(n: u32) -> u32 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}
