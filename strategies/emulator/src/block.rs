//! Decoded blocks, cached by physical address.
//!
//! A block is a run of instructions within one page that execution enters at its first. Pages with
//! blocks are watched ([`machine::memory::Memory::watch_code`]); a write to one drops the blocks that
//! it touches. Blocks are found through a small table by linear address, which holds as long as the
//! TLB forgets nothing, and behind it a hash table by physical address.

use crate::decode::{Decoded, decode};
use crate::exception::Exception;
use crate::fetch;
use crate::lower::Flow;
use crate::op::Op;
use machine::memory::{CodeWrite, PageKind};
use machine::{LinearAddress, Machine, PhysicalAddress};
use std::collections::HashMap;

/// The most instructions in a block.
const LONGEST_BLOCK: usize = 48;
/// The most bytes in a block: [`Op::end`] must hold them.
const MOST_BYTES: usize = 240;
/// Blocks before the cache is emptied.
const CAPACITY: usize = 1 << 16;
const BUCKETS: usize = 1 << 16;
const LINEAR_SLOTS: usize = 1 << 12;
const NONE: u32 = u32::MAX;

/// What decoding depends on beside the bytes: code size, privilege (for the table by linear
/// address), and whether blocks of one instruction are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key(u8);

impl Key {
    pub(crate) fn of(m: &Machine, single: bool) -> Key {
        let code = u8::from(m.cpu.segments[1].is_32bit());
        Key(code | u8::from(m.cpu.cpl == 3) << 1 | u8::from(single) << 2)
    }

    fn is_32bit(self) -> bool {
        self.0 & 1 != 0
    }

    fn is_single(self) -> bool {
        self.0 & 4 != 0
    }
}

/// A run of decoded instructions.
pub(crate) struct Block {
    pub(crate) ops: Vec<Op>,
    /// Where its first byte lies.
    pub(crate) physical: PhysicalAddress,
    /// Bytes.
    pub(crate) length: u32,
    /// Whether EIP is to be advanced over the block after its last instruction.
    pub(crate) falls_through: bool,
    key: Key,
    /// Unlike that of every other block, dropped ones included.
    stamp: u64,
    next_in_bucket: u32,
}

impl Block {
    /// The physical bytes that it was decoded from.
    #[inline]
    pub(crate) fn bytes(&self) -> std::ops::Range<u64> {
        self.physical.0..self.physical.0 + u64::from(self.length)
    }
}

#[derive(Clone, Copy)]
struct LinearSlot {
    linear: u32,
    key: Key,
    generation: u64,
    block: u32,
    stamp: u64,
}

/// The block cache.
pub(crate) struct BlockCache {
    blocks: Vec<Block>,
    free: Vec<u32>,
    buckets: Vec<u32>,
    by_page: HashMap<u64, Vec<u32>>,
    by_linear: Vec<LinearSlot>,
    stamps: u64,
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        let empty = LinearSlot { linear: 0, key: Key(0xff), generation: 0, block: 0, stamp: 0 };
        BlockCache {
            blocks: Vec::new(),
            free: Vec::new(),
            buckets: vec![NONE; BUCKETS],
            by_page: HashMap::new(),
            by_linear: vec![empty; LINEAR_SLOTS],
            stamps: 1,
        }
    }
}

