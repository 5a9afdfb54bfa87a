//! An interpreter of a small bytecode: an indirect jump for every few instructions, the hard case for
//! a translator.
//!
//! An instruction is four bytes: operation, register A, register B, immediate. There are four
//! registers, in memory.

use super::kernel::{Kernel, function, repeated};
use crate::runtime::prelude::*;

const REGISTERS: i32 = 0;
const TABLE: i32 = 64;
const PROGRAM: i32 = 128;

/// Times round the program's outer and inner loop.
const OUTER: u8 = 5;
const ROUNDS: u8 = 100;

/// The operations, by number.
#[derive(Clone, Copy)]
enum Op {
    /// A += B
    Add,
    /// A ^= B
    Xor,
    /// A = B
    Move,
    /// A *= immediate
    Multiply,
    /// A += immediate
    AddImmediate,
    /// A = A rotated left
    Rotate,
    /// Go on at this instruction + immediate, if A is not zero
    JumpNonZero,
    /// The end: the value is register 0
    Halt,
}

const OPS: usize = 8;

pub(super) const KERNEL: Kernel = Kernel {
    name: "dispatch",
    summary: "bytecode interpreter with indirect jumps; an iteration runs 3521 bytecodes",
    sse: false,
    data_bytes: PROGRAM as u32 + 256,
    data: || [vec![0; PROGRAM as usize], program()].concat(),
    prepare: None,
    emit,
    checksum: |iterations| repeated(value(), iterations),
};

fn program() -> Vec<u8> {
    let (back_inner, back_outer, less_one) = ((-6i8) as u8, (-9i8) as u8, (-1i8) as u8);
    [
        [Op::Xor as u8, 0, 0, 0],
        [Op::AddImmediate as u8, 0, 0, 1],
        [Op::Xor as u8, 1, 1, 0],
        [Op::Xor as u8, 3, 3, 0],
        [Op::AddImmediate as u8, 3, 0, OUTER],
        [Op::AddImmediate as u8, 1, 0, ROUNDS],
        [Op::Multiply as u8, 0, 0, 31],
        [Op::Add as u8, 0, 1, 0],
        [Op::Move as u8, 2, 0, 0],
        [Op::Rotate as u8, 2, 0, 7],
        [Op::Xor as u8, 0, 2, 0],
        [Op::AddImmediate as u8, 1, 0, less_one],
        [Op::JumpNonZero as u8, 1, 0, back_inner],
        [Op::AddImmediate as u8, 3, 0, less_one],
        [Op::JumpNonZero as u8, 3, 0, back_outer],
        [Op::Halt as u8, 0, 0, 0],
    ]
    .concat()
}

/// What the program leaves in register 0.
fn value() -> u32 {
    let rounds = (0..OUTER).flat_map(|_| (1..=u32::from(ROUNDS)).rev());
    rounds.fold(1u32, |value, round| {
        let value = value.wrapping_mul(31).wrapping_add(round);
        value ^ value.rotate_left(7)
    })
}

/// The interpreter: EDI is the program counter; in a handler EAX and EBX hold the numbers of the
/// registers A and B.
fn emit(asm: &mut Asm, run: DynamicLabel) {
    let handlers: [DynamicLabel; OPS] = std::array::from_fn(|_| asm.new_dynamic_label());
    let next = asm.new_dynamic_label();
    function(asm, run, |asm| {
        for (number, &handler) in handlers.iter().enumerate() {
            let slot = TABLE + number as i32 * 4;
            x86!(asm ; lea eax, [=>handler] ; mov [esi + slot], eax);
        }
        x86!(asm
            ; lea edi, [esi + PROGRAM - 4]
            ; =>next
            ; add edi, 4
            ; movzx ecx, BYTE [edi]
            ; movzx eax, BYTE [edi + 1]
            ; movzx ebx, BYTE [edi + 2]
            ; jmp DWORD [esi + ecx * 4 + TABLE]
        );
        for (op, handler) in OPERATIONS.into_iter().zip(handlers) {
            x86!(asm ; =>handler);
            emit_operation(asm, op, next);
        }
        x86!(asm ; mov eax, [esi + REGISTERS]);
    });
}

const OPERATIONS: [Op; OPS] = [
    Op::Add,
    Op::Xor,
    Op::Move,
    Op::Multiply,
    Op::AddImmediate,
    Op::Rotate,
    Op::JumpNonZero,
    Op::Halt,
];

fn emit_operation(asm: &mut Asm, op: Op, next: DynamicLabel) {
    match op {
        Op::Add => x86!(asm
            ; mov edx, [esi + ebx * 4 + REGISTERS]
            ; add [esi + eax * 4 + REGISTERS], edx
        ),
        Op::Xor => x86!(asm
            ; mov edx, [esi + ebx * 4 + REGISTERS]
            ; xor [esi + eax * 4 + REGISTERS], edx
        ),
        Op::Move => x86!(asm
            ; mov edx, [esi + ebx * 4 + REGISTERS]
            ; mov [esi + eax * 4 + REGISTERS], edx
        ),
        Op::Multiply => x86!(asm
            ; movsx edx, BYTE [edi + 3]
            ; imul edx, [esi + eax * 4 + REGISTERS]
            ; mov [esi + eax * 4 + REGISTERS], edx
        ),
        Op::AddImmediate => x86!(asm
            ; movsx edx, BYTE [edi + 3]
            ; add [esi + eax * 4 + REGISTERS], edx
        ),
        Op::Rotate => x86!(asm
            ; mov cl, [edi + 3]
            ; rol DWORD [esi + eax * 4 + REGISTERS], cl
        ),
        Op::JumpNonZero => x86!(asm
            ; cmp DWORD [esi + eax * 4 + REGISTERS], 0
            ; je =>next
            ; movsx edx, BYTE [edi + 3]
            ; lea edi, [edi + edx * 4 - 4]
        ),
        Op::Halt => return,
    }
    x86!(asm ; jmp =>next);
}
