//! Code that is rewritten and run again, so that a translator has to translate it again: many small
//! functions, and a few large ones without a branch.
//!
//! An iteration changes the constant in each function's first instruction, for all functions of a
//! page first, and then calls them. The functions add their constants to EBX.

use crate::runtime::prelude::*;
use crate::sums::sum_to;

/// Where the functions are: pages that hold nothing else.
const CODE: u32 = layout::HEAP;

/// ADD EBX, imm32 and the offset of the constant in it; RET.
const ADD_EBX: [u8; 2] = [0x81, 0xC3];
const CONSTANT: i32 = 2;
const RET: u8 = 0xC3;

/// What one function's first constant is above that of the one before.
const STEP: u32 = 0x0100_0193;

/// Functions of one size, one after the other.
struct Functions {
    name: &'static str,
    /// How many.
    count: u32,
    /// Bytes from one to the next.
    spacing: u32,
    /// The instructions between the first and the RET, and what they add to EBX.
    middle: Vec<u8>,
    added: u32,
}

pub(super) fn small(iterations: u32) -> Result<Image, Error> {
    let functions =
        Functions { name: "small-blocks", count: 256, spacing: 16, middle: Vec::new(), added: 0 };
    functions.assemble(iterations)
}

pub(super) fn large(iterations: u32) -> Result<Image, Error> {
    /// Rounds of three instructions of six bytes each: they just leave room for RET in the page.
    const ROUNDS: u32 = 226;
    const CONSTANTS: [u32; 3] = [0x1234_5678, 0x0BCD_EF01, 0x1F1F_2E2E];
    let (middle, added) = (0..ROUNDS).fold((Vec::new(), 0u32), |(mut code, sum), round| {
        let [add, lea, sub] = CONSTANTS.map(|constant| constant.rotate_left(round));
        let instructions = [(ADD_EBX, add), ([0x8D, 0x9B], lea), ([0x81, 0xEB], sub)];
        for (opcode, constant) in instructions {
            code.extend(opcode);
            code.extend(constant.to_le_bytes());
        }
        (code, sum.wrapping_add(add).wrapping_add(lea).wrapping_sub(sub))
    });
    Functions { name: "large-blocks", count: 4, spacing: 4096, middle, added }.assemble(iterations)
}

impl Functions {
    /// One function, with 0 as its first constant.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [ADD_EBX.as_slice(), &[0; 4], &self.middle, &[RET]].concat();
        bytes.resize(self.spacing as usize, 0xCC);
        bytes
    }

    fn assemble(&self, iterations: u32) -> Result<Image, Error> {
        let mut g = Guest::boot(self.name, Setup::USUAL);
        let function = self.bytes();
        let source = g.data(&function) as i32;
        let end = (CODE + self.count * self.spacing) as i32;
        x86!(g
            ; mov edi, CODE as i32
            ; copy:
            ; mov esi, source
            ; mov ecx, self.spacing as i32 / 4
            ; rep movsd
            ; cmp edi, end
            ; jb <copy
        );
        g.begin();
        x86!(g ; xor ebx, ebx);
        g.repeat(iterations, |g| {
            x86!(g
                ; mov edi, CODE as i32
                ; mov eax, ebp
                ; write:
                ; mov [edi + CONSTANT], eax
                ; add eax, STEP as i32
                ; add edi, self.spacing as i32
                ; cmp edi, end
                ; jb <write
                ; mov edi, CODE as i32
                ; run:
                ; call edi
                ; add edi, self.spacing as i32
                ; cmp edi, end
                ; jb <run
            );
        });
        g.end();
        x86!(g ; mov eax, ebx);
        g.finish(self.checksum(iterations))
    }

    /// The first constant of function k in the iteration that counts c is c + k * STEP.
    fn checksum(&self, iterations: u32) -> u32 {
        let counts = sum_to(iterations).wrapping_mul(self.count);
        let steps = sum_to(self.count - 1).wrapping_mul(STEP);
        let fixed = self.added.wrapping_mul(self.count);
        counts.wrapping_add(iterations.wrapping_mul(steps.wrapping_add(fixed)))
    }
}
