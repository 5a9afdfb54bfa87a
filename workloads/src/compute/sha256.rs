//! SHA-256 compression: rotates, adds and a long data dependence.

use super::kernel::{Kernel, bytes, function, noise, repeated};
use crate::runtime::prelude::*;

/// Blocks of 64 bytes in the message.
const BLOCKS: u32 = 16;

// The data area: round constants, the initial hash, the message, the message schedule, the working
// variables, the hash.
const CONSTANTS: i32 = 0;
const INITIAL: i32 = 256;
const MESSAGE: i32 = INITIAL + 32;
const SCHEDULE: i32 = MESSAGE + BLOCKS as i32 * 64;
const VARIABLES: i32 = SCHEDULE + 256;
/// Where the variables of a block begin: each round puts them one word further down.
const VARIABLES_TOP: i32 = VARIABLES + 256;
const HASH: i32 = VARIABLES_TOP + 32;

pub(super) const KERNEL: Kernel = Kernel {
    name: "sha256",
    summary: "SHA-256 compression; an iteration covers 16 blocks of 64 bytes",
    sse: false,
    data_bytes: HASH as u32 + 32,
    data: || [bytes(round_constants()), bytes(initial_hash()), bytes(message())].concat(),
    prepare: None,
    emit,
    checksum: |iterations| repeated(digest(), iterations),
};

fn emit(asm: &mut Asm, run: DynamicLabel) {
    let block = asm.new_dynamic_label();
    function(asm, run, |asm| {
        emit_move_hash(asm, INITIAL, HASH);
        x86!(asm
            ; mov ebp, BLOCKS as i32
            ; lea ebx, [esi + MESSAGE]
            ; =>block
            ; push ebp
            ; push ebx
        );
        emit_schedule(asm);
        emit_move_hash(asm, HASH, VARIABLES_TOP);
        emit_rounds(asm);
        for word in 0..8 {
            x86!(asm
                ; mov eax, [esi + VARIABLES + word * 4]
                ; add [esi + HASH + word * 4], eax
            );
        }
        x86!(asm
            ; pop ebx
            ; pop ebp
            ; add ebx, 64
            ; dec ebp
            ; jnz =>block
            ; mov eax, [esi + HASH]
        );
        for word in 1..8 {
            x86!(asm ; rol eax, 3 ; xor eax, [esi + HASH + word * 4]);
        }
    });
}

fn emit_move_hash(asm: &mut Asm, from: i32, to: i32) {
    for word in 0..8 {
        x86!(asm
            ; mov eax, [esi + from + word * 4]
            ; mov [esi + to + word * 4], eax
        );
    }
}

/// The 64 words of the schedule from the block at EBX.
fn emit_schedule(asm: &mut Asm) {
    x86!(asm
        ; xor ecx, ecx
        ; copy:
        ; mov eax, [ebx + ecx * 4]
        ; bswap eax
        ; mov [esi + ecx * 4 + SCHEDULE], eax
        ; inc ecx
        ; cmp ecx, 16
        ; jb <copy
        ; extend:
        ; mov eax, [esi + ecx * 4 + SCHEDULE - 60]
        ; mov edx, eax
        ; ror edx, 7
        ; mov edi, eax
        ; ror edi, 18
        ; xor edx, edi
        ; shr eax, 3
        ; xor eax, edx
        ; mov edx, [esi + ecx * 4 + SCHEDULE - 8]
        ; mov edi, edx
        ; ror edi, 17
        ; mov ebx, edx
        ; ror ebx, 19
        ; xor edi, ebx
        ; shr edx, 10
        ; xor edx, edi
        ; add eax, edx
        ; add eax, [esi + ecx * 4 + SCHEDULE - 64]
        ; add eax, [esi + ecx * 4 + SCHEDULE - 28]
        ; mov [esi + ecx * 4 + SCHEDULE], eax
        ; inc ecx
        ; cmp ecx, 64
        ; jb <extend
    );
}

