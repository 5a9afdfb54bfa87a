//! A page of guest code that has been examined, and what may be executed of it.
//!
//! Examination follows control flow from where the guest enters: the successors of an instruction,
//! the targets of direct branches and calls, the places behind calls. What it has not reached is no
//! code yet: where it is entered after all, the page's executable copy has a byte that traps, and the
//! examination goes on from there.

use crate::class::{self, Flow, Treatment};
use crate::stub::Level;
use iced_x86::{Decoder, Instruction, Register};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// The longest instruction.
pub(crate) const LONGEST: usize = 15;

/// What a byte of the page is known to be.
mod mark {
    pub(super) const START: u8 = 1;
    pub(super) const BODY: u8 = 2;
    /// Control comes here otherwise than from the instruction before.
    pub(super) const TARGET: u8 = 4;
}

/// Prefixes of instructions (Intel SDM volume 2, 2.1.1).
mod prefix {
    pub(super) const SS: u8 = 0x36;
    pub(super) const DS: u8 = 0x3e;
    pub(super) const FS: u8 = 0x64;
    pub(super) const GS: u8 = 0x65;
    pub(super) const REP: u8 = 0xf3;
}

/// Which view of which page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The page's linear address.
    pub(crate) linear: u32,
    /// Its offset in the guest's memory file.
    pub(crate) offset: u64,
    /// What its stubs may do.
    pub(crate) level: Level,
    pub(crate) is_32bit: bool,
    /// The code segment's base.
    pub(crate) base: u32,
    /// Whether FS stands in for GS, where that is used at its base and above.
    pub(crate) splits_gs: bool,
}

/// An instruction that was examined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Examined {
    pub(crate) instruction: Instruction,
    pub(crate) treatment: Treatment,
    pub(crate) flow: Flow,
}

/// A run of instructions that a jump to a stub has taken the place of.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Behind its last byte, padding included.
    pub(crate) end: u16,
    /// The stub.
    pub(crate) stub: u32,
    /// Where each of its instructions is in the stub: offset in the page, linear address.
    pub(crate) parts: Vec<(u16, u32)>,
}

/// A page of guest code.
pub(crate) struct View {
    pub(crate) key: Key,
    /// The page as it was examined, with the first bytes of the page behind it.
    bytes: Vec<u8>,
    /// The same as it is executed: prefixes of GS where FS stands in are not the guest's.
    executed: Vec<u8>,
    /// The page behind it, while instructions reach into that.
    pub(crate) next: Option<u64>,
    marks: Vec<u8>,
    pub(crate) instructions: BTreeMap<u16, Examined>,
    pub(crate) windows: BTreeMap<u16, Window>,
}

impl View {
    /// A view of a page in which nothing is examined yet. `bytes` go on into the page behind it, as
    /// far as that is there.
    pub(crate) fn new(key: Key, bytes: Vec<u8>) -> View {
        View {
            key,
            executed: bytes.clone(),
            bytes,
            next: None,
            marks: vec![0; PAGE],
            instructions: BTreeMap::new(),
            windows: BTreeMap::new(),
        }
    }

    /// EIP of a place in the page.
    pub(crate) fn eip(&self, offset: u16) -> u32 {
        self.key.linear.wrapping_add(offset.into()).wrapping_sub(self.key.base)
    }

    /// The place in the page that an EIP means, if it is in the page.
    pub(crate) fn offset_of(&self, eip: u32) -> Option<u16> {
        let offset = eip.wrapping_add(self.key.base).wrapping_sub(self.key.linear);
        (offset < PAGE as u32).then_some(offset as u16)
    }

    /// The bytes of an instruction, as it is executed.
    pub(crate) fn bytes_of(&self, offset: u16) -> &[u8] {
        let start = usize::from(offset);
        let length = self.instructions.get(&offset).map_or(0, |known| known.instruction.len());
        self.executed.get(start..start + length).unwrap_or_default()
    }

