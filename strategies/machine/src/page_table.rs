//! Copies of page tables: what a monitor tells by which translations a flush may have changed.
//!
//! A CPU keeps translations until they are flushed (Intel SDM volume 3, 4.10.4), and kernels flush all
//! of them at each change of address space, though most are the same in the next.

use crate::PhysicalAddress;
use crate::memory::{Memory, Page};

const PRESENT: u64 = 1;
const ACCESSED_AND_DIRTY: u64 = 0x60;
/// Bytes that are compared at once: a line of the host's cache.
const LINE: usize = 64;

/// Brings the copy of the table at `address` up to date, and names the entries, of `entry_bytes` each,
/// whose translations may be other ones now, by their numbers. A table outside memory has none.
pub fn follow(
    memory: &Memory,
    address: PhysicalAddress,
    entry_bytes: usize,
    copy: &mut Page,
    mut changed: impl FnMut(usize),
) {
    let Some(table) = memory.host_page(address) else { return };
    // SAFETY: a page of guest memory, which nobody writes while the memory is borrowed.
    let table = unsafe { &*table.cast::<Page>() };
    if *copy == *table {
        return;
    }
    let lines = copy.as_chunks_mut::<LINE>().0.iter_mut().zip(table.as_chunks::<LINE>().0);
    for (number, (before, now)) in lines.enumerate().filter(|(_, (before, now))| before != now) {
        let entries = before.chunks_exact(entry_bytes).zip(now.chunks_exact(entry_bytes));
        for (at, (before, now)) in entries.enumerate() {
            if is_other(entry(before), entry(now)) {
                changed(number * (LINE / entry_bytes) + at);
            }
        }
        *before = *now;
    }
}

/// Whether what was shown by an entry may not be shown any more. Accessed and dirty bits that were set
/// are no change, and what was not present was not shown.
#[inline]
#[must_use]
pub fn is_other(before: u64, now: u64) -> bool {
    before | (now & ACCESSED_AND_DIRTY) != now && before & PRESENT != 0
}

/// An entry of 4 or 8 bytes.
#[inline]
#[must_use]
pub fn entry(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Machine, MachineConfig};

    const TABLE: PhysicalAddress = PhysicalAddress(0x3000);

    #[test]
    fn entries_are_named_that_lead_elsewhere_and_the_copy_follows() {
        let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
        for entry_bytes in [4, 8] {
            let mut machine = Machine::new(&config).unwrap();
            let mut copy = Box::new([0; 0x1000]);
            let mut set = |machine: &mut Machine, entries: &[(usize, u64)]| {
                for (number, value) in entries {
                    let at = PhysicalAddress(TABLE.0 + (number * entry_bytes) as u64);
                    machine.memory.write(at, &value.to_le_bytes()[..entry_bytes]);
                }
                let mut changed = Vec::new();
                follow(&machine.memory, TABLE, entry_bytes, &mut copy, |number| {
                    changed.push(number);
                });
                changed
            };
            let m = &mut machine;
            let last = 0x1000 / entry_bytes - 1;
            assert!(set(m, &[(0, 0x5027), (17, 0x6006), (last, 0x7007)]).is_empty(), "new ones");
            assert!(set(m, &[(0, 0x5067), (last, 0x7027)]).is_empty(), "they were used");
            assert_eq!(set(m, &[(0, 0x5027), (17, 0x8007), (last, 0)]), [0, last]);
            assert_eq!(set(m, &[(17, 0x9007)]), [17]);
            assert!(set(m, &[]).is_empty());
        }
    }

    #[test]
    fn a_table_outside_memory_changes_nothing() {
        let config = MachineConfig { memory_bytes: 1 << 20, ..MachineConfig::default() };
        let machine = Machine::new(&config).unwrap();
        let mut copy = Box::new([7; 0x1000]);
        let address = PhysicalAddress(0x8000_0000);
        follow(&machine.memory, address, 4, &mut copy, |number| panic!("entry {number}"));
        assert_eq!(*copy, [7; 0x1000]);
    }
}