fn bucket(physical: PhysicalAddress, key: Key) -> usize {
    let mixed = (physical.0 ^ u64::from(key.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % BUCKETS
}

/// Where in the table by linear address: pages at the same offset must not share a slot.
#[inline]
fn linear_slot(linear: LinearAddress) -> usize {
    (linear.0 ^ linear.0 >> 12) as usize % LINEAR_SLOTS
}

impl BlockCache {
    /// The block at EIP, decoded if need be; nothing where no block can be: where the instruction
    /// leaves its page or the code segment, or lies in device memory.
    #[inline]
    pub(crate) fn find(&mut self, m: &mut Machine, key: Key) -> Result<Option<&Block>, Exception> {
        let linear = m.cpu.instruction_address();
        let slot = &self.by_linear[linear_slot(linear)];
        if slot.linear == linear.0 && slot.key == key && slot.generation == m.tlb.generation() {
            let block = slot.block as usize;
            if self.blocks[block].stamp == slot.stamp {
                return Ok(self.within_limit(m, block));
            }
        }
        self.find_slowly(m, linear, key)
    }

    /// The block, if all of it lies within the code segment.
    #[inline]
    fn within_limit(&self, m: &Machine, block: usize) -> Option<&Block> {
        let block = &self.blocks[block];
        let end = u64::from(m.cpu.eip) + u64::from(block.length);
        (end <= u64::from(m.cpu.segments[1].limit) + 1).then_some(block)
    }

    #[inline(never)]
    fn find_slowly(
        &mut self,
        m: &mut Machine,
        linear: LinearAddress,
        key: Key,
    ) -> Result<Option<&Block>, Exception> {
        // The limit comes before paging.
        if m.cpu.eip > m.cpu.segments[1].limit {
            return Ok(None);
        }
        let physical = fetch::physical(m, linear)?;
        let block = match self.find_physical(physical, key) {
            Some(block) => block,
            None => match self.decode(m, physical, key) {
                Some(block) => block,
                None => return Ok(None),
            },
        };
        self.by_linear[linear_slot(linear)] = LinearSlot {
            linear: linear.0,
            key,
            generation: m.tlb.generation(),
            block,
            stamp: self.blocks[block as usize].stamp,
        };
        Ok(self.within_limit(m, block as usize))
    }

    fn find_physical(&self, physical: PhysicalAddress, key: Key) -> Option<u32> {
        let mut index = self.buckets[bucket(physical, key)];
        while index != NONE {
            let block = &self.blocks[index as usize];
            if block.physical == physical && block.key == key {
                return Some(index);
            }
            index = block.next_in_bucket;
        }
        None
    }

    fn decode(&mut self, m: &mut Machine, physical: PhysicalAddress, key: Key) -> Option<u32> {
        let kind = m.memory.page_kind(physical);
        if kind == PageKind::Device {
            return None;
        }
        let mut bytes = [0; MOST_BYTES];
        let length = MOST_BYTES.min((0x1000 - physical.page_offset()) as usize);
        let bytes = &mut bytes[..length];
        if !m.memory.read(physical, bytes) {
            return None;
        }
        let block = decode_block(bytes, physical, key)?;
        // Clearing ends the watch over all pages, this one included: it comes first.
        if self.blocks.len() - self.free.len() >= CAPACITY {
            self.clear(m);
        }
        if matches!(kind, PageKind::Ram(_)) {
            self.watch(m, physical);
        }
        m.counters.blocks_decoded += 1;
        Some(self.insert(block))
    }

    fn watch(&self, m: &mut Machine, physical: PhysicalAddress) {
        if m.memory.watch_code(physical)
            && let Some(host) = m.memory.host_page(physical)
        {
            m.tlb.withhold_writes(host);
        }
    }

    fn insert(&mut self, mut block: Block) -> u32 {
        let bucket = bucket(block.physical, block.key);
        let page = block.physical.page();
        block.next_in_bucket = self.buckets[bucket];
        block.stamp = self.stamps;
        self.stamps += 1;
        let index = match self.free.pop() {
            Some(index) => {
                self.blocks[index as usize] = block;
                index
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        };
        self.buckets[bucket] = index;
        self.by_page.entry(page).or_default().push(index);
        index
    }

    /// Drops the blocks that were written to. A page without blocks is watched no more.
    #[cold]
    pub(crate) fn take_code_writes(&mut self, m: &mut Machine) {
        for write in m.memory.take_code_writes() {
            m.counters.code_writes += 1;
            self.drop_written(m, write);
        }
    }

    fn drop_written(&mut self, m: &mut Machine, write: CodeWrite) {
        let page = write.address.page();
        let Some(mut indices) = self.by_page.remove(&page) else {
            m.memory.unwatch_code(write.address);
            return;
        };
        let end = write.address.0 + u64::from(write.length);
        indices.retain(|&index| {
            let bytes = self.blocks[index as usize].bytes();
            let touched = bytes.start < end && write.address.0 < bytes.end;
            if touched {
                self.remove(index);
            }
            !touched
        });
        if indices.is_empty() {
            m.memory.unwatch_code(write.address);
        } else {
            self.by_page.insert(page, indices);
        }
    }

    fn remove(&mut self, index: u32) {
        let block = &self.blocks[index as usize];
        let (bucket, next) = (bucket(block.physical, block.key), block.next_in_bucket);
        if self.buckets[bucket] == index {
            self.buckets[bucket] = next;
        } else {
            let mut at = self.buckets[bucket];
            while self.blocks[at as usize].next_in_bucket != index {
                at = self.blocks[at as usize].next_in_bucket;
            }
            self.blocks[at as usize].next_in_bucket = next;
        }
        self.blocks[index as usize].stamp = 0;
        self.free.push(index);
    }

    /// Drops all blocks.
    pub(crate) fn clear(&mut self, m: &mut Machine) {
        for &page in self.by_page.keys() {
            m.memory.unwatch_code(PhysicalAddress(page << 12));
        }
        let stamps = self.stamps;
        *self = BlockCache { stamps, ..BlockCache::default() };
    }
}

/// Decodes instructions until one ends the block; nothing if not even one is whole.
fn decode_block(bytes: &[u8], physical: PhysicalAddress, key: Key) -> Option<Block> {
    let mut ops = Vec::with_capacity(8);
    let mut at = 0;
    let mut falls_through = true;
    let most = if key.is_single() { 1 } else { LONGEST_BLOCK };
    while ops.len() < most {
        let Decoded::Op(op, flow) = decode(bytes, at, key.is_32bit()) else { break };
        at = usize::from(op.end);
        ops.push(op);
        falls_through = flow != Flow::Jump;
        if flow != Flow::Next {
            break;
        }
    }
    if ops.is_empty() {
        return None;
    }
    let length = at as u32;
    Some(Block { ops, physical, length, falls_through, key, stamp: 0, next_in_bucket: NONE })
}