/// 64 rounds. EDI points to `a`, after which `b` to `h` lie. A round writes the new `a` below it, adds
/// to `d`, which the step down makes `e`, and all other variables change their names by it.
fn emit_rounds(asm: &mut Asm) {
    x86!(asm
        ; lea edi, [esi + VARIABLES_TOP]
        ; xor ecx, ecx
        ; round:
        // EAX = h + S1(e) + ch(e, f, g) + constant + schedule
        ; mov ebx, [edi + 16]
        ; mov eax, ebx
        ; ror eax, 6
        ; mov edx, ebx
        ; ror edx, 11
        ; xor eax, edx
        ; mov edx, ebx
        ; ror edx, 25
        ; xor eax, edx
        ; mov edx, [edi + 20]
        ; mov ebp, [edi + 24]
        ; xor edx, ebp
        ; and edx, ebx
        ; xor edx, ebp
        ; add eax, edx
        ; add eax, [edi + 28]
        ; add eax, [esi + ecx * 4 + CONSTANTS]
        ; add eax, [esi + ecx * 4 + SCHEDULE]
        ; add [edi + 12], eax
        // the new a = EAX + S0(a) + maj(a, b, c)
        ; mov ebx, [edi]
        ; mov edx, ebx
        ; ror edx, 2
        ; mov ebp, ebx
        ; ror ebp, 13
        ; xor edx, ebp
        ; mov ebp, ebx
        ; ror ebp, 22
        ; xor edx, ebp
        ; add eax, edx
        ; mov edx, [edi + 4]
        ; mov ebp, ebx
        ; and ebp, edx
        ; or edx, ebx
        ; and edx, [edi + 8]
        ; or edx, ebp
        ; add eax, edx
        ; mov [edi - 4], eax
        ; sub edi, 4
        ; inc ecx
        ; cmp ecx, 64
        ; jb <round
    );
}

/// The first `count` primes.
fn primes(count: usize) -> impl Iterator<Item = u32> {
    (2u32..).filter(|&n| (2..n).all(|d| !n.is_multiple_of(d))).take(count)
}

/// The first 32 bits of the fraction of `value`'s `root`-th root, by integer arithmetic.
fn fraction_of_root(value: u32, root: u32) -> u32 {
    let target = u128::from(value) << (32 * root);
    let fits = |candidate: u128| candidate.pow(root) <= target;
    let bits = (0..40).rev();
    bits.fold(0, |found, bit| if fits(found | 1 << bit) { found | 1 << bit } else { found }) as u32
}

/// FIPS 180-4, 4.2.2.
fn round_constants() -> impl Iterator<Item = u32> {
    primes(64).map(|prime| fraction_of_root(prime, 3))
}

/// FIPS 180-4, 5.3.3.
fn initial_hash() -> impl Iterator<Item = u32> {
    primes(8).map(|prime| fraction_of_root(prime, 2))
}

fn message() -> impl Iterator<Item = u32> {
    noise(0x5EED_0256).take(BLOCKS as usize * 16)
}

/// What an iteration computes, here in Rust.
fn digest() -> u32 {
    let constants: Vec<u32> = round_constants().collect();
    let message: Vec<u32> = message().map(u32::swap_bytes).collect();
    let mut hash: Vec<u32> = initial_hash().collect();
    for block in message.chunks(16) {
        compress(&mut hash, block, &constants);
    }
    hash.into_iter().reduce(|digest, word| digest.rotate_left(3) ^ word).unwrap_or_default()
}

/// FIPS 180-4, 6.2.2.
fn compress(hash: &mut [u32], block: &[u32], constants: &[u32]) {
    let mut schedule = block.to_vec();
    for t in 16..64 {
        let (x, y) = (schedule[t - 15], schedule[t - 2]);
        let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
        let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ y >> 10;
        let sum = schedule[t - 16].wrapping_add(schedule[t - 7]);
        schedule.push(sum.wrapping_add(s0).wrapping_add(s1));
    }
    let mut v: Vec<u32> = hash.to_vec();
    for (word, constant) in schedule.into_iter().zip(constants) {
        let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
        let choice = v[4] & v[5] ^ !v[4] & v[6];
        let t1 = [s1, choice, *constant, word].into_iter().fold(v[7], u32::wrapping_add);
        let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
        let majority = v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2];
        v.rotate_right(1);
        v[4] = v[4].wrapping_add(t1);
        v[0] = t1.wrapping_add(s0).wrapping_add(majority);
    }
    for (hash, variable) in hash.iter_mut().zip(v) {
        *hash = hash.wrapping_add(variable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_computes_sha_256() {
        // The padded message "abc" (FIPS 180-4's example).
        let mut block = [0; 16];
        block[0] = 0x6162_6380;
        block[15] = 24;
        let mut hash: Vec<u32> = initial_hash().collect();
        compress(&mut hash, &block, &round_constants().collect::<Vec<u32>>());
        assert_eq!(hash[0], 0xBA78_16BF);
        assert_eq!(hash[7], 0xF200_15AD);
    }
}
