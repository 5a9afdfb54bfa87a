//! A pointer chase over 64 MiB: every hop goes to another page, so it pays for address translation
//! and cache misses and for nothing else.

use super::kernel::{FACTOR, Kernel, affine, function, prepare};
use crate::runtime::prelude::*;

/// Bytes from node to node.
const STRIDE_SHIFT: u32 = 8;
/// Nodes.
const NODES_SHIFT: u32 = 18;
const NODES: u32 = 1 << NODES_SHIFT;
/// Where the node reached is kept between iterations: beside the link of node 0.
const POSITION: i32 = 4;
/// Hops in an iteration.
const HOPS: u32 = 256;

/// Node i leads to node `i * LINK_FACTOR + LINK_STEP` (mod [`NODES`]): all nodes in one cycle (Hull
/// and Dobell).
const LINK_FACTOR: u32 = 0x2_C9B5;
const LINK_STEP: u32 = 0x1_2D67;

pub(super) const KERNEL: Kernel = Kernel {
    name: "chase",
    summary: "pointer chase over 64 MiB of pages; an iteration is 256 hops",
    sse: false,
    data_bytes: NODES << STRIDE_SHIFT,
    data: Vec::new,
    prepare: Some(emit_prepare),
    emit,
    checksum,
};

/// Links hold addresses.
fn emit_prepare(asm: &mut Asm, label: DynamicLabel) {
    prepare(asm, label, |asm| {
        x86!(asm
            ; xor ecx, ecx
            ; mov edi, esi
            ; node:
            ; imul eax, ecx, LINK_FACTOR as i32
            ; add eax, LINK_STEP as i32
            ; and eax, (NODES - 1) as i32
            ; shl eax, STRIDE_SHIFT as i8
            ; add eax, esi
            ; mov [edi], eax
            ; add edi, 1 << STRIDE_SHIFT
            ; inc ecx
            ; cmp ecx, NODES as i32
            ; jb <node
            ; mov [esi + POSITION], esi
        );
    });
}

/// The value of an iteration is the offset reached, less `FACTOR` times the one before: so the checksum
/// is always the last offset.
fn emit(asm: &mut Asm, run: DynamicLabel) {
    function(asm, run, |asm| {
        x86!(asm
            ; mov eax, [esi + POSITION]
            ; mov edx, eax
            ; mov ecx, HOPS as i32 / 8
            ; hops:
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; mov eax, [eax]
            ; dec ecx
            ; jnz <hops
            ; mov [esi + POSITION], eax
            ; sub eax, esi
            ; sub edx, esi
            ; imul edx, edx, FACTOR as i32
            ; sub eax, edx
        );
    });
}

/// The offset of the node reached.
fn checksum(iterations: u32) -> u32 {
    let node = affine(LINK_FACTOR, LINK_STEP, u64::from(iterations) * u64::from(HOPS));
    (node & (NODES - 1)) << STRIDE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jump_ahead_agrees_with_hopping() {
        let hop =
            |node: u32, _| node.wrapping_mul(LINK_FACTOR).wrapping_add(LINK_STEP) & (NODES - 1);
        for iterations in [1, 2, 3, 100] {
            let node = (0..iterations * HOPS).fold(0, hop);
            assert_eq!(checksum(iterations), node << STRIDE_SHIFT);
        }
    }

    #[test]
    fn every_node_is_visited() {
        // A whole round ends where it began, and not before.
        let round = NODES / HOPS;
        assert_eq!(checksum(round), 0);
        assert_ne!(checksum(round / 2), 0);
    }
}
