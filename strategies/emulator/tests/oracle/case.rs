//! One case: a short piece of code and the state in which it starts.

use crate::layout::{CODE, Flavour, HLT, PAGE};
use machine::cpu::Fpu;

/// Where an operand is filled in when the code is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// Offset of the operand in the item.
    pub(crate) at: usize,
    /// Its size in bytes.
    pub(crate) size: usize,
    /// Whether it is relative to the item's end.
    pub(crate) relative: bool,
    /// The item it leads to; one past the last is the end.
    pub(crate) target: usize,
}

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) bytes: Vec<u8>,
    pub(crate) link: Option<Link>,
    /// Left out: links to it lead to what follows.
    pub(crate) dropped: bool,
}

impl Item {
    pub(crate) fn new(bytes: Vec<u8>) -> Item {
        Item { bytes, link: None, dropped: false }
    }
}

/// A piece of code and the state in which it starts.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) flavour: Flavour,
    /// Where in the arena the code begins.
    pub(crate) start: u32,
    pub(crate) items: Vec<Item>,
    pub(crate) registers: [u32; 8],
    pub(crate) eflags: u32,
    pub(crate) fpu: Fpu,
    pub(crate) data: Vec<u8>,
    pub(crate) stack: Vec<u8>,
}

/// A case's code as it lies in memory.
pub(crate) struct Code {
    /// The whole code page.
    pub(crate) page: Vec<u8>,
    /// Arena offsets at which an item begins, and of the end.
    pub(crate) boundaries: Vec<u32>,
}

impl Case {
    /// Lays the code out for an arena at `arena`. What does not fit on the page is cut off.
    pub(crate) fn code(&self, arena: u32) -> Code {
        let mut boundaries = vec![self.start];
        for item in &self.items {
            let length = if item.dropped { 0 } else { item.bytes.len() as u32 };
            boundaries.push(boundaries[boundaries.len() - 1] + length);
        }
        let mut page = vec![HLT; PAGE as usize];
        for (index, item) in self.items.iter().enumerate().filter(|(_, item)| !item.dropped) {
            let mut bytes = item.bytes.clone();
            if let Some(link) = item.link {
                let target = boundaries[link.target.min(self.items.len())];
                let value = if link.relative {
                    target.wrapping_sub(boundaries[index + 1])
                } else {
                    target.wrapping_add(self.flavour.origin(arena))
                };
                bytes[link.at..link.at + link.size]
                    .copy_from_slice(&value.to_le_bytes()[..link.size]);
            }
            let at = (boundaries[index] - CODE) as usize;
            let fits = bytes.len().min((PAGE as usize).saturating_sub(at));
            if fits > 0 {
                page[at..at + fits].copy_from_slice(&bytes[..fits]);
            }
        }
        Code { page, boundaries }
    }
}