    /// The same, as the guest has it.
    pub(crate) fn guest_bytes_of(&self, offset: u16) -> &[u8] {
        let start = usize::from(offset);
        let length = self.instructions.get(&offset).map_or(0, |known| known.instruction.len());
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// A byte of the page as it was examined.
    pub(crate) fn byte(&self, offset: u16) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// Whether an instruction was found to begin there.
    pub(crate) fn is_examined(&self, offset: u16) -> bool {
        self.marks[usize::from(offset)] & mark::START != 0
    }

    /// Whether the byte belongs to an instruction that was examined.
    pub(crate) fn is_code(&self, offset: u16) -> bool {
        self.marks[usize::from(offset)] & (mark::START | mark::BODY) != 0
    }

    /// Whether control is known to come there otherwise than from the instruction before.
    pub(crate) fn is_target(&self, offset: u16) -> bool {
        self.marks[usize::from(offset)] & mark::TARGET != 0
    }

    /// Notes that control comes to a place.
    pub(crate) fn note_target(&mut self, offset: u16) {
        self.marks[usize::from(offset)] |= mark::TARGET;
    }

    /// The window that covers a place.
    pub(crate) fn window_at(&self, offset: u16) -> Option<(u16, &Window)> {
        let (&start, window) = self.windows.range(..=offset).next_back()?;
        (offset < window.end).then_some((start, window))
    }

    /// Where the instruction begins that ends at `offset` and goes on there.
    pub(crate) fn before(&self, offset: u16) -> Option<u16> {
        let (&start, known) = self.instructions.range(..offset).next_back()?;
        let ends = usize::from(start) + known.instruction.len() == usize::from(offset);
        let goes_on = known.flow == Flow::Next;
        (ends && goes_on).then_some(start)
    }

    /// Examines what is reached from `entry`. Returns the instructions that are new, and those that
    /// turned out to overlap with one and must not be executed any more as they are.
    pub(crate) fn examine(&mut self, entry: u16) -> Found {
        let mut found = Found::default();
        let mut pending = vec![entry];
        while let Some(mut at) = pending.pop() {
            self.note_target(at);
            while !self.is_examined(at) {
                let Some(mut known) = self.decode(at) else { break };
                self.make_room(at, &mut known, &mut found);
                self.enter(at, known);
                found.new.push(at);
                let (next, targets) = self.successors(&known);
                pending.extend(targets);
                match next {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        found.new.sort_unstable();
        found
    }

    /// Nothing where the rest of the instruction is not there.
    fn decode(&self, at: u16) -> Option<Examined> {
        let bits = if self.key.is_32bit { 32 } else { 16 };
        let bytes = &self.bytes[usize::from(at)..];
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let ip = self.eip(at);
        let mut decoder = Decoder::with_ip(bits, bytes, ip.into(), emulator::DECODER_OPTIONS);
        let instruction = decoder.decode();
        let is_cut = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes;
        if is_cut && bytes.len() < LONGEST {
            return None;
        }
        let mut treatment = class::treatment(&instruction);
        if self.key.splits_gs && class::names_memory_by(&instruction, Register::FS) {
            treatment = Treatment::Monitor;
        }
        if let Treatment::Stub(_) = treatment
            && !crate::stub::can_store(&instruction)
        {
            treatment = Treatment::Monitor;
        }
        Some(Examined { instruction, treatment, flow: class::flow(&instruction) })
    }

    /// Where control goes from an instruction within the page: behind it, and elsewhere.
    fn successors(&self, known: &Examined) -> (Option<u16>, Option<u16>) {
        let next = self.offset_of(known.instruction.next_ip32());
        let next = next.filter(|_| known.instruction.next_ip32() != 0);
        let to = |target| self.offset_of(target);
        match known.flow {
            Flow::Next | Flow::IndirectCall => (next, None),
            Flow::Jump(target) => (None, to(target)),
            Flow::Branch(target) | Flow::ShortBranch(target) | Flow::Call(target) => {
                (next, to(target))
            }
            Flow::Ends => (None, None),
        }
    }

    fn enter(&mut self, at: u16, known: Examined) {
        let start = usize::from(at);
        let end = (start + known.instruction.len().max(1)).min(PAGE);
        self.marks[start] |= mark::START;
        if known.treatment != Treatment::Trap {
            self.marks[start + 1..end].iter_mut().for_each(|mark| *mark |= mark::BODY);
            if self.key.splits_gs && class::is_above_gs(&known.instruction) {
                self.replace_prefix(start, prefix::GS, prefix::FS);
            }
            if class::is_repeated_scan(&known.instruction) {
                // Another prefix that means nothing.
                let is_on_stack = known.instruction.memory_segment() == Register::SS;
                let other = if is_on_stack { prefix::SS } else { prefix::DS };
                self.replace_prefix(start, prefix::REP, other);
            }
        }
        let returns = matches!(known.flow, Flow::Call(_) | Flow::IndirectCall);
        if returns && end < PAGE {
            self.marks[end] |= mark::TARGET;
        }
        self.instructions.insert(at, known);
    }

    /// Lets an instruction have another prefix when it is executed.
    fn replace_prefix(&mut self, start: usize, before: u8, now: u8) {
        let mut bytes = self.executed[start..].iter().take(LONGEST);
        if let Some(at) = bytes.position(|&byte| byte == before) {
            self.executed[start + at] = now;
        }
    }

    /// Sees to it that no instruction goes on over the beginning of another: of two that overlap, the
    /// one that begins first is no more than a byte that traps, and the emulator executes it. `known` is
    /// to be entered at `at`.
    fn make_room(&mut self, at: u16, known: &mut Examined, found: &mut Found) {
        if self.marks[usize::from(at)] & mark::BODY != 0
            && let Some(start) = self.covering(at)
        {
            self.give_up(start);
            found.given_up.push(start);
        }
        let end = (usize::from(at) + known.instruction.len()).min(PAGE);
        if (at + 1..end as u16).any(|within| self.is_examined(within)) {
            known.treatment = Treatment::Trap;
        }
    }

    /// Where the instruction begins in whose bytes a place is.
    fn covering(&self, at: u16) -> Option<u16> {
        let before = self.instructions.range(at.saturating_sub(LONGEST as u16)..at).rev();
        let mut covering = before.filter(|&(&start, known)| {
            let end = usize::from(start) + known.instruction.len();
            known.treatment != Treatment::Trap && end > usize::from(at)
        });
        covering.next().map(|(&start, _)| start)
    }

    /// From now on an instruction is no more than a byte that traps.
    fn give_up(&mut self, start: u16) {
        let Some(known) = self.instructions.get_mut(&start) else { return };
        known.treatment = Treatment::Trap;
        let end = (usize::from(start) + known.instruction.len()).min(PAGE);
        for mark in &mut self.marks[usize::from(start) + 1..end] {
            *mark &= !mark::BODY;
        }
        let range = usize::from(start)..end;
        self.executed[range.clone()].copy_from_slice(&self.bytes[range]);
    }

    /// Whether the instruction reaches into the page behind this one.
    pub(crate) fn leaves_page(&self, offset: u16) -> bool {
        let length = self.instructions.get(&offset).map_or(0, |known| known.instruction.len());
        usize::from(offset) + length > PAGE
    }

    /// Whether an instruction cannot run as it is.
    pub(crate) fn is_site(&self, offset: u16) -> bool {
        let known = self.instructions.get(&offset);
        known.is_some_and(|known| known.treatment != Treatment::Native) || self.leaves_page(offset)
    }

    /// Takes over bytes that the guest wrote. False if an instruction that was examined is among
    /// them, so that the view no longer holds.
    pub(crate) fn take_write(&mut self, written: Range<usize>, now: &[u8]) -> bool {
        let changed = |at: &usize| self.bytes[*at] != now[*at];
        let holds = !written.clone().filter(changed).any(|at| self.is_code(at as u16));
        self.bytes[written.clone()].copy_from_slice(&now[written.clone()]);
        for at in written {
            if !self.is_code(at as u16) {
                self.executed[at] = now[at];
            }
        }
        holds
    }

    /// Takes over the page's bytes as they are now. False if what was examined has changed.
    pub(crate) fn refresh(&mut self, now: &[u8]) -> bool {
        let same = |at: usize| self.bytes.get(at) == now.get(at);
        let holds = (0..PAGE).all(|at| same(at) || !self.is_code(at as u16))
            && (self.next.is_none() || (PAGE..self.bytes.len()).all(same));
        self.bytes.clear();
        self.bytes.extend_from_slice(now);
        let mut executed = self.bytes.clone();
        for at in (0..PAGE).filter(|&at| self.is_code(at as u16)) {
            executed[at] = self.executed[at];
        }
        self.executed = executed;
        holds
    }
}

/// What an examination found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Instructions that were not known, in ascending order.
    pub(crate) new: Vec<u16>,
    /// Instructions that overlap with one of those.
    pub(crate) given_up: Vec<u16>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn view(code: &[u8]) -> View {
        let mut bytes = vec![0; PAGE + LONGEST];
        bytes[..code.len()].copy_from_slice(code);
        let key = Key {
            linear: 0x1000,
            offset: 0x5000,
            level: Level::Virtual,
            is_32bit: true,
            base: 0,
            splits_gs: false,
        };
        View::new(key, bytes)
    }

    #[test]
    fn branches_are_followed_and_data_is_not_code() {
        // jz 5; cli; ret; (data); sti; ret
        let mut view = view(&[0x74, 0x03, 0xfa, 0xc3, 0xff, 0xfb, 0xc3]);
        assert_eq!(view.examine(0).new, [0, 2, 3, 5, 6]);
        assert!(view.is_target(5) && !view.is_target(2) && !view.is_code(4));
        assert_eq!(view.before(3), Some(2));
        assert_eq!(view.before(2), None, "a branch cannot be moved to the front");
    }

    #[test]
    fn of_two_instructions_that_overlap_one_is_given_up() {
        // mov eax, 0xfac3fb00: with an entry in its middle
        let mut view = view(&[0xb8, 0x00, 0xfb, 0xc3, 0xfa, 0xc3]);
        view.examine(0);
        let found = view.examine(2);
        assert_eq!((found.new, found.given_up), (vec![2, 3], vec![0]));
        assert_eq!(view.instructions[&0].treatment, Treatment::Trap);
        assert!(view.is_examined(0) && !view.is_code(1));
    }

    #[test]
    fn no_instruction_goes_on_over_the_beginning_of_another() {
        // jz 3, and then add [eax], al from 2 and from 3 on.
        let mut code = [0; 64];
        code[..2].copy_from_slice(&[0x74, 0x01]);
        let mut view = view(&code);
        let found = view.examine(0);
        assert!((2..60).all(|offset| found.new.contains(&offset)));
        for (&start, known) in view.instructions.range(2..60) {
            let covers = view.is_examined(start + 1);
            assert_eq!(known.treatment == Treatment::Trap, covers, "{start}");
        }
    }

    #[test]
    fn a_prefix_that_is_jumped_over_traps_and_what_is_behind_it_does_not() {
        // jz 3; lock cmpxchg [ebx], ecx; ret
        let mut view = view(&[0x74, 0x01, 0xf0, 0x0f, 0xb1, 0x0b, 0xc3]);
        view.examine(0);
        let treatment = |offset: u16| view.instructions[&offset].treatment;
        assert_eq!((treatment(2), treatment(3)), (Treatment::Trap, Treatment::Native));
        assert!(view.is_code(5));
    }

    #[test]
    fn fs_stands_in_for_gs_where_that_is_used_above_its_base() {
        // mov eax, gs:[0x14]; mov eax, gs:[0xffffffc4]; mov eax, gs:[eax]; mov eax, fs:[0]
        let code = [
            0x65, 0xa1, 0x14, 0, 0, 0, 0x65, 0xa1, 0xc4, 0xff, 0xff, 0xff, 0x65, 0x8b, 0, 0x64,
            0xa1, 0, 0, 0, 0, 0xc3,
        ];
        let plain = view(&code);
        let mut view = View::new(Key { splits_gs: true, ..plain.key }, plain.bytes.clone());
        view.examine(0);
        assert_eq!(view.bytes_of(0)[0], 0x64);
        assert_eq!((view.bytes_of(6)[0], view.bytes_of(12)[0]), (0x65, 0x65));
        assert_eq!(view.byte(0), 0x65, "as the guest has it");
        assert_eq!(view.instructions[&15].treatment, Treatment::Monitor);
        assert!(view.refresh(&plain.bytes));
        assert_eq!(view.bytes_of(0)[0], 0x64);
    }

    #[test]
    fn a_scan_with_a_repeat_prefix_is_none_of_newer_cpus() {
        // rep bsf eax, ecx; rep bsr eax, [ebp]; rep bsf eax, fs:[ebx]; ret
        let code =
            [0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0x45, 0, 0xf3, 0x64, 0x0f, 0xbc, 0x03, 0xc3];
        let mut view = view(&code);
        view.examine(0);
        assert_eq!(view.bytes_of(0), [0x3e, 0x0f, 0xbc, 0xc1]);
        assert_eq!(view.bytes_of(4), [0x36, 0x0f, 0xbd, 0x45, 0]);
        assert_eq!(view.instructions[&9].treatment, Treatment::Monitor);
    }

    #[test]
    fn a_write_beside_code_does_no_harm() {
        let mut view = view(&[0xfa, 0xc3]);
        view.examine(0);
        let mut now = vec![0; PAGE];
        now[..2].copy_from_slice(&[0xfa, 0xc3]);
        now[2] = 9;
        assert!(view.take_write(0..3, &now));
        now[1] = 9;
        assert!(!view.take_write(0..3, &now));
    }

    #[test]
    fn an_instruction_at_the_end_needs_the_page_behind() {
        let mut bytes = vec![0x90; PAGE];
        bytes[PAGE - 1] = 0xb8;
        let key = view(&[]).key;
        let mut without = View::new(key, bytes.clone());
        without.examine(4094);
        assert!(!without.is_examined(4095));
        bytes.extend([0; LONGEST]);
        let mut with = View::new(key, bytes);
        with.examine(4094);
        assert!(with.leaves_page(4095));
    }
}
