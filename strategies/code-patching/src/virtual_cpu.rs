//! The virtual CPU as stubs see it: a page of words that lies where guest kernel code can reach it.
//!
//! The monitor fills it on the way into the guest; on the way out it takes back what stubs change,
//! IF and IOPL. Registers that a stub needs for itself lie in the first eight words meanwhile.

use machine::Machine;
use machine::cpu::{Eflags, SegmentRegister};

/// A word of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// A general register, by its number, while a stub uses it.
    Saved(u8),
    /// IF, as EFLAGS has it: 0 or 0x200.
    InterruptFlag,
    /// IOPL, as EFLAGS has it.
    IoPrivilege,
    /// Not 0 while an interrupt waits for IF.
    Pending,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    GdtrLimit,
    GdtrBase,
    IdtrLimit,
    IdtrBase,
    /// LDTR's selector.
    Ldtr,
    /// TR's selector.
    Tr,
    /// A segment register's selector, by its number.
    Selector(u8),
    /// 0 where the guest's time-stamp counter is the host's plus an offset.
    NoTimeStamps,
    /// That offset.
    TimeStampLow,
    TimeStampHigh,
    /// The two halves of its lower word, to add with a carry that is no flag.
    TimeStampFirst,
    TimeStampSecond,
}

/// Words in use; the rest of the page is 0.
const WORDS: usize = 32;
/// Bytes in use.
pub(crate) const BYTES: usize = 4 * WORDS;

impl Word {
    /// The selector of a segment register.
    pub(crate) fn segment(number: usize) -> Word {
        Word::Selector(number as u8)
    }

    /// A control register, if it exists.
    pub(crate) fn control(number: usize) -> Option<Word> {
        [Some(Word::Cr0), None, Some(Word::Cr2), Some(Word::Cr3), Some(Word::Cr4)]
            .get(number)
            .copied()
            .flatten()
    }

    fn index(self) -> usize {
        match self {
            Word::Saved(number) => number.into(),
            Word::InterruptFlag => 8,
            Word::IoPrivilege => 9,
            Word::Pending => 10,
            Word::Cr0 => 11,
            Word::Cr2 => 12,
            Word::Cr3 => 13,
            Word::Cr4 => 14,
            Word::GdtrLimit => 15,
            Word::GdtrBase => 16,
            Word::IdtrLimit => 17,
            Word::IdtrBase => 18,
            Word::Ldtr => 19,
            Word::Tr => 20,
            Word::Selector(number) => 21 + usize::from(number),
            Word::NoTimeStamps => 27,
            Word::TimeStampLow => 28,
            Word::TimeStampHigh => 29,
            Word::TimeStampFirst => 30,
            Word::TimeStampSecond => 31,
        }
    }

    /// Its distance from the page's start, in bytes.
    pub(crate) fn offset(self) -> u32 {
        4 * self.index() as u32
    }
}

/// The page's contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VirtualCpu([u8; BYTES]);

impl VirtualCpu {
    /// What stubs are to see of `m`.
    pub(crate) fn of(m: &Machine) -> VirtualCpu {
        let cpu = &m.cpu;
        let mut page = VirtualCpu([0; BYTES]);
        let flag = |flags: Eflags| cpu.flags.bits() & flags.bits();
        page.set(Word::InterruptFlag, flag(Eflags::IF));
        page.set(Word::IoPrivilege, flag(Eflags::IOPL));
        page.set(Word::Pending, m.interrupt_requested().into());
        for (word, value) in [
            (Word::Cr0, cpu.cr0.bits()),
            (Word::Cr2, cpu.cr2),
            (Word::Cr3, cpu.cr3),
            (Word::Cr4, cpu.cr4.bits()),
            (Word::GdtrLimit, cpu.gdtr.limit.into()),
            (Word::GdtrBase, cpu.gdtr.base),
            (Word::IdtrLimit, cpu.idtr.limit.into()),
            (Word::IdtrBase, cpu.idtr.base),
            (Word::Ldtr, cpu.ldtr.selector.into()),
            (Word::Tr, cpu.tr.selector.into()),
        ] {
            page.set(word, value);
        }
        let offset = m.host_tsc_offset();
        page.set(Word::NoTimeStamps, offset.is_none().into());
        let (low, high) = (offset.unwrap_or(0) as u32, (offset.unwrap_or(0) >> 32) as u32);
        for (word, value) in [
            (Word::TimeStampLow, low),
            (Word::TimeStampHigh, high),
            (Word::TimeStampFirst, low & 0xffff),
            (Word::TimeStampSecond, low >> 16),
        ] {
            page.set(word, value);
        }
        for register in SegmentRegister::ALL {
            let selector = cpu.segment(register).selector;
            page.set(Word::segment(register as usize), selector.into());
        }
        page
    }

    /// The page with these bytes.
    pub(crate) fn from_bytes(bytes: [u8; BYTES]) -> VirtualCpu {
        VirtualCpu(bytes)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// A word's value.
    pub(crate) fn get(&self, word: Word) -> u32 {
        let at = word.offset() as usize;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn set(&mut self, word: Word, value: u32) {
        let at = word.offset() as usize;
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The flags that stubs may have changed.
    pub(crate) fn flags(&self) -> Eflags {
        let flags = self.get(Word::InterruptFlag) | self.get(Word::IoPrivilege);
        Eflags::from_bits_retain(flags) & (Eflags::IF | Eflags::IOPL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_words_share_a_place() {
        let words = (0..8)
            .map(Word::Saved)
            .chain((0..6).map(Word::Selector))
            .chain([Word::InterruptFlag, Word::IoPrivilege, Word::Pending])
            .chain([Word::Cr0, Word::Cr2, Word::Cr3, Word::Cr4, Word::Ldtr, Word::Tr])
            .chain([Word::GdtrLimit, Word::GdtrBase, Word::IdtrLimit, Word::IdtrBase])
            .chain([Word::NoTimeStamps, Word::TimeStampLow, Word::TimeStampHigh])
            .chain([Word::TimeStampFirst, Word::TimeStampSecond]);
        let mut places: Vec<u32> = words.map(Word::offset).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), WORDS);
        assert_eq!(places.last().map(|last| last + 4), Some(BYTES as u32));
    }
}
