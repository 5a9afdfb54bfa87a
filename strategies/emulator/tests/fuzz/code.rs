//! Random instruction bytes: anything at all, forms that mostly decode, and mutations of those that
//! are known to be delicate.

use crate::random::Random;

const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/// Instructions to start mutations from.
const DELICATE: &[&[u8]] = &[
    &[0xf3, 0xa5],                               // rep movsd
    &[0xf3, 0xaa],                               // rep stosb
    &[0xf2, 0xae],                               // repne scasb
    &[0xf3, 0xa6],                               // repe cmpsb
    &[0x67, 0xf3, 0xab],                         // rep stosd with the other address size
    &[0x8f, 0x04, 0x24],                         // pop [esp]
    &[0xff, 0x34, 0x24],                         // push [esp]
    &[0xc8, 0x08, 0x00, 0x03],                   // enter 8, 3
    &[0xc9],                                     // leave
    &[0x60],                                     // pusha
    &[0x61],                                     // popa
    &[0x9d],                                     // popf
    &[0xcf],                                     // iret
    &[0xcb],                                     // retf
    &[0xca, 0x08, 0x00],                         // retf 8
    &[0xcd, 0x21],                               // int 0x21
    &[0xcc],                                     // int3
    &[0x8e, 0xd0],                               // mov ss, ax
    &[0x17],                                     // pop ss
    &[0xfb],                                     // sti
    &[0x0f, 0xb1, 0x0b],                         // cmpxchg [ebx], ecx
    &[0x0f, 0xc7, 0x0b],                         // cmpxchg8b [ebx]
    &[0x0f, 0xc0, 0xc4],                         // xadd ah, al
    &[0x0f, 0xab, 0x03],                         // bts [ebx], eax
    &[0x0f, 0x22, 0xc0],                         // mov cr0, eax
    &[0x0f, 0x22, 0xd8],                         // mov cr3, eax
    &[0x0f, 0x22, 0xe0],                         // mov cr4, eax
    &[0x0f, 0x23, 0xf8],                         // mov dr7, eax
    &[0x0f, 0x01, 0x3b],                         // invlpg [ebx]
    &[0x0f, 0x01, 0x13],                         // lgdt [ebx]
    &[0x0f, 0x00, 0xd8],                         // ltr ax
    &[0x9a, 0, 0, 0, 0, 0x08, 0],                // call far 8:0
    &[0xea, 0, 0, 1, 0, 0x08, 0],                // jmp far 8:0x10000
    &[0xe2, 0xfe],                               // loop to itself
    &[0xeb, 0xf0],                               // jmp back
    &[0xe8, 0, 0, 0, 0],                         // call next
    &[0x62, 0x03],                               // bound eax, [ebx]
    &[0xc6, 0x05, 0x00, 0x00, 0x01, 0x00, 0x90], // mov byte [0x10000], 0x90
    &[0x80, 0x05, 0x04, 0x00, 0x01, 0x00, 0x01], // add byte [0x10004], 1
    &[0x11, 0x05, 0x08, 0x00, 0x01, 0x00],       // adc [0x10008], eax
    &[0xd9, 0x2b],                               // fldcw [ebx]
    &[0xdd, 0x33],                               // fnsave [ebx]
    &[0xdd, 0x23],                               // frstor [ebx]
    &[0xd9, 0x23],                               // fldenv [ebx]
    &[0x0f, 0xae, 0x0b],                         // fxrstor [ebx]
    &[0x0f, 0xae, 0x03],                         // fxsave [ebx]
    &[0x0f, 0xae, 0x13],                         // ldmxcsr [ebx]
    &[0xd8, 0xf1],                               // fdiv st, st(1)
    &[0x0f, 0x2a, 0xc1],                         // cvtpi2ps xmm0, mm1
    &[0x0f, 0x58, 0x03],                         // addps xmm0, [ebx]
    &[0x0f, 0xf7, 0xc1],                         // maskmovq mm0, mm1
    &[0x66, 0x0f, 0xf7, 0xc1],                   // maskmovdqu xmm0, xmm1
    &[0xd4, 0x00],                               // aam 0
    &[0xf7, 0xf1],                               // div ecx
    &[0x6c],                                     // insb
    &[0x6f],                                     // outsd
    &[0xe5, 0x40],                               // in eax, 0x40
];

/// Bytes for some instructions.
pub(crate) fn generate(random: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..1 + random.below(20) {
        match random.below(8) {
            0 => code.extend((0..1 + random.below(15)).map(|_| random.byte())),
            1 | 2 => mutated(random, &mut code),
            _ => plausible(random, &mut code),
        }
    }
    hide_the_time(&mut code);
    code
}

/// An instruction with prefixes, an opcode that is likely to exist, and operands in reach.
fn plausible(random: &mut Random, code: &mut Vec<u8>) {
    for _ in 0..[0, 0, 0, 0, 1, 1, 2, 4][random.below(8) as usize] {
        code.push(random.choose(&PREFIXES));
    }
    let opcode = random.byte();
    if random.one_in(4) {
        code.extend([0x0f, random.byte()]);
    } else {
        code.push(opcode);
    }
    operands(random, code);
}

/// A ModRM byte with a small displacement, and something that serves as an immediate.
fn operands(random: &mut Random, code: &mut Vec<u8>) {
    let modrm = random.byte();
    match random.below(4) {
        0 => code.push(modrm | 0xc0),
        1 => code.extend([modrm & 0x38 | 0x43, random.byte()]),
        2 => {
            code.push(modrm & 0x38 | 5);
            code.extend((random.below(0x2_0000)).to_le_bytes());
        }
        _ => code.push(modrm),
    }
    match random.below(4) {
        0 => code.push(random.byte()),
        1 => code.extend(random.interesting().to_le_bytes()),
        _ => {}
    }
}

fn mutated(random: &mut Random, code: &mut Vec<u8>) {
    let start = code.len();
    if random.one_in(3) {
        code.push(random.choose(&PREFIXES));
    }
    code.extend(random.choose(DELICATE));
    if random.one_in(3) {
        let at = start + random.below((code.len() - start) as u32) as usize;
        code[at] ^= 1 << random.below(8);
    }
}

/// Two runs never see the same time: no RDTSC, no RDMSR.
pub(crate) fn hide_the_time(code: &mut [u8]) {
    for at in 1..code.len() {
        if code[at - 1] == 0x0f && matches!(code[at], 0x31 | 0x32) {
            code[at] = 0xa2;
        }
    }
}
